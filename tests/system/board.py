"""The virtual board: qemu-system-aarch64 with Debian's kernel, and the world outside of it.

What a scenario may know comes from the board's own interfaces: lines on its serial console, the level of the relay's line as the GPIO chip
drives it (QEMU's qtest socket), the picture on its screen. Time inside runs on instructions (`-icount`): one nanosecond each, so that the guest
sees a processor of a board's pace however slow the emulation is; while it idles its clock follows the real one.
"""

import json
import os
import re
import shutil
import socket
import struct
import subprocess
import threading
import time
import zlib
from pathlib import Path

# Offsets at the board's GPIO chip. Line 3 is QEMU's power key.
RELAY, EXIT, DOOR, SERVICE, TAMPER, OTHER = 0, 1, 2, 4, 5, 6
LINES = {"exit": EXIT, "door": DOOR, "service": SERVICE, "tamper": TAMPER}


class Failed(Exception):
    """A scenario saw something else than it should."""


class Board:
    """A running board. Use as a context manager: leaving it ends the emulator."""

    def __init__(self, folder, kernel, initrd, seconds=300, log=None):
        folder = Path(folder)
        state = folder / "state.img"
        state.unlink(missing_ok=True)
        with open(state, "wb") as image:
            image.truncate(16 << 20)
        subprocess.run([tool("mke2fs"), "-q", "-F", "-t", "ext4", str(state)], check=True)
        disk = ["-drive", f"file={state},format=raw,if=none,id=state"]
        if log:
            # Every write that reaches the disk, and every flush of its cache, in their order.
            shutil.copy(state, folder / "state.base")
            with open(log, "wb") as file:
                file.truncate(1 << 30)
            disk = ["-blockdev", f"driver=blklogwrites,node-name=state,log-sector-size=512,log-super-update-interval=1,"
                                 f"file.driver=file,file.filename={state},log.driver=file,log.filename={log}"]
        self._start(folder, seconds, ["-kernel", str(kernel), "-initrd", str(initrd), "-append", "console=ttyAMA0 quiet panic=5", *disk,
                                      "-device", "virtio-blk-pci,drive=state,write-cache=on"])

    def _start(self, folder, seconds, boot, clock=("-icount", "shift=0,sleep=on")):
        """Starts the emulator; `boot` is what it boots from."""
        self._launch(folder, seconds, ["-M", "virt,gic-version=2", "-cpu", "cortex-a53", "-smp", "1", "-m", "512", *clock,
                                       *boot, "-nodefaults", "-device", "virtio-gpu-pci,xres=480,yres=320",
                                       "-device", "i6300esb", "-action", "watchdog=reset", "-serial", "chardev:serial",
                                       "-qtest", f"unix:{folder}/qtest,server=on,wait=off", "-qtest-log", "/dev/null"])

    def _launch(self, folder, seconds, machine):
        """Starts the emulator of `machine`, which has a serial port on the character device `serial`."""
        self.folder, self.seconds = folder, seconds
        self.lines, self.relay, self.watchdog_bites = [], [], 0
        self._news = threading.Condition()
        self.log = open(self.folder / "serial.log", "w", buffering=1)
        for name in ("serial", "qmp", "qtest"):
            (self.folder / name).unlink(missing_ok=True)
        args = ["qemu-system-aarch64", "-accel", "tcg,tb-size=256", "-display", "none",
                "-chardev", f"socket,id=serial,path={self.folder}/serial,server=on,wait=on",
                "-qmp", f"unix:{self.folder}/qmp,server=on,wait=off", *machine]
        self.emulator = subprocess.Popen(args, stdin=subprocess.DEVNULL, stderr=open(self.folder / "qemu.log", "w"))
        try:
            self._connect_all()
        except BaseException:
            self.emulator.kill()
            raise

    def _connect_all(self):
        self._connect_console()
        self._qtest = self._connect("qtest").makefile("rw")
        self._answers = []
        threading.Thread(target=self._read_qtest, daemon=True).start()
        self._chip = self._find_chip("/machine", 3)
        self._ask_qtest(f"irq_intercept_out {self._chip}")

    def _connect_console(self):
        self._serial = self._connect("serial")
        self._qmp = self._connect("qmp").makefile("rw")
        self._qmp.readline()
        self._qmp_call("qmp_capabilities")
        threading.Thread(target=self._read_serial, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.emulator.kill()
        self.emulator.wait()

    # The serial console.

    def mark(self):
        """Now, for `wait(since=...)`."""
        return len(self.lines)

    def wait(self, pattern, since=0, seconds=None):
        """The first line from `since` on that matches."""
        found = self._wait_until(lambda: next((m for l in self.lines[since:] if (m := re.search(pattern, l))), None), seconds)
        if not found:
            raise Failed(f"no line /{pattern}/ within {seconds or self.seconds} s; the last lines:\n" + "\n".join(self.lines[-15:]))
        return found

    def seen(self, pattern, since=0):
        return any(re.search(pattern, line) for line in self.lines[since:])

    def run(self, command, check=True, seconds=None):
        """Runs one line of shell on the board; its output, or (code, output) unless `check`. Lines of the door's log are among the output."""
        since = self.mark()
        self._serial.sendall((command + "\n").encode())
        code = int(self.wait(r"::done (\d+)$", since, seconds).group(1))
        out = "\n".join(line for line in self.lines[since:] if "::done" not in line)
        if check and code:
            raise Failed(f"`{command}` ended with {code}:\n{out}")
        return out if check else (code, out)

    # The world outside.

    def set_line(self, name, active):
        """Presses or lets go of a button, opens or shuts the door: active is high."""
        self._ask_qtest(f"set_irq_in {self._chip} unnamed-gpio-in {LINES[name]} {int(active)}")

    def released(self):
        """Whether the relay's line is high: a strike that is high to release."""
        return bool(self.relay) and self.relay[-1][1]

    def wait_relay(self, level, changes, seconds=None):
        """Waits for the line to change to `level` beyond the first `changes` changes."""
        hit = lambda: any(up == level for _, up in self.relay[changes:])
        if not self._wait_until(hit, seconds):
            raise Failed(f"the relay's line never went {'high' if level else 'low'}; {self.relay[changes:]}; the last lines:\n" + "\n".join(self.lines[-15:]))

    def screendump(self, name):
        """The picture on the panel, as a PNG file."""
        path = self.folder / "screens" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        self._qmp_call("screendump", filename=str(path.absolute()), format="png")
        return path

    def _connect(self, name):
        for _ in range(600):
            try:
                link = socket.socket(socket.AF_UNIX)
                link.connect(str(self.folder / name))
                return link
            except OSError:
                if self.emulator.poll() is not None:
                    raise Failed("the emulator ended: " + (self.folder / "qemu.log").read_text()) from None
                time.sleep(0.05)
        raise Failed(f"the emulator opens no {name}")

    def _wait_until(self, hit, seconds):
        end = time.monotonic() + (seconds or self.seconds)
        with self._news:
            while not (found := hit()):
                left = end - time.monotonic()
                if left <= 0 or self.emulator.poll() is not None:
                    return hit()
                self._news.wait(min(left, 1))
        return found

    def _read_serial(self):
        rest = b""
        while data := self._serial.recv(65536):
            *whole, rest = (rest + data).split(b"\n")
            with self._news:
                for line in whole:
                    self.lines.append(re.sub(r"\x1b\[[0-9;]*m", "", line.decode(errors="replace")).rstrip("\r"))
                    self.log.write(self.lines[-1] + "\n")
                self._news.notify_all()

    def _read_qtest(self):
        for line in self._qtest:
            words = line.split()
            with self._news:
                if words[:1] == ["IRQ"] and int(words[2]) == RELAY:
                    up = words[1] == "raise"
                    if not self.relay or self.relay[-1][1] != up:
                        self.relay.append((time.monotonic(), up))
                        self.log.write(f"          relay {'high' if up else 'low'}\n")
                elif words[:1] != ["IRQ"]:
                    self._answers.append(line)
                self._news.notify_all()

    def _ask_qtest(self, request):
        asked = len(self._answers)
        self._qtest.write(request + "\n")
        self._qtest.flush()
        if not self._wait_until(lambda: len(self._answers) > asked, 30) or not self._answers[asked].startswith("OK"):
            raise Failed(f"qtest: {request}: {self._answers[asked:]}")

    def _qmp_call(self, command, **arguments):
        self._qmp.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._qmp.flush()
        while True:
            answer = json.loads(self._qmp.readline())
            if answer.get("event") == "WATCHDOG":
                self.watchdog_bites += 1
            if "return" in answer or "error" in answer:
                if "error" in answer:
                    raise Failed(f"qmp {command}: {answer['error']}")
                return answer["return"]

    def count_watchdog_bites(self):
        self._qmp_call("query-status")
        return self.watchdog_bites

    def _find_chip(self, path, depth):
        for entry in self._qmp_call("qom-list", path=path):
            below = f"{path}/{entry['name']}"
            if entry["type"] == "child<pl061>":
                return below
            if entry["type"].startswith("child<") and depth and (found := self._find_chip(below, depth - 1)):
                return found
        return None


def compiled(name, folder):
    """A program of `guest`, compiled for the board into `folder`."""
    compiler = "gcc" if os.uname().machine == "aarch64" else "aarch64-linux-gnu-gcc"
    source, out = Path(__file__).resolve().parent / f"guest/{name}.c", folder / name
    subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o", str(out), str(source)], check=True)
    return out


def initrd(files, modules):
    """A cpio archive ("newc", as in the kernel's Documentation/driver-api/early-userspace/buffer-format.rst) of `files` (name to path, bytes or None
    for a folder), the tree `modules` and the console's device."""
    out = bytearray()

    def add(name, mode, data=b"", device=(0, 0)):
        nonlocal out
        name = name.encode() + b"\0"
        fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name), 0]
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + name
        out += b"\0" * (-len(out) % 4) + data
        out += b"\0" * (-len(out) % 4)

    for folder in ("bin", "dev", "proc", "sys", "tmp", "state", "etc", "run"):
        add(folder, 0o40755)
    add("dev/console", 0o20600, device=(5, 1))
    folders = set()

    def parents(name):
        parts = name.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            folder = "/".join(parts[:depth])
            if folder not in folders and folder not in ("bin", "etc"):
                folders.add(folder)
                add(folder, 0o40755)

    tree = {str(p.relative_to(modules)): p for p in sorted(Path(modules).rglob("*")) if p.is_file()}
    for name, what in {**files, **tree}.items():
        parents(name)
        data = what if isinstance(what, bytes) else Path(what).read_bytes()
        add(name, 0o100755, data)
    add("TRAILER!!!", 0)
    return bytes(out)


def read_png(path):
    """Width, height and the RGB bytes of a PNG file with 8-bit colours or a palette."""
    data = path.read_bytes()
    at, chunks = 8, {}
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        chunks[kind] = chunks.get(kind, b"") + data[at + 8:at + 8 + length]
        at += length + 12
    width, height, _, colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    depth = {2: 3, 3: 1, 6: 4}[colour]
    raw, rows, before = zlib.decompress(chunks[b"IDAT"]), [], bytes(width * depth)
    for y in range(height):
        kind, row = raw[y * (width * depth + 1)], bytearray(raw[y * (width * depth + 1) + 1:(y + 1) * (width * depth + 1)])
        for x in range(len(row)):
            left, up = row[x - depth] if x >= depth else 0, before[x]
            corner = before[x - depth] if x >= depth else 0
            if kind == 1:
                row[x] = (row[x] + left) & 255
            elif kind == 2:
                row[x] = (row[x] + up) & 255
            elif kind == 3:
                row[x] = (row[x] + (left + up) // 2) & 255
            elif kind == 4:
                guess = left + up - corner
                near = min((abs(guess - left), 0, left), (abs(guess - up), 1, up), (abs(guess - corner), 2, corner))[2]
                row[x] = (row[x] + near) & 255
        rows.append(before := bytes(row))
    if colour == 3:
        palette = chunks[b"PLTE"]
        return width, height, b"".join(palette[3 * i:3 * i + 3] for row in rows for i in row)
    return width, height, b"".join(row[i:i + 3] for row in rows for i in range(0, len(row), depth))


def tool(name):
    return shutil.which(name) or shutil.which(name, path="/sbin:/usr/sbin") or name
