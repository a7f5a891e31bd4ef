"""What a guest boots from, on both hosts or on one: it is sent where it is missing or another one, and not otherwise; and
the guest boots from it again, wherever it is."""
import os

from bare_guest import MODES, Session
from fault_link import Link
from ferrytest import check, each, ferry, limit, needs_ferry


def move_through(s, *options):
    """Moves it through a link: the frames that went there, in order."""
    there = s.receiver()
    link = Link(s.path(f"l{s.count}"), there.address[5:])
    try:
        s.migrate(link.address, *options)
        s.went(there)
        return [name for way, name in link.names if way == "there"]
    finally:
        link.close()


def boots_again(s):
    """Whatever it came with: it starts from that again, and complains of memory that is not as after power-on."""
    s.owner.passes()
    check(ferry("reset", s.owner.name, env=s.env)[0] == 0, "reset")
    s.owner.expect(r"WRONG .* expected 0x0 of pass 0", 60)


def gone(path):
    os.unlink(path)


def other(path):
    """Another kernel of the same name and size, which is none."""
    size = os.path.getsize(path)
    os.unlink(path)
    with open(path, "wb") as f:
        f.write(b"\x7fELF".ljust(size, b"x"))


def changed(path):
    """The last byte."""
    with open(path, "r+b") as f:
        f.seek(-1, os.SEEK_END)
        last = f.read(1)
        f.seek(-1, os.SEEK_END)
        f.write(bytes([last[0] ^ 1]))


def fifo(path):
    """Nobody opens its other end."""
    os.unlink(path)
    os.mkfifo(path)


def folder(path):
    os.unlink(path)
    os.mkdir(path)


def unreadable(path):
    """A link that leads to itself: root may read everything else."""
    os.unlink(path)
    os.symlink(path, path)


HARMS = {f.__name__: f for f in (gone, other, changed, fifo, folder, unreadable)}


@needs_ferry
@limit(120)
@each(mode=list(MODES))
def test_same_files(mode):
    """There and back: nothing of it goes over the link."""
    with Session() as s:
        s.start()
        for _ in range(2):
            frames = move_through(s, *MODES[mode])
            check("MEMORY 0" in frames and not any(f.startswith("IMAGE") for f in frames), str(frames[:8]))
        boots_again(s)


@needs_ferry
@limit(120)
@each(harm=list(HARMS))
def test_other_files(harm):
    """What lies there by the same name is not what the guest has started from."""
    with Session() as s:
        s.start()
        HARMS[harm](s.image)
        for _ in range(2):
            frames = move_through(s, "--downtime", "30s")
            check(frames[:5] == ["HELLO 0", "DESCRIPTION 0", "MEMORY 0", "IMAGE 0", "ROUND 0"], str(frames[:8]))
        boots_again(s)


@needs_ferry
@limit(120)
def test_other_words():
    """The command line is a part of it, and goes with the machine: both find the same."""
    with Session(append="balloon=0") as s:
        s.start()
        frames = move_through(s, "--downtime", "30s", "--verify")
        check(not any(f.startswith("IMAGE") for f in frames), str(frames[:8]))
        boots_again(s)
