// feed DEVICE WIDTH HEIGHT FOURCC FPS FILE: plays FILE into the loopback camera, again and again. FILE is opened anew for every frame,
// so that whoever replaces it changes what the camera sees. Ends when the device refuses a frame.
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int die(const char *what) {
    fprintf(stderr, "feed: %s: %s\n", what, strerror(errno));
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 7 || strlen(argv[4]) != 4) {
        fprintf(stderr, "usage: feed DEVICE WIDTH HEIGHT FOURCC FPS FILE\n");
        return 2;
    }
    const char *code = argv[4], *path = argv[6];
    int device = open(argv[1], O_RDWR);
    if (device < 0) return die(argv[1]);
    struct v4l2_format format = {.type = V4L2_BUF_TYPE_VIDEO_OUTPUT};
    format.fmt.pix.width = (unsigned)atoi(argv[2]);
    format.fmt.pix.height = (unsigned)atoi(argv[3]);
    format.fmt.pix.pixelformat = v4l2_fourcc(code[0], code[1], code[2], code[3]);
    format.fmt.pix.field = V4L2_FIELD_NONE;
    format.fmt.pix.sizeimage = format.fmt.pix.width * format.fmt.pix.height * 2;
    if (ioctl(device, VIDIOC_S_FMT, &format)) return die("VIDIOC_S_FMT");
    size_t room = format.fmt.pix.sizeimage;
    char *frame = malloc(room);
    if (!frame) return die("memory");
    for (;;) {
        int file = open(path, O_RDONLY);
        ssize_t size = file < 0 ? -1 : read(file, frame, room);
        if (file >= 0) close(file);
        if (size > 0 && write(device, frame, (size_t)size) != size) return die("write");
        usleep((useconds_t)(1e6 / atof(argv[5])));
    }
}
