"""virtio-vsock with Debian's own driver: data, many connections, a slow one, and what ends them."""
import contextlib
import hashlib
import os
import random
import socket
import tempfile
import threading
import time

from ferrytest import EXIT_RESET_LIMIT, Guest, check, each, initramfs, kernel, limit, needs_ferry


def dial(path, port):
    """Calls the guest: a connected socket, or None: refused."""
    line = socket.socket(socket.AF_UNIX)
    line.settimeout(120)
    line.connect(path)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        line.sendall(b"CONNECT %d\n" % port)
    answer = b""
    while not answer.endswith(b"\n"):
        try:
            byte = line.recv(1)
        except ConnectionResetError:
            byte = b""
        if not byte:
            line.close()
            return None
        answer += byte
    check(answer.startswith(b"OK ") and int(answer[3:]) > 0, f"an odd answer: {answer!r}")
    return line


def serve(path, port):
    """Listens to what the guest calls."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{path}_{port}")
    listener.listen()
    listener.settimeout(240)
    return listener


def read_all(line):
    got = bytearray()
    while True:
        piece = line.recv(65536)
        if not piece:
            return bytes(got)
        got += piece


def echo(path, data, result):
    """One connection whose data come back."""
    with dial(path, 5001) as line:
        sender = threading.Thread(target=lambda: (line.sendall(data), line.shutdown(socket.SHUT_WR)))
        sender.start()
        result.append(read_all(line) == data)
        sender.join()


@contextlib.contextmanager
def machine(mode, suite="bookworm", **options):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "v")
        append = "quiet panic=-1 ferry.test=vsock.sh ferry.args=" + mode
        with serve(path, 7000) as end, serve(path, 6000) as sink, \
                Guest(kernel(suite), initramfs("vsock-" + suite), append, cpus=2, terminal=False,
                      extra=["--vsock", path + ",cid=77"], **options) as guest:
            yield guest, path, sink, end


def let_go(end):
    """The guest may end. It hangs up first: to a connection that is over before Linux's connect() has looked at it
    that says "timed out"."""
    with end.accept()[0] as line:
        line.settimeout(120)
        read_all(line)


@needs_ferry
@limit(300)
@each(suite=["bookworm", "trixie"])
def test_data(suite):
    """20 MB each way with checksums; 50 connections at once beside one that nobody reads."""
    with machine("all", suite) as (guest, path, sink, end):
        guest.expect("^ferry: ready", 120)
        line, _ = sink.accept()
        line.settimeout(120)
        start = time.monotonic()
        with line:
            line.sendall(hashlib.sha256(read_all(line)).hexdigest().encode() + b"  -\n")
        out = time.monotonic() - start
        data, start = random.Random(1).randbytes(20 << 20), time.monotonic()
        with dial(path, 5000) as line:
            line.sendall(data)
            line.shutdown(socket.SHUT_WR)
            got = read_all(line).decode().split()
        print(f"note: 20 MB to the guest {time.monotonic() - start:.1f} s, from it {out:.1f} s, with checksums")
        check(got and got[0] == hashlib.sha256(data).hexdigest(), f"the host's 20 MB came as {got}")
        check(dial(path, 5999) is None, "the guest accepts at a port where nobody listens")
        slow, lump = dial(path, 5001), random.Random(2).randbytes(4 << 20)
        sender = threading.Thread(target=lambda: (slow.sendall(lump), slow.shutdown(socket.SHUT_WR)))
        sender.start()
        many, result = [], []
        for n in range(50):
            many.append(threading.Thread(target=echo, args=(path, random.Random(n).randbytes(100000), result)))
            many[-1].start()
        for thread in many:
            thread.join()
        check(result == [True] * 50, f"{result.count(True)} of 50 connections had their data back")
        check(read_all(slow) == lump, "the slow connection lost something")
        sender.join()
        slow.close()
        let_go(end)
        code = guest.result("vsock.sh")
        check(code == 0, f"{code}{guest.tail()}")
        check(guest.wait() == 0, guest.tail())
        check(not os.path.exists(path), "the socket is still there")


def broken(line):
    """Waits for the end of a connection; what came before it."""
    with line:
        try:
            return read_all(line)
        except ConnectionResetError:
            return None


@needs_ferry
@limit(300)
def test_moves():
    """When the machine's state has gone through its tables, both sides find their connections broken, and can
    make new ones."""
    with machine("again", env={"FERRY_TEST": "roundtrip=1500"}) as (guest, path, _, end):
        guest.expect("^ferry: ready", 120)
        for _ in range(3):
            from_guest, _ = end.accept()
            to_guest = dial(path, 5001)
            while to_guest is None:  # broken while it was made
                time.sleep(0.1)
                to_guest = dial(path, 5001)
            broken(to_guest)
            broken(from_guest)
            guest.expect("^ferry: again", 60)
        end.settimeout(1)
        while guest.child.poll() is None:
            with contextlib.suppress(TimeoutError):
                let_go(end)
        check(guest.wait() == 0, guest.tail())


@needs_ferry
@limit(300)
def test_reset():
    """A guest that reboots ends the connections; its next life makes new ones."""
    with machine("again ferry.end=reboot", reset_limit=1) as (guest, path, _, end):
        for life in range(2):
            guest.expect("^ferry: ready", 120)
            line = dial(path, 5001)
            line.sendall(b"x")
            check(line.recv(1) == b"x", f"no echo in life {life}")
            let_go(end)
            try:
                check(not broken(line), "something came out of a guest that is gone")
            except TimeoutError:
                check(False, f"life {life}: the connection outlives the guest's end{guest.tail()}")
        check(guest.wait() == EXIT_RESET_LIMIT, guest.tail())
