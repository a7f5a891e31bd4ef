"""The bare guest that checks itself, through moves that nothing disturbs (links that break: test_move_faults.py)."""
import json
import os
import signal
import socket
import time

from ferrytest import FERRY, SCALE, Process, at_rate, check, each, ferry, limit, needs_ferry

from bare_guest import MODES, Session
from fault_link import HEADER, TYPES, Link, fields


def as_asked(mode, ends):
    """What must be seen of it in some move: all that a guest lacks may come while its state is loaded."""
    check(all(end["status"] == "moved" and end["phase"] == "completed" for end in ends), ends)
    check(any(end["faults"] > 0 for end in ends) == (mode != "pre-copy"), f"faults: {ends}")
    check(mode != "hybrid" or all(end["round"] >= 3 for end in ends) and any(end["round"] > 3 for end in ends),
          f"rounds: {ends}")


@needs_ferry
@limit(200)
@each(mode=list(MODES), cpus=[1, 2, 4])
def test_there_and_back(mode, cpus):
    """A, B, C and at once back to A's place, with the same processors and all of its pages."""
    with Session(cpus) as s:
        s.start()
        as_asked(mode, [s.move(*MODES[mode])[-1] for _ in range(3)])


@needs_ferry
@limit(200)
def test_at_once_again():
    """It is sent on before the pages of the move before have come: they are waited for."""
    with Session(2) as s:
        s.start()
        b = s.receiver()
        first = s.owner
        # A slow link from RUN on: what the guest demands is not bound by --bandwidth, and all would be there too soon.
        link = Link(s.path("link"), b.address[5:], "there", "RUN 0", lambda link, *_: link.slow(60, 1000, 400000))
        mover = s.mover(link.address, *MODES["post-copy"])
        mover.expect(r'"phase":"postcopy"', 60)
        # Beside the main one and two processors: of the migration, and its door or its lane.
        first.crashes_are_seen(5)
        b.crashes_are_seen(5)
        c = s.receiver()
        s.owner = b
        on = s.mover(c.address, "--downtime", "30s")
        time.sleep(0.5)
        check(mover.child.poll() is None, f"the pages of the first move were there too soon{mover.tail()}")
        link.fast()
        check(on.wait(60) == 0 and mover.wait(60) == 0, on.tail() + mover.tail())
        s.owner, s.trail = first, b""
        check(first.wait(30) == 0, first.tail())
        s.trail, s.owner = bytes(first.text), b
        s.went(c)
        link.close()


def restored(s, path):
    return s._new("m", "restore", "--name", f"m{s.count + 1}", path)


def call_off(s, path):
    """Saves the guest and calls that off as soon as it is under way; whether it was: then it is here, and no file."""
    saver = Process([FERRY, "save", s.owner.name, path], terminal=False, env=s.env)
    s.machines.append(saver)
    while True:
        code, _, err = ferry("migrate-control", s.owner.name, "cancel", env=s.env)
        if code == 0 or "not being moved" not in err:
            break
    if code == 0:
        check(saver.wait(60) == 1 and "called off" in saver.stderr(), f"called off, but {saver.stderr()}")
        check(not os.path.exists(path) and ferry("migrate-control", s.owner.name, "cancel", env=s.env)[0] == 1, "a file")
        return True
    check(saver.wait(60) == 0, f"too late ({err}), but {saver.stderr()}")
    return False


@needs_ferry
@limit(200)
def test_save_called_off():
    """While its pages are written; the next save has all of it."""
    with Session(2, mib=128, last=64) as s:
        initrd = s.path("initrd")  # so that it takes a while; it lies where the guest does not look
        with open(initrd, "wb") as f:
            f.write(os.urandom(50 << 20))
        s.extra, path, done = ["--initrd", initrd], s.path("saved"), 0
        s.start()
        for _ in range(12):
            if call_off(s, path):
                done += 1
                s.owner.passes()
            else:
                s.went(restored(s, path))
                os.unlink(path)
            if done == 3:
                break
        check(done == 3, f"called off only {done} times")
        s.control("save", s.owner.name, path)
        s.went(restored(s, path))


@needs_ferry
@limit(200)
def test_save_that_waits_called_off():
    """While it waits for pages of the move before: they come all the same."""
    with Session(2) as s:
        s.start()
        b, path = s.receiver(), s.path("saved")
        link = Link(s.path("link"), b.address[5:], "there", "RUN 0", lambda link, *_: link.slow(60, 1000, 400000))
        mover = s.mover(link.address, *MODES["post-copy"])
        mover.expect(r'"phase":"postcopy"', 60)
        a, s.owner = s.owner, b
        check(call_off(s, path), "saved before its pages were there")
        link.fast()
        check(mover.wait(60) == 0, mover.tail())
        s.owner = a
        s.went(b)
        link.close()
        s.control("save", b.name, path)
        s.went(restored(s, path))


@needs_ferry
@limit(200)
def test_port_is_free():
    """A guest that has come keeps nothing of how it came: the next one is waited for at the same address."""
    with Session() as s:
        s.start()
        b = s.receiver(address="tcp:127.0.0.1:0")
        s.migrate(b.address)
        s.went(b)
        b.await_error("the guest has come")
        c = s.receiver(address=b.address)
        s.migrate(c.address)
        s.went(c)


@needs_ferry
@limit(200)
@each(mode=list(MODES))
def test_paused(mode):
    """A guest that stands still moves, stands still there, and not a bit of its memory is another, at any hop."""
    with Session(2) as s:
        s.start()
        s.control("pause", s.owner.name)
        digest = s.owner.digest()
        for _ in range(3):
            there = s.receiver()
            old = s.owner
            lines = s.migrate(there.address, *MODES[mode])
            check(lines[-1]["status"] == "moved" and old.wait(30) == 0, lines[-1])
            s.trail += bytes(old.text)
            check(there.digest() == digest, "other memory")
            there.is_still()
            s.owner = there
        s.control("resume", s.owner.name)
        s.owner.passes()
        check(s.owner.digest() != digest, "its memory does not change, or is not what was looked at")


@needs_ferry
@limit(200)
@each(ms=[0, 15, 30, 60, 120])
def test_ended_while_saved(ms):
    """A machine that is told to end in the middle of that: either it is in the file, whole, or that is as it was."""
    with Session(mib=128, last=64) as s:
        initrd = s.path("initrd")  # large, so that the middle is long; it lies where the guest does not look
        with open(initrd, "wb") as f:
            f.write(os.urandom(50 << 20))
        s.extra, path = ["--initrd", initrd], s.path("saved")
        s.start()
        with open(path, "w") as f:
            f.write("before")
        saver = Process([FERRY, "save", s.owner.name, path], terminal=False, env=s.env)
        s.machines.append(saver)
        time.sleep(ms / 1000)
        s.owner.kill(signal.SIGTERM)
        code = saver.wait(60)
        s.owner.wait(30)
        if code:
            with open(path, "rb") as f:
                check(f.read(7) == b"before", f"{code}: the file is another one{saver.tail()}")
            return
        check(ferry("stream", path)[0] == 0, "a damaged file")
        s._new("m", "restore", "--name", "again", path).passes()


class SlowLater(Link):
    """Slow for a while, from the first frame on of a kind that is sent while the guest stands still."""

    def __init__(self, path, target, kind, rate):
        self.kind, self.slow_rate = kind, rate
        super().__init__(path, target)

    def _frame(self, pair, way, data, to):
        kind = TYPES[data[4]]
        if not self.done and kind == self.kind and (kind != "ROUND" or fields(data, HEADER)["phase"] == 2):
            self.done = True
            self.slow(10, 1000, self.slow_rate)
        super()._frame(pair, way, data, to)


@needs_ferry
@limit(200)
@each(kind=["ROUND", "DEVICE"])
def test_downtime_is_a_limit(kind):
    """The link becomes slow when the guest has been stopped. Before its last pages it goes on, and is stopped again
    when that will do; with its state on the way it is kept, and moves later."""
    with Session(2) as s:
        s.start()
        there = s.receiver()
        link = SlowLater(s.path("link"), there.address[5:], kind, 400000 if kind == "ROUND" else 300)
        begun = time.monotonic()
        lines = s.migrate(link.address, code=0 if kind == "ROUND" else 22)
        took = time.monotonic() - begun
        check(link.done, f"no such frame: {lines}")
        if kind == "ROUND":
            s.went(there)
            check(lines[-1]["downtime_ms"] < 1000 * SCALE and lines[-1]["round"] > 3, lines[-1])
        else:
            check("longer than it may" in lines[-1]["text"] and took < 15 * SCALE, f"{took} s: {lines[-1]}")
            s.owner.passes()
        link.close()
        s.move()


@needs_ferry
@limit(200)
def test_retry_at_once():
    """A link that has died takes what is said last with it: who tries again does not wait for that."""
    with Session() as s, socket.socket(socket.AF_UNIX) as nobody:
        s.start()
        there = s.receiver()
        nobody.bind(s.path("nobody"))
        nobody.listen(8)

        def hole(link, *_):
            link.target = s.path("nobody")  # who comes later is never answered
            link.swallow()

        link = Link(s.path("link"), there.address[5:], "back", "READY 0", hole)
        begun = time.monotonic()
        lines = s.migrate(link.address, "--downtime", "30s", code=22)
        took = time.monotonic() - begun
        check(lines[-1]["status"] == "failed" and 8 < took < 14 * SCALE, f"{took} s: {lines[-1]}")
        s.owner.passes()
        check("migration" not in json.loads(s.control("info", "--json", s.owner.name)), "it is still shown")
        s.move()
        link.close()


@needs_ferry
@limit(200)
def test_bandwidth_of_the_image():
    """What the guest boots from counts as everything else."""
    with Session(mib=64, last=16) as s:
        initrd = s.path("initrd")
        with open(initrd, "wb") as f:
            f.write(os.urandom(8 << 20))
        s.extra = ["--initrd", initrd]
        s.start()
        os.unlink(initrd)
        there = s.receiver()
        lines = s.migrate(there.address, *at_rate("8M"), "--downtime", "30s")
        s.went(there)
        image = [line for line in lines if line["phase"] == "image"]
        check(image and lines[-1]["total_ms"] > 2500, f"{lines[0]} {lines[-1]}")
        for line in lines:
            check(line["bytes"] < 9e6 * (line["total-ms"] / 1e3 + 0.5), f"too much so soon: {line}")
        check(all("eta-ms" not in line for line in lines if not line["rate"]), lines)
