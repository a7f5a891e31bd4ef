"""What a guest has of its host goes over with it: disks, ports, tap devices, lines; and comes back if it stays."""
import os
import re
import socket
import subprocess
import threading
import time

from distro import free_port
from ferrytest import SCALE, Guest, Skip, check, ferry, initramfs, kernel, limit, needs_ferry
from test_move import Folder, Receiver, migrate, passes, ticks
from test_net import namespace, run


class Sequence:
    """Takes one connection; each line must say the number after the last one. answers: also sends it back."""

    def __init__(self, address, port):
        self.newest, self.wrong, self.connections = 0, None, 0
        self.server = socket.create_server((address, port))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            client = self.server.accept()[0]
            self.connections += 1
            data = b""
            while piece := client.recv(65536):
                data += piece
                *lines, data = data.split(b"\n")
                for line in lines:
                    if int(line) != self.newest + 1:
                        self.wrong = self.wrong or f"{line} after {self.newest}"
                    self.newest = int(line)
            self.wrong = self.wrong or "the connection has ended"

    def goes_on(self, guest):
        """New numbers come, by the first connection."""
        mark, end = self.newest, time.monotonic() + 60 * SCALE
        while self.newest < mark + 10:
            check(time.monotonic() < end, f"nothing comes after {mark}{guest.tail()}")
            time.sleep(0.05)
        check(not self.wrong and self.connections == 1, f"{self.wrong}, {self.connections} connections")


def echoes(port):
    """A new connection to a forwarded port: it says back what it is told."""
    with socket.create_connection(("127.0.0.1", port), 60 * SCALE) as line:
        line.sendall(b"hello\n")
        return line.recv(100) == b"hello\n"


def gone_at_once(line):
    """The connection's end comes by itself."""
    line.settimeout(10)
    try:
        return line.recv(100) == b""
    except ConnectionResetError:
        return True


def bridge(*taps):
    """A bridge with an address, and tap devices in it."""
    run("ip", "link", "add", "br0", "type", "bridge", "forward_delay", "0")
    run("ip", "addr", "add", "10.9.0.1/24", "dev", "br0")
    run("ip", "link", "set", "br0", "up")
    for name in taps:
        run("ip", "tuntap", "add", "mode", "tap", "name", name)
        run("ip", "link", "set", name, "master", "br0", "up")


def lines_of(path):
    """The numbers in a serial line's file, and whether each stands there once, in order."""
    with open(path, encoding="latin-1") as f:
        whole = f.read()
    numbers = [int(n) for n in re.findall(r"^n(\d+)$", whole.replace("\r", ""), re.M)]
    check(numbers and numbers == list(range(1, len(numbers) + 1)) and not re.search(r"[^n\d\r\n]", whole),
          f"{path}: {len(numbers)} lines, wrong at " +
          str(next((whole[:200], n, i + 1) for i, n in enumerate([*numbers, 0]) if n != i + 1)))
    return len(numbers)


def start(folder, port, log):
    """Two disks, one of them an image; user mode with a port, a tap device; numbers on the second line and by TCP."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", folder.file("image.qcow2"), "64M"], check=True)
    guest = Guest(kernel(), initramfs("move"), cpus=2, memory=128, disks=[(folder.disk, "writeback")],
                  net=f"user,hostfwd=tcp:127.0.0.1:{port}-:9",
                  extra=["--disk", folder.file("image.qcow2"), "--net", "tap=t0", "--serial", "stdio", "--serial",
                         "file=" + log])
    guest.env = {"FERRY_RUNTIME_DIR": guest.runtime}
    guest.shell()
    guest.line("ip link set lo up; ip addr add 10.0.2.15/24 dev eth0; ip addr add 10.9.0.2/24 dev eth1; "
               "ip link set eth0 up; ip link set eth1 up; nc -ll -p 9 -e cat & movecheck 1 &")
    guest.line("stty -F /dev/ttyS1 raw; counter n 10 >/dev/ttyS1 & counter '' 20 | nc 10.9.0.1 7000 &")
    guest.line("for d in vda vdb; do blkcheck write /dev/$d 1 7; done")
    for _ in range(2):
        guest.expect("1 MiB written", 120)
    return guest


def disks_right(guest, seed, then):
    guest.line(f"for d in vda vdb; do blkcheck check /dev/$d 1 {seed}; blkcheck write /dev/$d 1 {then}; done")
    for _ in range(2):
        guest.expect("1 MiB right", 120)
        guest.expect("1 MiB written", 120)


@needs_ferry
@limit(300)
def test_one_host():
    """A guest moves on one host, to the same disks, port and tap device, then to another tap device of the same bridge;
    before that to one that cannot start it. Its TCP connection through the bridge goes on, no byte of its line is lost
    or there twice."""
    namespace()
    try:
        bridge("t0", "t1")
    except Exception as error:  # what is missing is said by its own programme
        raise Skip(f"NO TAP DEVICE WAS MOVED: {error}") from None
    numbers, port, taken = Sequence("10.9.0.1", 7000), free_port(), socket.create_server(("127.0.0.1", 0))
    with Folder() as folder:
        log = folder.file("log")
        with start(folder, port, log) as guest:
            ticks(guest, 1)
            numbers.goes_on(guest)
            check(echoes(port), "the forwarded port")
            refused_disk(folder, guest)
            # Its port there is somebody else's: all that was given up is taken back here.
            there = ["--net", f"user,hostfwd=tcp:127.0.0.1:{taken.getsockname()[1]}-:9", "--net", "tap=t0"]
            with Receiver(folder, guest.env, "blocked", *there) as blocked:
                last = migrate(guest.env, "test", blocked.address, code=22)[-1]
                check(last["status"] == "failed" and "Address already in use" in last["text"], last)
                check(blocked.wait(30) == 1 and "could not be started" in blocked.stderr(), blocked.tail())
            goes_on(guest, numbers, port, log)
            disks_right(guest, 7, 8)
            old = socket.create_connection(("127.0.0.1", port))
            with Receiver(folder, guest.env, "second") as second:
                migrate(guest.env, "test", second.address)
                check(gone_at_once(old), "the old connection")
                check(guest.wait(30) == 0, guest.tail())
                goes_on(second, numbers, port, log)
                disks_right(second, 8, 9)
                there = ["--net", f"user,hostfwd=tcp:127.0.0.1:{port}-:9", "--net", "tap=t1"]
                with Receiver(folder, guest.env, "third", *there) as third:
                    migrate(guest.env, "second", third.address)
                    check(second.wait(30) == 0, second.tail())
                    goes_on(third, numbers, port, log)
                    disks_right(third, 9, 1)
                    check(lines_of(log) > 100, "few lines")
                    third.line("poweroff")
                    check(third.wait(60) == 0, third.tail())
        code = subprocess.run(["qemu-img", "check", "-q", folder.file("image.qcow2")]).returncode
        check(code == 0, f"qemu-img check: {code}")


def goes_on(guest, numbers, port, log):
    passes(guest, 1)
    numbers.goes_on(guest)
    check(echoes(port), "the forwarded port")
    lines_of(log)


def refused_disk(folder, guest):
    """A file of another size is no disk of this guest; it is not even paused."""
    small = folder.file("small.img")
    with open(small, "wb") as f:
        f.truncate(32 << 20)
    with Receiver(folder, guest.env, "small", "--disk", "1=" + small) as there:
        lines = migrate(guest.env, "test", there.address, code=20)
        check("has 33554432 bytes here" in lines[-1]["text"], lines[-1])
        check(not any(line["phase"] == "handover" for line in lines), lines)
        check(there.wait(30) == 1, there.tail())
    check(ferry("info", "test", env=guest.env)[0] == 0, "info")
