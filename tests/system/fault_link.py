"""A link between two ferries that does harm: it passes whole frames on (docs/migration-stream.md), knows which one it
has in its hands, and does one thing to one of them."""
import ctypes
import os
import socket
import threading
import time

HEADER, MAGIC, ZSTD = 32, b"FRY1"[::-1], 2
TYPES = {1: "HELLO", 2: "DESCRIPTION", 3: "IMAGE", 4: "MEMORY", 5: "ACCEPT", 6: "ROUND", 7: "PAGES", 8: "DIGESTS",
         9: "DEVICE", 10: "READY", 11: "RUN", 12: "ACK", 13: "REQUEST", 14: "RESUME", 15: "RECEIVED", 16: "STATISTICS",
         17: "ALIVE", 18: "CANCEL", 19: "FAILURE", 20: "INDEX", 21: "DIRECTORY", 22: "END"}


def number(data, at, size):
    return int.from_bytes(data[at:at + size], "little")


def fields(data, at=0):
    """One table of the stream: its fields that are numbers."""
    at += 1 + data[at] + 2
    end, found = at + 4 + number(data, at, 4), {}
    at += 4
    while at < end:
        name = bytes(data[at + 1:at + 1 + data[at]]).decode()
        at += 1 + data[at]
        size = number(data, at + 5, 4)
        if size <= 8:
            found[name] = number(data, at + 9, size)
        at += 9 + size
    return found


def unpacked(data):
    """What is in the zstd frame that a payload is."""
    zstd = ctypes.CDLL("libzstd.so.1")
    zstd.ZSTD_decompress.restype = ctypes.c_size_t
    out = ctypes.create_string_buffer(number(data, 8, 4))
    payload = bytes(data[HEADER:])
    size = zstd.ZSTD_decompress(out, ctypes.c_size_t(len(out)), payload, ctypes.c_size_t(len(payload)))
    if size != len(out):
        raise ValueError("a frame that was passed on is damaged")
    return out.raw


class Frame:
    """One frame of a direction ("there": from the source, or "back"). place: what it is among its like."""

    def __init__(self, way, data):
        self.way, self.data = way, data
        self.type = TYPES.get(data[4], str(data[4]))
        self.channel = number(data, 6, 2)
        self.round = number(data, 16, 4)
        self.pair = None  # the connection that carries it

    def pages(self):
        """How many pages it brings."""
        data = unpacked(self.data) if self.data[5] & ZSTD else self.data[HEADER:]
        return sum(number(data, 8 + 16 * i + 8, 4) for i in range(number(data, 0, 4)))


class Counter:
    """Names the frames of one direction: "ROUND 3", "PAGES 2 middle", "REQUEST 0", on whichever connection; those for
    demanded pages have another name beside it, "demand REQUEST 0" or "demand PAGES 9"."""

    def __init__(self):
        self.seen, self.left, self.all, self.half = {}, 0, 0, False

    def _next(self, kind):
        count = self.seen.get(kind, 0)
        self.seen[kind] = count + 1
        return f"{kind} {count}"

    def _place(self, frame):
        first = self.left == self.all
        self.left -= frame.pages()
        if first:
            return "first"
        if self.left <= 0:
            return "last"
        if not self.half and self.left <= self.all / 2:
            self.half = True
            return "middle"
        return None

    def names(self, frame):
        if frame.type == "ROUND":
            table = fields(frame.data, HEADER)
            if not table.get("ends"):
                self.left = self.all = table.get("pages", 0)
                self.half = False
        found = [self._next("demand " + frame.type)] if frame.channel else []
        if frame.type != "PAGES":
            # That it lives each connection says for itself.
            return found + ([self._next(frame.type)] if frame.type != "ALIVE" or not frame.channel else [])
        place = self._place(frame)
        return found + ([f"PAGES {frame.round} {place}"] if place else [])


class Link:
    """Listens at a path, passes on to another. harm(link, frame, send): called once, for the frame of that way and
    name; True: the frame is done with. names: what has gone through, in order; said: the bytes of the source. alone:
    no other connection than the main one comes through. ALIVE counts from RUN on."""

    def __init__(self, path, target, way=None, name=None, harm=None, alone=False):
        self.path, self.target, self.way, self.name, self.harm = path, target, way, name, harm
        self.alone, self.ran = alone, False
        self.lock = threading.Lock()
        self.counters = {"there": Counter(), "back": Counter()}
        self.names, self.said = [], bytearray()
        self.done = self.closed = self.before_run = False
        self.dead_until = 0
        self.piece = self.slow_until = self.rate = 0
        self.lines = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(8)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self):
        return "unix:" + self.path

    def _accept(self):
        while not self.closed:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            try:
                if time.monotonic() < self.dead_until:
                    raise OSError("dead")
                far.connect(self.target)
            except OSError:
                near.close()
                far.close()
                continue
            pair = {"near": near, "far": far, "hole": False, "open": 2}
            with self.lock:
                self.lines.append(pair)
            for way, a, b in (("there", near, far), ("back", far, near)):
                threading.Thread(target=self._pass, args=(pair, way, a, b), daemon=True).start()

    def _send(self, pair, to, data):
        """Passes on, as slowly as is wanted now; into a hole everything goes."""
        at = 0
        while at < len(data):
            if pair["hole"]:
                return
            size = len(data) - at
            if time.monotonic() < self.slow_until:
                size = min(size, self.piece)
                if self.rate:
                    time.sleep(size / self.rate)
            to.sendall(data[at:at + size])
            at += size

    def _frame(self, pair, way, data, to):
        frame = Frame(way, data)
        frame.pair = pair
        mine = False
        if self.alone and frame.channel:
            self._shut(pair)
            return
        if frame.type != "ALIVE" or self.ran:
            with self.lock:
                names = self.counters[way].names(frame)
                self.names += [(way, name) for name in names]
                if way == "there" and frame.type != "ALIVE":
                    self.said += data
                mine = self.harm is not None and not self.done and way == self.way and self.name in names
                if mine:
                    self.before_run = not self.ran
                    self.done = True
                self.ran |= frame.type == "RUN"
        if not (mine and self.harm(self, frame, lambda piece: self._send(pair, to, piece))):
            self._send(pair, to, data)

    def _pass(self, pair, way, a, b):
        data = bytearray()
        try:
            while piece := a.recv(1 << 20):
                data += piece
                while len(data) >= HEADER and len(data) >= (size := HEADER + number(data, 20, 4)):
                    whole = bytes(data[:size])
                    del data[:size]
                    self._frame(pair, way, whole, b)
            self._send(pair, b, bytes(data))
            if not pair["hole"]:
                b.shutdown(socket.SHUT_WR)
        except OSError:
            # A reset: neither direction lives on.
            self._shut(pair)
        with self.lock:
            pair["open"] -= 1
            over = not pair["open"]
            if over:
                self.lines.remove(pair)
        if over:
            pair["near"].close()
            pair["far"].close()

    def cut_one(self, pair):
        self._shut(pair)

    @staticmethod
    def _shut(pair):
        for line in (pair["near"], pair["far"]):
            try:
                line.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    # ---- harm ----

    def cut(self):
        """All connections that there are; new ones may come."""
        with self.lock:
            lines = list(self.lines)
        for pair in lines:
            self._shut(pair)

    def swallow(self):
        """What is sent from now on, on these connections, arrives nowhere, and nobody hears of it."""
        with self.lock:
            for pair in self.lines:
                pair["hole"] = True

    def slow(self, seconds, piece, rate=0):
        self.piece, self.rate, self.slow_until = piece, rate, time.monotonic() + seconds

    def fast(self):
        self.slow_until = 0

    def close(self):
        self.closed = True
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        self.cut()
        try:
            os.unlink(self.path)
        except OSError:
            pass


# What can be done to a frame: name -> (harm, the whole program that it is about or None).

def _cut_before(link, _frame, _send):
    link.cut()
    return True


def _cut_inside(link, frame, send):
    send(frame.data[:len(frame.data) // 2])
    link.cut()
    return True


def _cut_after(link, frame, send):
    send(frame.data)
    time.sleep(0.02)  # it arrives, and is acted upon, or not: both must be right
    link.cut()
    return True


def _flip(at):
    def harm(_link, frame, send):
        data = bytearray(frame.data)
        data[int(at * (len(data) - 1))] ^= 1 << len(data) % 8
        send(bytes(data))
        return True
    return harm


def _drop(_link, _frame, _send):
    return True


def _twice(_link, frame, send):
    send(frame.data)
    return False


def _garbage(_link, frame, send):
    send(bytes((i * 37 + 11) & 0xff for i in range(len(frame.data) % 200 + 40)))
    return False


def _hole(link, _frame, _send):
    link.swallow()
    return True


def _cut_one(link, frame, _send):
    link.cut_one(frame.pair)
    return True


def _hole_one(_link, frame, _send):
    frame.pair["hole"] = True
    return True


def _delay(_link, _frame, _send):
    time.sleep(1.2)
    return False


def _trickle(link, _frame, _send):
    link.slow(1.5, 1000, 100000)
    return False


def _crumbs(link, _frame, _send):
    link.slow(0.5, 7)
    return False


def _dead(link, frame, send):
    link.dead_until = time.monotonic() + 1
    return _cut_before(link, frame, send)


HARM = {"cut before": _cut_before, "cut inside": _cut_inside, "cut after": _cut_after, "dead for a second": _dead,
        "bit in the head": _flip(0.0), "bit in the middle": _flip(0.5), "bit at the end": _flip(1.0), "dropped": _drop,
        "twice": _twice, "garbage before": _garbage, "delayed": _delay, "a trickle": _trickle, "crumbs": _crumbs,
        "black hole": _hole}
# What only the connection suffers that carries the frame: of two.
HARM_ONE = {"its connection cut": _cut_one, "its connection silent": _hole_one}
# The connection lives through these: nothing may come of them.
HARMLESS = {"delayed", "a trickle", "crumbs"}
