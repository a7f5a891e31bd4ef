"""What may come to a receiver beside a guest: noise, the half of a guest, an old one, one that does not fit. And that the
bare guest would see it if its memory were wrong."""
import gzip
import json
import os
import subprocess
import time

from bare_guest import Session
from fault_link import HEADER, TYPES, Link, fields, number
from ferrytest import FERRY, SCALE, TOP, Failure, Process, at_rate, check, ferry, limit, needs_ferry
from stream_bytes import Sender, frames, sealed

PAGES_MAX = 256  # of one frame

OLD = os.path.join(TOP, "tests", "moved")


def old(name):
    with gzip.open(os.path.join(OLD, name)) as f:
        return f.read()


def swap_pages(data):
    """The first and the last page of a run of pages change places: every checksum is right."""
    runs, contents = number(data, HEADER, 4), number(data, HEADER + 4, 4)
    if contents < 2:
        return data
    at, data = HEADER + 8 + 16 * runs, bytearray(data)
    last = at + 4096 * (contents - 1)
    data[at:at + 4096], data[last:last + 4096] = data[last:last + 4096], data[at:at + 4096]
    return sealed(data)


def leave_out(data):
    """A run with contents is said to be zero, and its pages are left out."""
    runs, contents = number(data, HEADER, 4), number(data, HEADER + 4, 4)
    for i in range(runs):
        at = HEADER + 8 + 16 * i
        if number(data, at + 12, 4) == 1:
            break
    else:
        return data
    data = bytearray(data)
    count = number(data, at + 8, 4)
    data[at + 12:at + 16] = (2).to_bytes(4, "little")
    data[HEADER + 4:HEADER + 8] = (contents - count).to_bytes(4, "little")
    first = HEADER + 8 + 16 * runs
    del data[first:first + 4096 * count]
    for at in (8, 20):
        data[at:at + 4] = (len(data) - HEADER).to_bytes(4, "little")
    return sealed(data)


class Stopped(Link):
    """The frame that is meant is the last one of those that come when the guest stands still: it will not write to
    their pages again. With `ferry migrate --uncompressed`."""

    def _frame(self, pair, way, data, to):
        if way == "there" and TYPES[data[4]] == "ROUND" and fields(data, HEADER)["phase"] == 2:
            place = "last" if fields(data, HEADER)["pages"] > PAGES_MAX else "first"
            self.name = f"PAGES {number(data, 16, 4)} {place}"
        super()._frame(pair, way, data, to)


@needs_ferry
@limit(200)
def test_negative_control():
    """Pages that are swapped or lost on the way, with right checksums: the guest says so, or it checks nothing."""
    for spoil in (swap_pages, leave_out):
        with Session(1) as s:
            s.start()
            there = s.receiver()

            def harm(_link, frame, send, spoil=spoil):
                spoiled = spoil(frame.data)
                check(spoiled != frame.data, "nothing was spoiled")
                send(spoiled)
                return True

            link = Stopped(s.path("l"), there.address[5:], "there", harm=harm)
            s.migrate(link.address, "--downtime", "30s", "--uncompressed")
            there.expect(r"move: WRONG cpu 0 own page .*", 30)
            link.close()


def ends(there, code=1):
    check(there.wait(30) == code, f"the receiver ended otherwise{there.tail()}")
    check(not there.text, f"it ran{there.tail()}")


@needs_ferry
@limit(200)
def test_truncated():
    """The beginning of a guest, up to each kind of frame and to its middle: nothing of it runs, and it is said why."""
    stream = list(frames(old("live-1.stream.gz")))
    kinds, told = set(), 0
    with Session() as s:
        for n, frame in enumerate(stream):
            kind = TYPES[frame[4]]
            if kind in kinds or kind in ("HELLO", "RUN", "END"):
                continue
            kinds.add(kind)
            there = s.receiver()
            sender = Sender(there.address)
            sender.say(b"".join(stream[:n]) + frame[:len(frame) // 2])
            sender.close()
            ends(there)
            told += "the guest did not come" in there.stderr()
            s.drop(there)
    check(told == len(kinds) and told > 5, f"{told} of {len(kinds)}: {kinds}")


@needs_ferry
@limit(200)
def test_noise():
    """Noise instead of HELLO leaves a receiver listening; behind it, it ends it. The true guest comes all the same."""
    with Session() as s:
        s.start()
        there = s.receiver()
        noise = bytes(i * 73 + (i >> 8) * 11 & 0xff for i in range(70000))
        hello = next(iter(frames(old("live-1.stream.gz"))))
        for data in (noise, b"", hello[:20], b"FRY1" + noise, hello[:31] + b"\0", b"GET / HTTP/1.0\r\n\r\n" * 9):
            sender = Sender(there.address)
            try:
                sender.say(data)
            except OSError:
                pass
            sender.close()
        lines = s.migrate(there.address, "--downtime", "30s")
        check(lines[-1]["status"] == "moved", lines[-1])
        s.went(there)
        there = s.receiver()
        sender = Sender(there.address)
        sender.say(hello + noise)
        ends(there)
        sender.close()


@needs_ferry
@limit(200)
def test_word_of_another():
    """A whole guest, and RUN of another attempt behind it: it is not started by that."""
    with Session() as s:
        there = s.receiver()
        sender = Sender(there.address)
        stream = old("live-1.stream.gz")
        at = stream.index(next(f for f in frames(stream) if TYPES[f[4]] == "END"))
        sender.say(stream[:at])
        check(sender.hear("READY"), "no READY")
        there.is_still(0.5)
        check(not there.text, f"it runs{there.tail()}")
        sender.close()


@needs_ferry
@limit(200)
def test_older_guests():
    """Guests that older ferries have saved and sent (tests/moved) run, and find their memory right."""
    with Session() as s:
        there = s.receiver()
        sender = Sender(there.address)
        check(sender.replay(old("live-1.stream.gz")), f"it was not taken{there.tail()}")
        there.passes()
        s.owner = there
        # And goes on from here.
        s.move("--downtime", "30s")
        sender.close()
        path = s.path("saved")
        with open(path, "wb") as f:
            f.write(old("saved-1.ferry.gz"))
        again = s._new("m", "restore", "--name", "again", path)
        again.passes()


def without_images(stream):
    """Its frames count on, as if there had never been one to boot again from."""
    kept = [frame for frame in frames(stream) if TYPES[frame[4]] != "IMAGE"]
    return b"".join(sealed(frame[:12] + i.to_bytes(4, "little") + frame[16:]) for i, frame in enumerate(kept))


def offers_to_leave_them_out(stream):
    """The same of a source that knows that images may be left out."""
    hello, item = next(iter(frames(stream))), b"\0\5offer\6\0\0\0images"
    size = (len(hello) - HEADER + len(item)).to_bytes(4, "little")
    return sealed(hello[:8] + size + hello[12:20] + size + hello[24:] + item) + stream[len(hello):]


@needs_ferry
@limit(200)
def test_boot_image():
    """A stream without a boot image is refused, also where the source says that it need not be sent: the file is not
    there. One that turns out to be damaged while the guest runs costs it nothing
    but the next start."""
    with Session() as s:
        stream = without_images(old("live-1.stream.gz"))
        for data in (stream, offers_to_leave_them_out(stream)):
            there = s.receiver()
            sender = Sender(there.address)
            check(not sender.replay(data), f"it was taken{there.tail()}")
            ends(there)
            check("nothing to boot again from" in there.stderr(), there.stderr())
            sender.close()
        path, whole = s.path("saved"), old("saved-1.ferry.gz")
        at = whole.index(next(f for f in frames(whole) if TYPES[f[4]] == "IMAGE")) + HEADER + 2000
        with open(path, "wb") as f:
            f.write(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:])
        again = s._new("m", "restore", "--name", "again", path)
        again.passes()
        check("neither be reset nor moved" in again.stderr(), again.stderr())
        code, _, err = ferry("save", "again", s.path("more"), env=s.env)
        check(code == 1 and "is lost" in err, f"{code} {err}")
        again.passes()
        check(ferry("reset", "again", env=s.env)[0] == 0, "reset")
        again.wait(30)
        check("is lost" in again.stderr(), again.stderr())


@needs_ferry
@limit(200)
def test_no_room():
    """A host that does not give the memory refuses before anything is stopped; another one takes it."""
    with Session(last=16, mib=3000) as s:
        s.start()
        there = s.receiver(through=("prlimit", f"--as={2 << 30}"))
        lines = s.migrate(there.address, code=20)
        check(lines[-1]["status"] == "refused" and "memory" in lines[-1]["text"], lines[-1])
        ends(there)
        s.owner.passes()
        s.move("--downtime", "30s")


class Plague(Link):
    """Damages every frame with pages behind RUN, as long as it lasts."""
    lasts = True

    def _frame(self, pair, way, data, to):
        if self.lasts and self.ran and TYPES.get(data[4]) == "PAGES":
            data = data[:-1] + bytes([data[-1] ^ 1])
        super()._frame(pair, way, data, to)


@needs_ferry
@limit(200)
def test_trouble():
    """What comes damaged again and again is said by `ferry info`, too, until it comes whole."""
    with Session() as s:
        s.start()
        there = s.receiver()
        link = Plague(s.path("link"), there.address[5:])
        mover = s.mover(link.address, "--postcopy", *at_rate("32M"))
        end, trouble = time.monotonic() + 60 * SCALE, ""
        while "damaged" not in trouble:
            check(time.monotonic() < end and not mover.ended, f"no trouble: {trouble}{mover.tail()}")
            migration = json.loads(s.control("info", "--json", s.owner.name)).get("migration", {})
            trouble = migration.get("trouble", "")
            time.sleep(0.02)
        check(migration["phase"] == "paused" and migration["state"] == "serves", migration)
        link.lasts = False
        check(mover.wait(60) == 0, mover.tail())
        s.went(there)
        link.close()
