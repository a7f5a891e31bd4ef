"""Frames of a stream that are made or changed here, with right checksums (docs/migration-stream.md)."""
import socket
import struct

from fault_link import HEADER, TYPES, Frame, fields, number


def _table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def sealed(frame):
    """The frame with the checksums that belong to what is in it now."""
    data = bytearray(frame)
    struct.pack_into("<I", data, 24, crc32c(data[HEADER:]))
    struct.pack_into("<I", data, 28, crc32c(data[:28]))
    return bytes(data)


def frames(data):
    """A stream's frames, in order."""
    at = 0
    while at < len(data):
        size = HEADER + number(data, at + 20, 4)
        yield data[at:at + size]
        at += size


def with_field(frame, name, value):
    """A frame that is a table, with another number in a field."""
    data, at = bytearray(frame), HEADER
    at += 1 + data[at] + 6
    while at < len(data):
        this = bytes(data[at + 1:at + 1 + data[at]]).decode()
        at += 1 + data[at]
        size = number(data, at + 5, 4)
        if this == name:
            data[at + 9:at + 9 + size] = value.to_bytes(size, "little")
        at += 9 + size
    return sealed(data)


class Sender:
    """A source that is none: says what it is given, and hears the answers."""

    def __init__(self, address):
        self.line = socket.socket(socket.AF_UNIX)
        self.line.settimeout(60)
        self.line.connect(address[5:])
        self.data = b""

    def say(self, data):
        self.line.sendall(data)

    def hear(self, kind):
        """The next frame of that kind; None: it has hung up, or says FAILURE first."""
        while True:
            while len(self.data) >= HEADER and len(self.data) >= (size := HEADER + number(self.data, 20, 4)):
                frame = Frame("back", self.data[:size])
                self.data = self.data[size:]
                if frame.type == kind:
                    return frame
                if frame.type == "FAILURE":
                    return None
            try:
                piece = self.line.recv(1 << 16)
            except ConnectionError:
                piece = b""
            if not piece:
                return None
            self.data += piece

    def replay(self, stream):
        """Says a whole stream as its source did, with the ticket of this READY in RUN."""
        for frame in frames(stream):
            if TYPES[frame[4]] == "RUN":
                ready = self.hear("READY")
                if not ready:
                    return False
                frame = with_field(frame, "ticket", fields(ready.data, HEADER)["ticket"])
                self.say(frame)
                if not self.hear("ACK"):
                    return False
            else:
                self.say(frame)
        return True

    def close(self):
        self.line.close()
