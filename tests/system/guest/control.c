// control DEVICE NAME VALUE: sets a control of a video device by its name, as the driver spells it. Without NAME it lists them.
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

int main(int argc, char **argv) {
    if (argc != 2 && argc != 4) {
        fprintf(stderr, "usage: control DEVICE [NAME VALUE]\n");
        return 2;
    }
    int device = open(argv[1], O_RDWR);
    if (device < 0) {
        fprintf(stderr, "control: %s: %s\n", argv[1], strerror(errno));
        return 1;
    }
    struct v4l2_queryctrl query = {.id = V4L2_CTRL_FLAG_NEXT_CTRL};
    for (; ioctl(device, VIDIOC_QUERYCTRL, &query) == 0; query.id |= V4L2_CTRL_FLAG_NEXT_CTRL) {
        if (argc == 2) puts((const char *)query.name);
        else if (!strcmp((const char *)query.name, argv[2])) {
            struct v4l2_control control = {.id = query.id, .value = atoi(argv[3])};
            if (ioctl(device, VIDIOC_S_CTRL, &control) == 0) return 0;
            fprintf(stderr, "control: %s: %s\n", argv[2], strerror(errno));
            return 1;
        }
    }
    if (argc == 2) return 0;
    fprintf(stderr, "control: %s has no control \"%s\"\n", argv[1], argv[2]);
    return 1;
}
