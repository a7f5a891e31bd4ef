"""`ferry stream`, on streams that are written here from docs/migration-stream.md, without ferry's code."""
import json
import os
import struct
import tempfile

from ferrytest import EXIT_START, EXIT_USAGE, TOP, check, ferry, needs_ferry

EXIT_DAMAGED, EXIT_NEWER = 16, 18
HELLO, DESCRIPTION, IMAGE, MEMORY, ROUND, PAGES, DEVICE, STATISTICS, INDEX, DIRECTORY, END = (1, 2, 3, 4, 6, 7, 9, 16, 20,
                                                                                         21, 22)


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def name(text):
    return bytes([len(text)]) + text.encode()


def item(key, value, must=True):
    value = value.encode() if isinstance(value, str) else value
    return bytes([must]) + name(key) + struct.pack("<I", len(value)) + value


def field(key, code, kind):
    payload = struct.pack("<" + kind, code[1])
    return name(key) + struct.pack("<BII", code[0], 1, len(payload)) + payload


def state(key, *fields):
    body = b"".join(fields)
    return name(key) + struct.pack("<HI", 1, len(body)) + body


def piece(key, data):
    return name(key) + struct.pack("<QQ", len(data), 0) + data


class Stream:
    def __init__(self):
        self.data = b""
        self.frames = 0

    def add(self, kind, payload=b"", must=True, round=0):
        head = b"FRY1" + struct.pack("<BBHIIIII", kind, must, 0, len(payload), self.frames, round, len(payload),
                                     crc32c(payload))
        at = len(self.data)
        self.data += head + struct.pack("<I", crc32c(head)) + payload
        self.frames += 1
        return at


def hello(*more):
    return b"".join([item("version", "1"), item("oldest", "1"), item("role", "file"), item("lane", "main"),
                     item("session", bytes(range(16))), item("arch", "x86_64"), item("page", "4096"),
                     item("ferry", "9.9", must=False), *more])


def small(extra=lambda stream: None, more=()):
    """Four pages: the second has contents, the last comes again in round 2."""
    s = Stream()
    s.add(HELLO, hello(*more))
    s.add(DESCRIPTION, item("memory", "16K") + item("disk", "a.img", must=False) + item("disk", "b.img", must=False))
    s.add(IMAGE, piece("kernel", b"\x7fELF"))
    s.add(MEMORY, struct.pack("<IIQQ", 1, 0, 0, 4))
    extra(s)
    first = s.add(PAGES, struct.pack("<II", 3, 1) + struct.pack("<QII", 0, 1, 2) + struct.pack("<QII", 1, 1, 1) +
                  struct.pack("<QII", 2, 2, 2) + bytes(range(256)) * 16, round=1)
    again = s.add(PAGES, struct.pack("<IIQII", 1, 1, 3, 1, 1) + b"x" * 4096, round=2)
    s.add(ROUND, state("round", field("phase", (1, 2), "B"), field("ends", (5, 1), "B"), field("pages", (4, 1), "Q")),
          round=2)
    s.add(DEVICE, piece("machine", state("clock", field("now_ns", (4, 5), "Q")) + state("serial", field("lcr", (1, 3), "B"))))
    index = s.add(INDEX, struct.pack("<QIIQQQQ", 0, 4, 0, 0, first, 0, again))
    directory = s.add(DIRECTORY, struct.pack("<IIQQQ", 1, 0, 0, 4, index))
    s.add(END, struct.pack("<QQQQQ", directory, s.frames, 2, 3, len(s.data)))
    return s.data


def stream(data, *options):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "file")
        with open(path, "wb") as f:
            f.write(data)
        return ferry("stream", *options, path)


@needs_ferry
def test_whole():
    check(crc32c(b"123456789") == 0xe3069283, "the test's own checksum")
    data = small()
    code, out, err = stream(data)
    check(code == 0 and not err and "whole and well-formed" in out, f"{code}: {out}{err}")
    for word in ("memory           16K", "b.img", "kernel           image of 4 bytes", "clock", "serial"):
        check(word in out, f"{word} is not in: {out}")
    code, out, _ = stream(data, "--json", "--frames")
    got = json.loads(out)
    check(code == 0 and got["state"] == "whole" and got["from"] == "file" and got["ferry"] == "9.9", out)
    check(got["bytes"] == len(data) and got["frames"] == 11 == len(got["list"]), out)
    check(got["pages"] == 2 and got["zero_pages"] == 3 and got["missing_pages"] == 0, out)
    check([r["pages"] for r in got["rounds"]] == [1, 1], got["rounds"])
    check(got["description"]["disk"] == ["a.img", "b.img"] and got["images"] == {"kernel": 4}, out)
    check([s["name"] for s in got["states"]] == ["clock", "serial"], got["states"])
    check([f["type"] for f in got["list"]][-1] == "END" and "error" not in got, got["list"])


@needs_ferry
def test_damaged():
    data = small()
    for at in (5, 40, 700, len(data) - 1):
        broken = data[:at] + bytes([data[at] ^ 4]) + data[at + 1:]
        code, out, err = stream(broken, "--json")
        error = json.loads(out)["error"]
        check(code == EXIT_DAMAGED and "damaged" in err and error["offset"] <= at and error["text"] in err, f"{at}: {err}")
    for length in (0, 10, 100, len(data) - 72, len(data) - 1):
        code, out, err = stream(data[:length])
        check(code == EXIT_DAMAGED and err.startswith("ferry: "), f"{length}: {code} {err}")
    check("without END" in stream(data[:-72])[2], "no END")
    check(stream(b"#!/bin/sh\nno stream at all, but a script\n")[0] == EXIT_DAMAGED, "another file")


@needs_ferry
def test_newer():
    """What must be understood and is not known is refused by its name; the rest is skipped."""
    code, out, err = stream(small(lambda s: s.add(77, b"later", must=False)))
    check(code == 0 and "unknown" in out, f"{code} {out}{err}")
    check(stream(small(more=[item("colour", "green", must=False), item("offer", "telepathy", must=False)]))[0] == 0, "skipped")
    for data, word in ((small(lambda s: s.add(77, b"later")), "frame type 77"),
                       (small(more=[item("colour", "green")]), "'colour'"),
                       (small(more=[item("need", "telepathy")]), "'telepathy'")):
        code, out, err = stream(data, "--json")
        check(code == EXIT_NEWER and word in err and json.loads(out)["state"] == "newer", f"{code} {err}")


@needs_ferry
def test_wrong_use():
    code, _, err = ferry("stream", "/nonexistent/file")
    check(code == EXIT_START and "/nonexistent/file" in err, err)
    check(ferry("stream", "/")[0] == EXIT_START, "a folder")
    check(ferry("stream")[0] == EXIT_USAGE, "no file")


@needs_ferry
def test_older():
    """What older ferries have written stays readable: tests/streams has a file of each version."""
    folder = os.path.join(TOP, "tests", "streams")
    files = sorted(os.listdir(folder))
    check(files, "no streams")
    for file in files:
        code, out, err = ferry("stream", "--json", os.path.join(folder, file))
        check(code == 0 and json.loads(out)["missing_pages"] == 0, f"{file}: {err}")
