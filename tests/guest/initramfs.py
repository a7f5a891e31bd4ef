#!/usr/bin/env python3
"""Writes a Linux initramfs without root: the cpio archive, device nodes included, is made here.

    initramfs.py -o FILE [--init FILE] [--add SRC[:DEST]]... [--elf PROGRAM[:DEST]]...
                 [--module NAME --modules DIR]... [--busybox FILE]

--add copies a file as it is, --elf a program and the shared libraries that it needs, --module a kernel
module (unpacked where the guest's insmod cannot), in the order given, to /modules/NN-name.ko.
The archive is not compressed: the guest has nothing to unpack and nobody waits for a compressor.
"""
import argparse
import lzma
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))


class Cpio:
    """The "newc" format of Documentation/driver-api/early-userspace/buffer-format.rst."""

    def __init__(self, out):
        self.out, self.inode, self.offset, self.seen = out, 0, 0, set()

    def _write(self, data):
        self.out.write(data)
        self.offset += len(data)

    def _pad(self):
        self._write(b"\0" * (-self.offset % 4))

    def entry(self, path, mode, data=b"", rdev=(0, 0), links=1):
        path = path.strip("/")
        if path in self.seen:
            return
        self.seen.add(path)
        if "/" in path:
            self.dir(os.path.dirname(path))
        self.inode += 1
        name = path.encode() + b"\0"
        fields = (self.inode, mode, 0, 0, links, 0, len(data), 0, 0, rdev[0], rdev[1], len(name), 0)
        self._write(b"070701" + b"".join(b"%08X" % f for f in fields) + name)
        self._pad()
        self._write(data)
        self._pad()

    def dir(self, path):
        self.entry(path, stat.S_IFDIR | 0o755, links=2)

    def node(self, path, major, minor, mode=0o600):
        self.entry(path, stat.S_IFCHR | mode, rdev=(major, minor))

    def link(self, path, target):
        self.entry(path, stat.S_IFLNK | 0o777, target.encode())

    def file(self, path, source, mode=None):
        with open(source, "rb") as f:
            data = f.read()
        if mode is None:
            mode = 0o755 if os.access(source, os.X_OK) else 0o644
        self.entry(path, stat.S_IFREG | mode, data)

    def end(self):
        self.seen.discard("TRAILER!!!")
        self.inode = -1
        self.entry("TRAILER!!!", 0)
        self._write(b"\0" * (-self.offset % 512))


def libraries(program):
    """The shared libraries of a program, its loader included."""
    text = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    return sorted(set(re.findall(r"(/\S+) \(0x", text)))


def find_module(directory, name):
    """Its path; None: it is built in."""
    with open(os.path.join(directory, "modules.builtin")) as builtin:
        if any(os.path.basename(line)[:-4].replace("_", "-") == name.replace("_", "-") for line in builtin):
            return None
    for root, _, files in os.walk(directory, followlinks=True):
        for f in files:
            if f.split(".ko")[0].replace("_", "-") == name.replace("_", "-") and ".ko" in f:
                return os.path.join(root, f)
    sys.exit(f"initramfs.py: no module {name} under {directory}")


def build(out, args):
    cpio = Cpio(out)
    for d in "bin dev proc sys tmp root etc modules tests".split():
        cpio.dir(d)
    cpio.link("sbin", "bin")
    cpio.node("dev/console", 5, 1)
    cpio.node("dev/null", 1, 3, 0o666)
    cpio.node("dev/kmsg", 1, 11)
    cpio.node("dev/ttyS0", 4, 64)
    for spec in args.add:
        source, _, dest = spec.partition(":")
        cpio.file(dest or "tests/" + os.path.basename(source), source)
    for spec in args.elf:
        source, _, dest = spec.partition(":")
        cpio.file(dest or "bin/" + os.path.basename(source), source)
        for lib in libraries(source):
            cpio.file(lib, lib)
    for number, name in enumerate(args.module):
        path = find_module(args.modules, name)
        if not path:
            continue
        with open(path, "rb") as f:
            data = f.read()
        if path.endswith(".xz"):
            data = lzma.decompress(data)
        cpio.entry(f"modules/{number:02d}-{name}.ko", stat.S_IFREG | 0o644, data)
    cpio.file("bin/busybox", args.busybox, 0o755)
    applets = subprocess.run([args.busybox, "--list"], capture_output=True, text=True, check=True).stdout
    for applet in applets.split():
        cpio.link("bin/" + applet, "busybox")
    cpio.file("init", args.init, 0o755)
    cpio.end()


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--init", default=os.path.join(HERE, "init.sh"))
    parser.add_argument("--busybox", default=shutil.which("busybox") or "/bin/busybox")
    parser.add_argument("--add", action="append", default=[])
    parser.add_argument("--elf", action="append", default=[])
    parser.add_argument("--module", action="append", default=[])
    parser.add_argument("--modules", help="the folder of the kernel's modules")
    args = parser.parse_args()
    if not os.path.exists(args.busybox):
        sys.exit("initramfs.py: no busybox: install the package busybox-static")
    directory = os.path.dirname(os.path.abspath(args.output))
    os.makedirs(directory, exist_ok=True)
    # Whole or not at all: a reader never sees half an archive.
    with tempfile.NamedTemporaryFile(dir=directory, delete=False) as out:
        try:
            build(out, args)
            os.chmod(out.name, 0o644)
            os.replace(out.name, args.output)
        except BaseException:
            os.unlink(out.name)
            raise


if __name__ == "__main__":
    main()
