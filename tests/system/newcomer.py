"""A newcomer's path, from a card's image to a door that opens: what `tests/system/image` plays as one of its scenarios.

Nothing of it is prepared in the image. The camera is plugged in while the board runs: its module and the pictures that it shows come on a second
disk, as the lens and the people before it would come from outside. Buttons are pressed at the GPIO chip, the lock's line is watched there, and the
workstation's own commands reach the door over the emulator's network.
"""

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

from board import Failed, compiled, read_png, tool

HERE = Path(__file__).resolve().parent
# The pictures that the panel's own tests hold, and which of them know no name, code or time.
PANEL = HERE.parent.parent / "device/tests/panel"
SAME_EVERYWHERE = ("service-camera", "not-recognised")
# What the installer writes: the lock, its contacts, and what this camera needs. Photographs stand before it, which neither turn their heads nor
# are told from people: a door with a lock must say that it does without.
FRONT = """\
[decision]
votes = 2
window = 3
[session]
open_s = 8
[enrol]
views = 3
spacing_ms = 50
timeout_s = 600
poses = "front"
[liveness]
mode = "off"
[lock]
kind = "strike"
chip = "/dev/gpiochip0"
line = 0
active_low = false
[inputs]
exit_request = { chip = "/dev/gpiochip0", line = 1, active_low = false }
service = { chip = "/dev/gpiochip0", line = 4, active_low = false }
"""


def the_newcomers_path(state):
    """Flash with the door's configuration; the first start shows a code; pair; enrol two people by button and camera; each goes in, a stranger does
    not. Then the power is cut, and the door knows its people."""
    config = state.work / "front.toml"
    config.write_text(state.config + FRONT)
    state.flash("--config", config)
    stick = disk_with_camera(state)
    desk = Desk(state)
    with state.boot(stick=stick, port=desk.port) as board:
        door = AtTheDoor(board)
        board.wait("took door.toml from the boot partition")
        code = board.wait(r"Pairing code (\S+), for \d+ s, as administrator").group(1)
        door.see("pair", "pair")
        since = door.mark()
        desk.call("pair", "--device", f"127.0.0.1:{desk.port}", "--code", code)
        door.see("no-camera", "service-camera", since)
        since = door.mark()
        door.plug_in_camera()
        door.see("idle", "idle", since)
        for number, picture, name in ((1, "known", "Ada"), (2, "stranger", "Bo")):
            since = door.mark()
            door.hold_service_button()
            door.see(f"enrol-{number}", "enrol", since)
            door.show(picture)
            board.wait('event="Enrolled', since)
            door.show("nobody")
            door.see(f"enrolled-{number}", "enrolled", since)
            door.see(None, "idle", door.mark())
            desk.call("people", "rename", str(number), name)
        if not re.search("Ada.*Bo", people := desk.call("people", "list"), re.S):
            raise Failed(f"not in the list: {people}")
        for picture in ("again", "stranger"):
            goes_in(board, door, picture)
        since, changes = door.mark(), len(board.relay)
        door.show("guest")
        board.wait('event="Refused', since)
        door.show("nobody")
        door.see("not-recognised", "not-recognised", since)
        door.see(None, "idle", since)
        if any(up for _, up in board.relay[changes:]):
            raise Failed("the door opened for a stranger")
        desk.call("log", "--last", "7")
    with state.boot(stick=stick, port=desk.port) as board:
        door = AtTheDoor(board)
        board.wait("facelatch: the door answers")
        since = door.mark()
        door.plug_in_camera()
        door.see(None, "idle", since)
        goes_in(board, door, "known", keep=False)
        if not re.search("Ada.*Bo", people := desk.call("people", "list"), re.S):
            raise Failed(f"after a power cut: {people}")
        if board.seen("Pairing code"):
            raise Failed("a door that knows people is open for pairing")
    (state.work / "newcomer.txt").write_text(desk.transcript)
    return "told in newcomer.txt"


def goes_in(board, door, picture, keep=True):
    since, changes = door.mark(), len(board.relay)
    door.show(picture)
    board.wait_relay(True, changes)
    door.show("nobody")
    door.see(f"welcome-{picture}" if keep else None, "welcome", since)
    board.wait_relay(False, changes)
    door.see(None, "idle", since)


class Desk:
    """The workstation, with files of its own."""

    def __init__(self, state):
        self.facelatch, self.folder, self.transcript = state.facelatch, state.work / "desk", ""
        shutil.rmtree(self.folder, ignore_errors=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def call(self, *arguments):
        env = {**os.environ, "FACELATCH_CONFIG": str(self.folder)}
        told = subprocess.run([self.facelatch, *arguments], capture_output=True, text=True, env=env)
        self.transcript += f"desk$ facelatch {' '.join(arguments)}\n{told.stdout}{told.stderr}"
        if told.returncode:
            raise Failed(f"facelatch {' '.join(arguments)}: exit {told.returncode}: {told.stderr}")
        return told.stdout


class AtTheDoor:
    """Whoever stands there: sees the panel, presses the button, plugs the camera in and steps before it."""

    def __init__(self, board):
        self.board = board
        self.mark = board.mark
        for line in ("exit", "door", "service", "tamper"):
            board.set_line(line, False)

    def see(self, name, screen, since=0):
        """Waits until the panel shows `screen`; a picture of it is kept under `name`."""
        self.board.wait(rf'panel screen="{screen}"', since)
        if name:
            self.board.run("sleep 0.3")  # it is drawn after it is logged
            path = self.board.screendump(f"newcomer-{name}")
            known = PANEL / f"{screen}-480x320.png"
            if screen in SAME_EVERYWHERE and read_png(path) != read_png(known):
                raise Failed(f"the panel does not show {screen}: {path}")

    def plug_in_camera(self):
        since = self.mark()
        self.board.run("mount -t squashfs -o ro /dev/vdb /mnt && modprobe videodev && busybox insmod /mnt/v4l2loopback.ko devices=1 video_nr=0 exclusive_caps=1 max_buffers=8")
        self.show("nobody")
        self.board.run("(/mnt/feed /dev/video0 640 480 YUYV 3 /tmp/now >/dev/null 2>&1 &)")
        self.board.wait("the camera is open", since)

    def show(self, picture):
        """Another picture before the camera."""
        self.board.run(f"ln -sf /mnt/{picture}.yuyv /tmp/next && mv -f /tmp/next /tmp/now")

    def hold_service_button(self):
        since = self.mark()
        self.board.set_line("service", True)
        self.board.wait("EnrolStarted", since)
        self.board.set_line("service", False)


def disk_with_camera(state):
    """What is outside of the board: the camera's module, its feeder, and the pictures before it."""
    camera = state.camera or Path(subprocess.run([HERE.parent.parent / ".ci/board"], check=True, capture_output=True, text=True).stdout.strip())
    module = next((camera / "modules/lib/modules" / state.built["kernel"]).rglob("v4l2loopback.ko"), None)
    if not module:
        raise Failed(f"the camera's module is not for the image's kernel {state.built['kernel']}: remove {camera} and run .ci/board, or build the image with --refresh")
    folder, disk = state.work / "camera", state.work / "camera.img"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(module, folder / "v4l2loopback.ko")
    compiled("feed", folder)
    for picture in ("nobody", "known", "again", "stranger", "guest"):
        shutil.copy(state.frames / f"{picture}.yuyv", folder)
    disk.unlink(missing_ok=True)
    subprocess.run([tool("mksquashfs"), folder, disk, "-quiet", "-no-progress", "-all-root", "-comp", "gzip"], check=True)
    return disk
