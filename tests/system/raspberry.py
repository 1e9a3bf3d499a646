"""A door on a Raspberry Pi, as some of the scenarios of `tests/system/image`: qemu's model of a Pi 3 with the image as its SD card. The emulator
stands in for the boot ROM and the firmware, which cannot be emulated: it starts the U-Boot and passes the device tree that it finds on the
card's boot partition, as they would. From there on everything is the card's.
"""

import copy
import json
import re
import shutil
import struct
import subprocess
import time
from pathlib import Path

from board import Board, Failed, tool
from card import flip, read_log
from newcomer import Desk

MODEL = "bcm2837-rpi-3-b.dtb"
ENTRIES = "::loader/entries"
BUNDLE = "pi-2.0.0.flb"
# The wireless image's is the largest.
MOST_BYTES = 160e6
# What the boot ROMs and the firmware of a Pi 3, a Zero 2 W and a Pi 4 look for by name.
FIRMWARE = ["bootcode.bin", "start.elf", "fixup.dat", "start4.elf", "fixup4.dat", "config.txt", "u-boot.bin", "LICENCE.txt", "bcm2837-rpi-3-b.dtb",
            "bcm2837-rpi-3-b-plus.dtb", "bcm2837-rpi-zero-2-w.dtb", "bcm2711-rpi-4-b.dtb", "bcm2711-rpi-cm4-io.dtb"]


class Pi(Board):
    """A running Pi with a card, and a root shell on its serial console (the port on its pins). Its serial port is its only line to the world, beside
    a network or a disk behind USB."""

    def __init__(self, folder, card, boot, seconds=3600, stick=None, port=None, log=None):
        folder = Path(folder)
        for name in ("u-boot.bin", MODEL):
            (folder / name).unlink(missing_ok=True)
            subprocess.run(["mcopy", "-i", f"{card}@@{boot}", f"::{name}", folder / name], check=True, capture_output=True, text=True)
        # The file outlives the emulator, however that ends.
        drive = f"if=sd,format=raw,cache=unsafe,file={card}"
        if log:
            drive = f"if=sd,driver=blklogwrites,log-sector-size=512,log-super-update-interval=1,file.driver=file,file.filename={card},log.driver=file,log.filename={log}"
        more = ["-drive", drive]
        if stick:
            more += ["-drive", f"file={stick},format=raw,if=none,id=stick,readonly=on", "-device", "usb-storage,drive=stick"]
        if port:
            more += ["-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:4815", "-device", "usb-net,netdev=net"]
        self._launch(folder, seconds, ["-M", "raspi3b", "-kernel", str(folder / "u-boot.bin"), "-dtb", str(folder / MODEL), *more,
                                       "-serial", "null", "-serial", "chardev:serial"])

    def _connect_all(self):
        self._connect_console()

    def run(self, command, check=True, seconds=None):
        return super().run(f"{command}; echo ::done $?", check, seconds)


def for_a_pi(state):
    """The same scenarios' state, with the Pi's image."""
    pi = copy.copy(state)
    pi.image, pi.card, pi.description = state.work / "pi.img", state.work / "pi-card.img", state.work / "pi.json"
    pi.build = lambda out, settle, *more: state.build(out, settle, "--board", "rpi-arm64", *more)
    pi.built = json.loads(pi.description.read_text()) if pi.description.exists() else None
    if not pi.built or not pi.image.exists():
        raise Failed("there is no image for a Raspberry Pi: its build comes first")
    pi.boot = lambda **more: Pi(pi.work, pi.card, pi.built["boot"]["start"], **more)
    return pi


def builds_for_a_raspberry_pi(state):
    """Built twice: the same bytes; a hybrid MBR; every file that a boot ROM or the firmware looks for; and none of another board's loader."""
    image, description, seconds = state.work / "pi.img", state.work / "pi.json", []
    for stale in (description, state.work / BUNDLE):
        stale.unlink(missing_ok=True)
    for out in (image, state.work / "again.img"):
        begin = time.monotonic()
        told = json.loads(state.build(out, 6000, "--board", "rpi-arm64"))
        seconds.append(time.monotonic() - begin)
    differ = subprocess.run(["cmp", image, state.work / "again.img"], capture_output=True, text=True)
    (state.work / "again.img").unlink()
    if differ.returncode:
        raise Failed(f"two builds differ: {differ.stdout}")
    description.write_text(json.dumps(told))
    if told["bytes"] > MOST_BYTES:
        raise Failed(f"the image has {told['bytes']} bytes")
    if not any(name.startswith("raspi-firmware_") for name in told["packages"]):
        raise Failed(f"the firmware is not among the packages: {told['packages']}")
    pi = for_a_pi(state)
    pi.flash()
    has_hybrid_mbr(pi)
    files = pi.boot_partition("mdir", "-b", "::")
    if missing := [name for name in FIRMWARE if f"::/{name}\n" not in files]:
        raise Failed(f"the boot partition lacks {missing}: {files}")
    return f"{told['bytes'] / 1e6:.1f} MB, the same twice, {seconds[1]:.0f} s"


def a_raspberry_pi_starts_from_its_card(state):
    """First start with a configuration that `flash` put there, confirmed; the second start is another one; the tables are whole after both."""
    pi = for_a_pi(state)
    config = pi.work / "pi.toml"
    config.write_text(pi.config.replace("Front door", "Pi door"))
    pi.flash("--config", config)
    with pi.boot() as board:
        board.wait("facelatch-uboot: slot a, tries left after this one: 2")
        board.wait("facelatch-boot: slot a on /dev/mmcblk0p2")
        board.wait("facelatch-boot: room for data")
        board.wait("first start: making the data partition")
        board.wait("took door.toml from the boot partition")
        board.wait("facelatch: the door answers")
        board.wait("facelatch: slot a is confirmed")
        board.run("sleep 1; sync")
        key = keys(board)
        began = board.mark()
        board._serial.sendall(b"reboot\n")
        board.wait("facelatch-uboot: slot a$", began)
        board.wait("facelatch-boot: slot a on", began)
        board.wait("facelatch: the door answers", began)
        if board.seen("first start|is confirmed|room for data", began):
            raise Failed("the second start was another first one")
        if (again := keys(board)) != key or not key:
            raise Failed(f"other keys: {again}, before {key}")
        told = board.run("facelatchd --config /data/door.toml status", seconds=600)
        model = board.run("tr -d '\\0' </proc/device-tree/model; echo; ls /dev/gpiochip0 /dev/fb0 /dev/watchdog0")
        board.screendump("pi")
        board.run("sync")
    if "Pi door" not in told:
        raise Failed(f"not the configuration of the card: {told}")
    has_hybrid_mbr(pi)
    table = subprocess.run([tool("sfdisk"), "--dump", pi.card], check=True, capture_output=True, text=True)
    if "facelatch-data" not in table.stdout:
        raise Failed(f"no data partition: {table.stdout}")
    return re.search("Raspberry Pi.*", model).group(0)


def a_changed_byte_on_a_raspberry_pi_boots_root_b(state):
    """And U-Boot finds no environment, as on a Pi 4, where the card is not its first: its own one leads to the same script."""
    pi = for_a_pi(state)
    pi.flash()
    pi.boot_partition("mdel", "::uboot.env")
    at = pi.built["roots"][0]["start"] + pi.built["root_bytes"] // 3
    flip(pi.card, at)
    with pi.boot() as board:
        board.wait("root a is damaged")
        board.wait("slot a is out, slot b is next")
        board.wait("facelatch-uboot: slot b, tries left after this one: 2")
        board.wait("facelatch: slot b is confirmed")
        board.run("sync")
    has_entries(pi, "facelatch-a+0.conf", "facelatch-b.conf")


def a_slot_that_panics_on_a_raspberry_pi_runs_out_of_tries(state):
    """Slot a has two tries left, and its first file system is garbage: the kernel panics before it has a driver that could restart the board."""
    pi = for_a_pi(state)
    pi.flash()
    garbage = pi.work / "garbage"
    garbage.write_bytes(b"not an initrd\n" * 4096)
    pi.boot_partition("mcopy", "-o", garbage, "::facelatch/a/initrd")
    pi.boot_partition("mren", f"{ENTRIES}/facelatch-a+3.conf", f"{ENTRIES}/facelatch-a+2-1.conf")
    with pi.boot() as board:
        for left in (1, 0):
            since = board.mark()
            board.wait(f"facelatch-uboot: slot a, tries left after this one: {left}", since)
            board.wait("Kernel panic", since)
        board.wait("facelatch-uboot: slot b, tries left after this one: 2")
        board.wait("facelatch: slot b is confirmed")
        board.run("sync")
    has_entries(pi, "facelatch-a+0-3.conf", "facelatch-b.conf")


def power_cuts_while_a_raspberry_pi_counts(state):
    """Every sector that U-Boot writes to count one try is logged. For each cut between two of them: U-Boot itself takes the slot again with one
    or two tries less, never with more than before, nor the other slot; and it mends what the cut left of the file system."""
    pi = for_a_pi(state)
    pi.flash()
    before, log = pi.work / "before.img", pi.work / "card.log"
    shutil.copyfile(pi.card, before)
    with open(log, "wb") as file:
        file.truncate(64 << 20)
    with pi.boot(log=log) as board:
        board.wait("facelatch-uboot: slot a, tries left after this one: 2")
        board.wait("bytes written")
        time.sleep(3)
    writes = list(sectors(log))
    log.unlink()
    if len(writes) < 6:
        raise Failed(f"counting a try takes a new file, two file tables and two changes of the folder: {len(writes)} writes")
    seen, torn = {}, 0
    for cut in range(len(writes) + 1):
        shutil.copyfile(before, pi.card)
        with open(pi.card, "r+b") as card:
            for at, data in writes[:cut]:
                card.seek(at)
                card.write(data)
        torn += bool(wrong_with_files(pi))
        with pi.boot() as board:
            left = board.wait(r"facelatch-uboot: slot a, tries left after this one: (\d)", seconds=300).group(1)
            board.wait("bytes written")
            time.sleep(3)
        if left not in "12":
            raise Failed(f"after a cut at write {cut}, slot a has {left} tries left")
        has_entries(pi, f"facelatch-a+{left}-{3 - int(left)}.conf", "facelatch-b+3.conf", only=True)
        if wrong := wrong_with_files(pi):
            raise Failed(f"after a cut at write {cut}: {wrong}")
        seen[left] = seen.get(left, 0) + 1
    before.unlink()
    if set(seen) != {"1", "2"} or not torn:
        raise Failed(f"every cut left the same: {seen}, {torn} torn")
    return f"{len(writes)} writes, {len(writes) + 1} cuts: {seen['2']} times the try was not counted yet, {seen['1']} times it was; {torn} torn file systems mended"


def a_raspberry_pi_takes_a_new_system(state):
    """Paired and pushed over the network, as to any door: into slot b, on trial, confirmed. A system for another board is refused."""
    pi = for_a_pi(state)
    pi.flash()
    desk = Desk(pi)
    foreign, bundle = state.bundle("2.0.0", 2, 6000), pi.work / BUNDLE
    if not bundle.exists():
        pi.build(pi.work / "other.img", 6000, "--firmware-version", "2.0.0", "--bundle", bundle, "--counter", 2)
    with pi.boot(port=desk.port) as board:
        code = board.wait(r"Pairing code (\S+), for \d+ s, as administrator").group(1)
        # A Pi has no clock of its own; nor has this network a time server.
        board.run(f"date -s @{int(time.time())}")
        desk.call("pair", "--device", f"127.0.0.1:{desk.port}", "--code", code)
        try:
            desk.call("push", "--activate", str(foreign))
        except Failed as refused:
            if "other boards" not in str(refused):
                raise
        else:
            raise Failed("a system for generic-arm64 was taken")
        since = board.mark()
        desk.call("push", "--activate", str(bundle))
        board.wait("facelatch: a new system for slot b", since)
        board.wait("facelatch-uboot: slot b, tries left after this one: 2", since)
        board.wait("facelatch: slot b is confirmed", since)
        board.wait("facelatch: system 2.0.0 .2.: confirmed", since)
        board.run("grep -q 'VERSION_ID=2.0.0' /etc/os-release")
        # The door looks for what became of it every few seconds.
        board.run("sleep 8; sync")
        told = desk.call("update", "status")
    if not re.search("slot b of an image for rpi-arm64; 2.0.0 .counter 2. in slot b: confirmed", told):
        raise Failed(told)
    has_entries(pi, "facelatch-a.conf", "facelatch-b.conf", only=True)
    return f"{bundle.stat().st_size / 1e6:.1f} MB"


SCENARIOS = [builds_for_a_raspberry_pi, a_raspberry_pi_starts_from_its_card, a_changed_byte_on_a_raspberry_pi_boots_root_b,
             a_slot_that_panics_on_a_raspberry_pi_runs_out_of_tries, power_cuts_while_a_raspberry_pi_counts, a_raspberry_pi_takes_a_new_system]


def keys(board):
    return re.findall(r"([0-9a-f]{64}) +/data", board.run("sha256sum /data/facelatch/*key*"))


def has_entries(pi, *names, only=False):
    listed = pi.boot_partition("mdir", "-b", ENTRIES)
    found = re.findall(r"([^/\n]+\.conf)", listed)
    if not set(names) <= set(found) or only and len(found) != len(names):
        raise Failed(f"the boot loader's entries are {found}, not {names}")


def wrong_with_files(pi):
    """What a check of the boot partition says of its files; clusters that are lost, and a sum of free ones that is not right, do no harm."""
    boot = pi.work / "boot.cut"
    with open(pi.card, "rb") as card, open(boot, "wb") as out:
        card.seek(pi.built["boot"]["start"])
        out.write(card.read(pi.built["boot"]["bytes"]))
    said = subprocess.run([tool("fsck.vfat"), "-n", boot], capture_output=True, text=True).stdout
    boot.unlink()
    return said if re.search("Contains a|share clusters|chain length", said) else None


def has_hybrid_mbr(pi):
    """The boot partition as FAT32 and what lies before it as protective: so a boot ROM finds one, and everybody else the GPT."""
    with open(pi.card, "rb") as card:
        mbr = card.read(512)
    records = [(kind, start, count) for kind, start, count in (struct.unpack("<4xB3xII", mbr[at:at + 16]) for at in range(446, 510, 16)) if kind]
    boot = pi.built["boot"]
    if records != [(0x0c, boot["start"] // 512, boot["bytes"] // 512), (0xee, 1, boot["start"] // 512 - 1)]:
        raise Failed(f"the MBR has {records}")


def sectors(log):
    """What was written, sector by sector: a card writes each whole or not at all. Nothing is flushed in between, and U-Boot waits for each."""
    for at, _, data in read_log(log):
        for part in range(0, len(data), 512):
            yield at + part, data[part:part + 512]
