"""Networks with Debian's own driver: user mode, tap devices, streams. Each test has a network namespace of its own, so
that neither the host's addresses nor its resolver matter."""
import contextlib
import ctypes
import fcntl
import hashlib
import os
import random
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time

from ferrytest import (QUIET, SCALE, VMM, Failure, Guest, Skip, check, each, ferry, initramfs, kernel, limit,
                       needs_ferry)

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x20000, 0x10000000, 0x40000000
MIB = 1 << 20


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    check(done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}")


def namespace():
    """Moves this process (a test is one) into namespaces of its own, where it is root; lo is up."""
    uid, gid = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET):
        raise Skip(f"NO NETWORK TEST WAS MADE: no namespaces here: {os.strerror(ctypes.get_errno())}")
    try:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open("/proc/self/" + name, "w") as f:
                f.write(text)
    except OSError as error:
        raise Skip(f"NO NETWORK TEST WAS MADE: no user namespaces here: {error}") from None
    run("ip", "link", "set", "lo", "up")


def threaded(function, *args):
    threading.Thread(target=function, args=args, daemon=True).start()


# ---- what the guest talks to --------------------------------------------------------------------

class Bulk:
    """At `port` it gives all of its bytes to whoever connects, at the next port it takes as many back."""

    def __init__(self, address, port, mib, seed=1):
        self.data = random.Random(seed).randbytes(mib * MIB)
        self.digest = hashlib.sha256(self.data).hexdigest()
        self.came_back = None
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.servers = [socket.create_server((address, port + n), family=family) for n in (0, 1)]
        threaded(self._give)
        threaded(self._take)

    def _give(self):
        client = self.servers[0].accept()[0]
        client.sendall(self.data)
        client.shutdown(socket.SHUT_WR)
        client.close()

    def _take(self):
        client = self.servers[1].accept()[0]
        digest = hashlib.sha256()
        while piece := client.recv(MIB):
            digest.update(piece)
        self.came_back = digest.hexdigest()
        client.close()

    def verify(self, output):
        check(f"net.sh: digest {self.digest}" in output, "what the guest received is not what was sent")
        check(self.came_back == self.digest, "what the guest sent is not what it had received")


def echo_server(address, port):
    def stream(client):
        while data := client.recv(65536):
            client.sendall(data)
        client.close()

    def accept(server):
        while True:
            threaded(stream, server.accept()[0])

    def datagrams(sock):
        while True:
            data, sender = sock.recvfrom(65536)
            sock.sendto(data, sender)

    threaded(accept, socket.create_server((address, port), backlog=256))
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, port))
    threaded(datagrams, sock)


def resolver():
    """Answers every question for an IPv4 address with 10.1.2.3; it is this namespace's resolver."""

    def serve(sock):
        while True:
            query, sender = sock.recvfrom(512)
            end = 12
            while query[end]:
                end += query[end] + 1
            question = query[12:end + 5]
            a = question[-4:-2] == b"\0\1"
            answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x0a\1\2\3" if a else b""
            sock.sendto(query[:2] + struct.pack(">HHHHH", 0x8180, 1, int(a), 0, 0) + question + answer, sender)

    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 53))
    threaded(serve, sock)
    path = os.path.join(tempfile.gettempdir(), "resolv.conf")
    with open(path, "w") as f:
        f.write("nameserver 127.0.0.1\n")
    run("mount", "--bind", path, os.path.realpath("/etc/resolv.conf"))


def guest(steps, net, cpus=1, env=None):
    return Guest(kernel(), initramfs("io"), f"{QUIET} ferry.test=net.sh ferry.args={','.join(steps)}", 512, cpus,
                 terminal=False, reset_limit=0, net=net, env=env)


def finish(vm, timeout=180):
    code = vm.result("net.sh", timeout)
    vm.wait(60)
    output = vm.stdout().replace("\r", "")
    check(code == 0, output[-3000:])
    return output


# ---- user mode ----------------------------------------------------------------------------------

@limit(300)
@each(disturbed=["no", "roundtrip=20", "missing=8000"])
def test_user(disturbed):
    """Addresses, names, both directions, many connections, datagrams; undisturbed, with the state of the machine going
    back and forth, and with memory that comes while they run."""
    if disturbed != "no" and VMM != "ferry":
        raise Skip("about ferry itself")
    namespace()
    resolver()
    bulk = Bulk("127.0.0.1", 5000, 100 if disturbed == "no" else 10)
    echo_server("127.0.0.1", 7)
    steps = ["dhcp", "ping=10.0.2.2", "dns=test.example", "bulk=10.0.2.2:5000", "many=10.0.2.2:7:200", "udp=10.0.2.2:7"]
    env = {} if disturbed == "no" else {"FERRY_TEST": disturbed}
    with guest(steps, "user", cpus=2, env=env) as vm:
        output = finish(vm)
    check("lease 10.0.2.15/24 10.0.2.2 10.0.2.3" in output, output)
    check("10.1.2.3" in output, output)
    bulk.verify(output)


def echoed(family, kind, address, port, data):
    with socket.socket(family, kind) as s:
        s.settimeout(30 * SCALE)
        s.connect((address, port))
        s.sendall(data)
        got = b""
        while len(got) < len(data):
            piece = s.recv(65536)
            if not piece:
                break
            got += piece
        return got == data


@needs_ferry
@limit(300)
def test_forward():
    """Ports of the host that are the guest's, in both families; many connections at a time."""
    namespace()
    forwards = ["tcp:127.0.0.1:2222-:7", "udp:127.0.0.1:2222-10.0.2.15:7", "tcp:[::1]:2222-:7", "udp:[::1]:2222-:7",
                "tcp::2223-:8"]
    net = "user," + ",".join("hostfwd=" + f for f in forwards)
    # No DHCP: the guest's address is what it would be given.
    with guest(["static=10.0.2.15/24", "serve=7"], net) as vm:
        vm.expect("net.sh: serving 7", 180)
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            for kind, what in ((socket.SOCK_STREAM, "tcp"), (socket.SOCK_DGRAM, "udp")):
                size = 100000 if what == "tcp" else 1200
                try:
                    good = echoed(family, kind, address, 2222, os.urandom(size))
                except OSError as error:
                    good = error
                check(good is True, f"{what} through {address}: {good}{vm.tail()}")
        good = []
        threads = [threading.Thread(target=lambda: good.append(echoed(
            socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1", 2222, os.urandom(20000)))) for _ in range(60)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        check(good == [True] * 60, f"{good.count(True)} of 60 connections at a time{vm.tail()}")
        socket.create_connection(("127.0.0.1", 2223)).close()
        finish(vm)


@needs_ferry
def test_forward_errors():
    """What cannot be opened is said with the port and what to do."""
    namespace()
    server = socket.create_server(("127.0.0.1", 0))
    taken = server.getsockname()[1]
    for forward, words in ((f"tcp:127.0.0.1:{taken}-:22", (str(taken), "choose another")),
                           ("tcp:192.0.2.1:2222-:22", ("192.0.2.1", "no such address")),
                           ("tcp:[::1]:2222-10.0.2.15:22", ("[::1]:2222", "both"))):
        code, _, err = ferry("run", "--net", "user,hostfwd=" + forward, "--serial", "none", kernel())
        check(code == 1 and all(w in err for w in words), f"{forward}: {code}: {err}")


# ---- tap ----------------------------------------------------------------------------------------

def tap(name, *more, address="10.9.0.1/24"):
    run("ip", "tuntap", "add", "mode", "tap", *more, "name", name)
    run("ip", "addr", "add", address, "dev", name)
    run("ip", "link", "set", name, "up")


class Frames:
    """Looks at an interface: bytes in frames from the guest and to it, and those of them in frames that the network
    would not take, which nobody has cut."""

    def __init__(self, name):
        self.all, self.uncut = {"from": 0, "to": 0}, {"from": 0, "to": 0}
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE: none is missed
        self.socket.bind((name, 0))
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self):
        buffer = bytearray(64)
        while True:
            size, address = self.socket.recvfrom_into(buffer, len(buffer), socket.MSG_TRUNC)
            which = "to" if address[2] == socket.PACKET_OUTGOING else "from"
            self.all[which] += size
            self.uncut[which] += size if size > 1514 else 0


@needs_ferry
@limit(300)
@each(queues=[1, 2])
def test_tap(queues):
    namespace()
    tap("t0", *(["multi_queue"] if queues > 1 else []))
    frames = Frames("t0")
    bulk = Bulk("10.9.0.1", 5000, 20)
    echo_server("10.9.0.1", 7)
    steps = ["static=10.9.0.2/24", "ping=10.9.0.1", "bulk=10.9.0.1:5000", "many=10.9.0.1:7:200", "udp=10.9.0.1:7"]
    with guest(steps, "tap=t0", cpus=2) as vm:
        bulk.verify(finish(vm))
    # How long the frames are depends on how fast either side empties its queue. Without the offload none is long.
    for which, size in frames.all.items():
        uncut = frames.uncut[which]
        check(uncut > 1 << 20, f"segments are cut too early: {uncut} of {size} bytes {which} the guest are in long frames")
        print(f"note: {uncut / size:.0%} of {size >> 20} MiB {which} the guest uncut")


@needs_ferry
def test_tap_errors():
    namespace()
    for name, words in (("nosuchtapdevice0", "15 characters"), ("lo", "no tap")):
        code, _, err = ferry("run", "--net", "tap=" + name, "--serial", "none", kernel())
        check(code != 0 and words in err, f"{name}: {code}: {err}")
    tap("t0")
    with guest(["carrier=1", "serve=7"], "tap=t0") as vm:
        vm.expect("net.sh: step serve", 120)
        code, _, err = ferry("run", "--net", "tap=t0", "--serial", "none", kernel())
        check(code == 1 and "another program has it" in err, f"in use: {code}: {err}")


# ---- streams ------------------------------------------------------------------------------------

class Peer:
    """The other side of a stream: frames to and from a tap device, in pieces as odd as possible."""

    def __init__(self, path, seed=1):
        self.random = random.Random(seed)
        self.tap = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(self.tap, 0x400454ca, struct.pack("16sH22x", b"t0", 0x1002))  # TUNSETIFF: TAP, NO_PI
        run("ip", "addr", "add", "10.9.0.1/24", "dev", "t0")
        run("ip", "link", "set", "t0", "up")
        self.path, self.server = path, None
        self.listen()
        self.client, self.frames = None, 0
        threaded(self._to_guest)

    def listen(self):
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(self.path)
        self.server.listen()

    def accept(self):
        """Who is there, or comes back after leave()."""
        if not self.server:
            self.listen()
        client = self.server.accept()[0]
        self.client = client
        threaded(self._from_guest, client)

    def leave(self):
        """Nobody can come back at once: the guest has time to see that the link is down."""
        os.unlink(self.path)
        self.server.close()
        self.server = None

    def drop(self):
        self.leave()
        client, self.client = self.client, None
        client.shutdown(socket.SHUT_RDWR)
        client.close()

    def _from_guest(self, client):
        data = b""
        try:
            while piece := client.recv(self.random.randrange(1, 100000)):
                data += piece
                while len(data) >= 4 and len(data) >= 4 + (size := int.from_bytes(data[:4], "big")):
                    os.write(self.tap, data[4:4 + size])
                    data = data[4 + size:]
                    self.frames += 1
        except OSError:
            pass

    def _to_guest(self):
        while True:
            frame = os.read(self.tap, 65536)
            client = self.client
            data = len(frame).to_bytes(4, "big") + frame
            try:
                # Now and then in pieces, the length cut in two among them.
                if client and self.random.randrange(10) == 0:
                    for cut in (3, 20):
                        client.sendall(data[:cut])
                        data = data[cut:]
                        time.sleep(0.001)
                if client:
                    client.sendall(data)
            except OSError:
                pass


@needs_ferry
@limit(300)
def test_stream():
    """A peer that goes in the middle and comes back: the guest sees the link go down and up again."""
    namespace()
    path = os.path.join(tempfile.gettempdir(), "net.sock")
    peer = Peer(path)
    bulk = Bulk("10.9.0.1", 5000, 20)
    echo_server("10.9.0.1", 7)
    steps = ["static=10.9.0.2/24", "ping=10.9.0.1", "bulk=10.9.0.1:5000", "udp=10.9.0.1:7", "carrier=0", "carrier=1",
             "many=10.9.0.1:7:100"]
    with guest(steps, "stream=unix:" + path) as vm:
        peer.accept()
        vm.expect("net.sh: step carrier=0", 120)
        peer.drop()
        vm.expect("net.sh: step carrier=1", 60)
        peer.accept()
        output = finish(vm)
        errors = vm.stderr()
    bulk.verify(output)
    check(errors.count("the link is down") == 1, errors)


@needs_ferry
@limit(300)
def test_stream_hostile():
    """A frame of an impossible length ends the connection, not the machine."""
    namespace()
    path = os.path.join(tempfile.gettempdir(), "net.sock")
    peer = Peer(path)
    with guest(["static=10.9.0.2/24", "ping=10.9.0.1", "carrier=0", "carrier=1", "ping=10.9.0.1"],
               "stream=unix:" + path) as vm:
        peer.accept()
        vm.expect("net.sh: step carrier=0", 120)
        peer.leave()
        peer.client.sendall(b"\xff\xff\xff\xff" + b"x" * 1000)
        vm.expect("net.sh: step carrier=1", 60)
        peer.accept()
        finish(vm)


@needs_ferry
@limit(300)
def test_passt():
    """passt, as its users start it."""
    if not shutil.which("passt"):
        raise Skip("no passt here")
    namespace()
    # It shows the guest the addresses of an interface with a way out.
    tap("out0", address="10.8.0.5/24")
    run("ip", "route", "add", "default", "via", "10.8.0.1")
    path = os.path.join(tempfile.gettempdir(), "passt.sock")
    passt = subprocess.Popen(["passt", "--foreground", "--socket", path, "--runas", "0", "--stderr"],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        for _ in range(100):
            if os.path.exists(path) or passt.poll() is not None:
                break
            time.sleep(0.1)
        if not os.path.exists(path):
            passt.kill()
            raise Skip("passt does not start here: " + " ".join(passt.communicate()[0].split())[-200:])
        echo_server("127.0.0.1", 7)
        # No bulk: some of passt's releases repeat what they send, on QEMU's side as well.
        with guest(["dhcp", "many=10.8.0.1:7:100", "udp=10.8.0.1:7"], "stream=unix:" + path) as vm:
            output = finish(vm)
        check("lease 10.8.0.5/24 10.8.0.1" in output, output)
    finally:
        passt.kill()
        passt.wait()
