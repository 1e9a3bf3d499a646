"""A card or disk of the emulator's, from outside: damaged, or its writes read back from qemu's log (`blklogwrites`, in the format of the kernel's
dm-log-writes, here always in sectors of 512 bytes).
"""

import struct


def flip(path, at):
    """Changes one bit of the byte at `at`."""
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def log_length(path):
    """How many writes the log has so far."""
    with open(path, "rb") as log:
        return struct.unpack("<QQQI", log.read(28))[2]


def read_log(path):
    """The writes in their order: offset in bytes, flags (1 flush, 2 forced through the cache), data."""
    with open(path, "rb") as log:
        _, _, count, sector_bytes = struct.unpack("<QQQI", log.read(28))
        position = sector_bytes
        for _ in range(count):
            log.seek(position)
            at, sectors, flags, _ = struct.unpack("<QQQQ", log.read(32))
            position += sector_bytes
            data = b""
            if sectors and not flags & 4:  # a discard carries none
                log.seek(position)
                data = log.read(sectors * sector_bytes)
                position += len(data)
            yield at * sector_bytes, flags, data
