"""What a guest has of its host goes over with it: disks, ports, tap devices, lines; and comes back if it stays."""
import base64
import hashlib
import os
import re
import socket
import struct
import subprocess
import tempfile
import threading
import time

from bare_guest import Session
from distro import Distro, free_port
from ferrytest import (SCALE, Failure, Guest, Process, Skip, check, ferry, guest_program, initramfs, kernel,
                       limit, needs_ferry, slow)
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
    whole = whole[:whole.rfind("\n") + 1]  # the last one is being written
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


def listener(path):
    """The process that has bound the socket at that path."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(path)
        return struct.unpack("iII", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]


@needs_ferry
@limit(200)
def test_sockets():
    """The sockets at which a guest's vsock device and its lines listen go over with it, to the same paths of the same
    host; the source has them again if the guest comes back, and leaves those of others alone when it ends."""
    with Session() as s:
        paths = [s.path("vsock"), s.path("line"), s.path("console")]
        s.extra = ["--vsock", paths[0], "--serial", "stdio", "--serial", "socket=" + paths[1], "--console",
                   "socket=" + paths[2]]
        here = s.start()
        check([listener(path) for path in paths] == [here.pid] * 3, "of whom are they?")
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(s.path("taken"))
            other.listen()
            for taken in (["--vsock", s.path("taken")], ["--serial", "stdio", "--serial", "socket=" + s.path("taken")]):
                there = s.receiver(*taken)
                end = s.migrate(there.address, code=22)[-1]
                check("in use" in end["text"], end)
                check(there.wait(30) == 1, there.tail())
                check([listener(path) for path in paths] == [here.pid] * 3, "they are not taken back")
                check(os.path.exists(s.path("taken")), "it was somebody else's")
        for _ in range(2):
            s.move()
            check([listener(path) for path in paths] == [s.owner.pid] * 3, "they did not go over")


@needs_ferry
@limit(300)
def test_one_host():
    """A guest moves on one host, to the same disks, port and tap device, then to another tap device of the same bridge;
    before that to one that cannot start it. Its TCP connection through the bridge goes on, no byte of its line is lost
    or there twice."""
    namespace()
    try:
        bridge("t0", "t1")
    except Failure as error:
        raise Skip(f"NO TAP DEVICE WAS MOVED: {error}") from None
    numbers, port, taken = Sequence("10.9.0.1", 7000), free_port(), socket.create_server(("127.0.0.1", 0))
    with Folder() as folder:
        log = folder.file("log")
        with start(folder, port, log) as guest:
            ticks(guest, 1)
            began = uptime(guest)
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
                    ran_on(began, uptime(third))
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


def uptime(guest):
    """The guest's clock, and between which two moments of ours it was read."""
    before = time.monotonic()
    guest.line("sed 's/^/up-/' /proc/uptime")
    return float(guest.expect(r"^up-([\d.]+) ", 60).group(1)), before, time.monotonic()


def ran_on(first, then):
    """The guest's clock has gone on through what came between."""
    guest = then[0] - first[0]
    check(then[1] - first[2] - 0.5 < guest < then[2] - first[1] + 0.5,
          f"{guest} s for the guest, {then[1] - first[2]} to {then[2] - first[1]} s for us")


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


# ---- Debian, between two hosts ----------------------------------------------------------------------


class Host:
    """A second host: a network namespace with a bridge, a tap device in it, and a cable to our bridge."""

    def __init__(self):
        self.child = subprocess.Popen(["unshare", "-n", "sh", "-c", "echo ready; exec sleep 100000"],
                                      stdout=subprocess.PIPE)
        self.child.stdout.readline()
        self.through = ["nsenter", "-t", str(self.child.pid), "-n"]
        run("ip", "link", "add", "cable", "type", "veth", "peer", "name", "eth", "netns", str(self.child.pid))
        run("ip", "link", "set", "cable", "master", "br0", "up")
        for command in ("link set lo up", "link add br0 type bridge forward_delay 0", "addr add 10.9.0.3/24 dev br0",
                        "link set br0 up", "link set eth master br0 up", "tuntap add mode tap name t0",
                        "link set t0 master br0 up"):
            run(*self.through, "ip", *command.split())

    def close(self):
        self.child.kill()
        self.child.wait()


class Digests:
    """Says of each block of bytes (its length before it) its digest; many connections, counted."""

    def __init__(self, address, port):
        self.connections = self.blocks = self.ended = 0
        self.server = socket.create_server((address, port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            client = self.server.accept()[0]
            self.connections += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        stream = client.makefile("rb")
        try:
            while len(head := stream.read(4)) == 4:
                client.sendall(hashlib.sha256(stream.read(int.from_bytes(head, "big"))).digest())
                self.blocks += 1
        except OSError:
            pass
        self.ended += 1


TCP = """
import hashlib, os, socket, time
s = socket.create_connection(("10.9.0.1", 7000))
n = 0
while True:
    data = os.urandom(1 + n * 7919 % 60000)
    s.sendall(len(data).to_bytes(4, "big") + data)
    got = b""
    while len(got) < 32:
        piece = s.recv(32 - len(got))
        assert piece, "the connection has ended"
        got += piece
    assert got == hashlib.sha256(data).digest(), "other bytes have arrived"
    n += 1
    open("/run/tcp", "w").write(str(n))
    time.sleep(0.05)
"""
DISK = """
import hashlib, os
os.makedirs("/var/disk", exist_ok=True)
n, there = 0, {}
while True:
    path = f"/var/disk/{n % 7}"
    if n % 7 in there:
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        data = os.read(fd, 1 << 20)
        os.close(fd)
        assert hashlib.sha256(data).digest() == there[n % 7], f"other bytes on the disk in {path}"
    data = os.urandom(1 << 10) * 1024
    there[n % 7] = hashlib.sha256(data).digest()
    with open(path, "wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
    n += 1
    open("/run/disk", "w").write(str(n))
"""
# Through user mode: a connection that dies with its host, and a new one.
OUT = """
import socket, time
s = socket.create_connection(("10.0.2.2", 7001))
open("/run/out", "w").write("connected")
try:
    while True:
        s.sendall(bytes(4))
        s.recv(32)
        time.sleep(0.2)
except ConnectionResetError:
    open("/run/out", "w").write("reset")
s = socket.create_connection(("10.0.2.2", 7001))
open("/run/out", "w").write("again")
"""
TAP_MAC = "52:54:00:00:09:02"
SETTING = f"[Match]\nMACAddress={TAP_MAC}\n[Network]\nAddress=10.9.0.2/24\nLinkLocalAddressing=no\n"


def begin_work(guest):
    """The programmes that check themselves, each a unit of systemd's; one that has found a fault has failed."""
    guest.ssh("cat >/etc/systemd/network/00-tap.network && networkctl reload", 300, SETTING)
    guest.ssh("for n in $(seq 100); do ping -c 1 -W 1 10.9.0.1 && break; sleep 0.2; done", 300)
    with open(guest_program("movecheck"), "rb") as f:
        guest.ssh("base64 -d >/var/movecheck && chmod +x /var/movecheck", 300, base64.b64encode(f.read()).decode())
    for name, text in (("tcp", TCP), ("disk", DISK), ("out", OUT)):
        guest.ssh(f"cat >/var/{name}.py && systemd-run --unit=check-{name} python3 /var/{name}.py", 300, text)
    guest.ssh("systemd-run --unit=check-clock /var/movecheck 4", 300)


def all_work(guest, through, port, out):
    """By ssh through the forwarded port: none has found a fault, and each goes on."""
    look = ("systemctl show -p ActiveState --value check-tcp check-disk check-clock; for f in tcp disk out; do "
            "echo \"$f=$(cat /run/$f)\"; done")

    def ask(command):
        end = time.monotonic() + 300 * SCALE
        while True:
            done = subprocess.run([*through, *guest.image.ssh(port, command)], capture_output=True, text=True)
            if done.returncode == 0:
                return done.stdout
            check(time.monotonic() < end, f"ssh: {done.stderr}{guest.tail()}")
            time.sleep(0.5)

    def failed(text):
        return Failure(text + ask("journalctl --no-pager -n 20 -u 'check-*'"))

    first, end = None, time.monotonic() + 300 * SCALE
    while True:
        seen = ask(look).split()
        if seen[:3] != ["active"] * 3:
            raise failed(f"{seen}: ")
        # A file that is being written is empty for a moment.
        now = [int(word.partition("=")[2] or 0) for word in seen[3:5]]
        first = first if first and all(first) else now
        if all(a and b > a + 3 for a, b in zip(first, now)) and seen[5:] == ["out=" + out]:
            return
        if time.monotonic() > end:
            raise failed(f"first {first}, then {seen}, not {out}: ")
        time.sleep(0.5)


@slow
@needs_ferry
@limit(2400)
def test_debian():
    """Debian moves to a second host and back, by pre-copy and by post-copy: its TCP connection goes on with every byte
    right, its disk too, its clocks never go back; connections through user mode are reset, and new ones work."""
    namespace()
    try:
        bridge("t0")
        second = Host()
    except Failure as error:
        raise Skip(f"NO DEBIAN WAS MOVED: {error}") from None
    digests, local = Digests("10.9.0.1", 7000), Digests("127.0.0.1", 7001)
    server = Process([*second.through, "python3", "-m", "http.server", "--bind", "127.0.0.1", "7001"], terminal=False)
    with tempfile.TemporaryDirectory() as temporary, Folder() as folder, server, \
            Distro(temporary, cpus=2, extra=["--net", f"tap=t0,mac={TAP_MAC}"]) as guest:
        env = {"FERRY_RUNTIME_DIR": guest.runtime}
        guest.prompt()
        begin_work(guest)
        all_work(guest, [], guest.port, "connected")
        cards = ["--net", f"user,hostfwd=tcp:127.0.0.1:{guest.port}-:22", "--net", "tap=t0"]
        old = socket.create_connection(("127.0.0.1", guest.port))
        old.recv(100)
        with Receiver(folder, env, "there", "--insecure", *cards, address="tcp:10.9.0.3:4444",
                      through=second.through) as there:
            last = migrate(env, "test", there.address, "--downtime", "2s")[-1]
            print(f"there by pre-copy: downtime {last['downtime_ms']} ms of {last['total_ms']} ms")
            check(gone_at_once(old), "the old connection")
            check(guest.wait(60) == 0, guest.tail())
            check(local.ended == local.connections == 1, "connections to the first host")
            all_work(guest, second.through, guest.port, "again")
            with Receiver(folder, env, "back", *cards) as back:
                last = migrate(env, "there", back.address, "--postcopy-after", "1")[-1]
                print(f"back by post-copy: downtime {last['downtime_ms']} ms of {last['total_ms']} ms, "
                      f"{last['faults']} faults")
                check(there.wait(60) == 0, there.tail())
                all_work(guest, [], guest.port, "again")
                check(digests.connections == 1 and not digests.ended, f"{digests.connections} connections")
                print(f"{digests.blocks} blocks by one TCP connection")
                code, _, err = ferry("stop", "--timeout", "120", "back", env=env, timeout=200)
                check(code == 0 and back.wait(60) == 0, f"{code} {err}{back.tail()}")
                guest.check_disk()
    second.close()
