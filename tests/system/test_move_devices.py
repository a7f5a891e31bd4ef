"""The bare guest with devices that write into its memory, and with a balloon, through moves and files."""
import array
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import threading
import time

from bare_guest import Session
from ferrytest import FERRY, SCALE, Process, Skip, at_rate, check, each, limit, needs_ferry

MIB = 1 << 20
MODES = {"pre-copy": ["--downtime", "30s", *at_rate("32M")],
         "post-copy": ["--postcopy", *at_rate("32M")]}
COUNTS = re.compile(rb" pass (\d+) ipi \d+ disk (\d+) rng (\d+) net (\d+)\r*\n")


def disk(path, mib=1):
    """Of words that follow from their places (tests/guest/x86/move/devices.c)."""
    with open(path, "wb") as f:
        array.array("Q", (i * 0x9e3779b97f4a7c15 + 1 & (1 << 64) - 1 for i in range(mib * MIB // 8))).tofile(f)


def counts(machine, least=(0, 0, 0)):
    """What has come from the devices, once it is more than that."""
    end = time.monotonic() + 60 * SCALE
    while True:
        found = COUNTS.findall(machine.text)
        check(b"WRONG" not in machine.text, machine.tail())
        if found and all(int(n) > m for n, m in zip(found[-1][1:], least)):
            return [int(n) for n in found[-1][1:]]
        check(time.monotonic() < end and not machine.ended, f"the devices bring nothing more than {least}{machine.tail()}")
        time.sleep(0.05)


@needs_ferry
@limit(200)
@each(mode=list(MODES))
def test_written(mode):
    """What a disk, a card and the source of random numbers have written is there after each hop, and they go on."""
    with Session(2) as s:
        disk(s.path("disk"))
        s.extra, s.append = ["--disk", s.path("disk"), "--net", "user"], "devices=1"
        s.start()
        for _ in range(2):
            # All pages that they write to have been written to.
            before = counts(s.owner, (96, 96, 10))
            s.move(*MODES[mode])
            # And each has been looked at after it.
            counts(s.owner, [n + more for n, more in zip(before, (96, 96, 3))])


class Slow:
    """Stands before a server at a unix socket: what that says takes its time."""

    def __init__(self, path, target, seconds):
        self.target, self.seconds = target, seconds
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(8)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            near, far = self.listener.accept()[0], socket.socket(socket.AF_UNIX)
            far.connect(self.target)
            for a, b, wait in ((near, far, 0), (far, near, self.seconds)):
                threading.Thread(target=self._pass, args=(a, b, wait), daemon=True).start()

    @staticmethod
    def _pass(a, b, wait):
        try:
            while data := a.recv(1 << 16):
                time.sleep(wait)
                b.sendall(data)
            b.shutdown(socket.SHUT_WR)
        except OSError:
            pass


@contextlib.contextmanager
def served_disk():
    """A session whose disk a server has, at "nbd" in its folder; and that server."""
    if not shutil.which("qemu-nbd"):
        raise Skip("no qemu-nbd (qemu-utils)")
    with Session(1) as s:
        disk(s.path("disk"))
        with Process(["qemu-nbd", "--format=raw", "--persistent", "--shared=4", "-k", s.path("nbd"), s.path("disk")],
                     terminal=False) as server:
            end = time.monotonic() + 30 * SCALE
            while not os.path.exists(s.path("nbd")):
                check(time.monotonic() < end, "no qemu-nbd")
                time.sleep(0.02)
            yield s, server


@needs_ferry
@limit(200)
def test_written_late():
    """A disk whose answers come long after the requests: rounds begin in between."""
    with served_disk() as (s, _):
        Slow(s.path("slow"), s.path("nbd"), 0.03)
        s.extra = ["--disk", f"nbd+unix:///?socket={s.path('slow')}", "--net", "user"]
        s.append = "devices=1"
        s.start()
        for _ in range(2):
            before = counts(s.owner, (96, 96, 0))
            s.move("--downtime", "1ms", "--postcopy-after", "6", *at_rate("64M"))
            counts(s.owner, [before[0] + 96, 0, 0])


@needs_ferry
@limit(200)
@each(how=["save", "migrate", "pause"])
def test_disk_that_hangs(how):
    """What the guest waits for does not come, so it does not come to a stand: called off (resumed), it goes on."""
    with served_disk() as (s, server):
        end = time.monotonic() + 30 * SCALE
        s.extra = ["--disk", f"nbd+unix:///?socket={s.path('nbd')}", "--net", "user"]
        s.append = "devices=1"
        s.start()
        before = counts(s.owner, (96, 96, 0))
        name = s.owner.name
        if how == "migrate":
            mover = s.mover(s.receiver().address, *at_rate("8M"), "--downtime", "10s")
            mover.expect('"phase":"copy"')
        os.kill(server.pid, signal.SIGSTOP)
        try:
            # Who says nothing any more waits for the disk: a request is on its way.
            said = -1
            while said != len(s.owner.text):
                check(time.monotonic() < end, f"the disk does not hang{s.owner.tail()}")
                said = len(s.owner.text)
                time.sleep(0.5)
            if how != "migrate":
                mover = Process([FERRY, how, name, *[s.path("saved")][:how == "save"]], terminal=False, env=s.env)
                s.machines.append(mover)
            state = lambda: json.loads(s.control("info", "--json", name))["state"]
            while state() != ("pausing" if how == "pause" else "moving"):
                check(time.monotonic() < end, f"it is {state()}, not on its way{mover.stderr()}")
                time.sleep(0.05)
            check(mover.child.poll() is None, f"it stood still with a request on its way: {mover.stderr()}")
            s.control(*(["resume", name] if how == "pause" else ["migrate-control", name, "cancel"]))
            word = "it goes on" if how == "pause" else "called off"
            check(mover.wait(20) and word in mover.stderr(), mover.stderr() + s.owner.tail())
            check(state() == "running", state())
        finally:
            os.kill(server.pid, signal.SIGCONT)
        counts(s.owner, [before[0] + 96, 0, 0])


# ---- a balloon --------------------------------------------------------------------------------------

def balloon(s, machine, mib=None):
    """Asks for that size and waits until the guest has it; what is known of the balloon."""
    if mib:
        s.control("balloon", machine.name, f"{mib}M")
    end = time.monotonic() + 60 * SCALE
    while True:
        said = json.loads(s.control("balloon", "--json", machine.name))
        if not mib or said["actual"] == mib * MIB:
            return said
        check(b"WRONG" not in machine.text and time.monotonic() < end, f"never {mib} MiB: {said}{machine.tail()}")
        time.sleep(0.05)


def resident(s, machine):
    """MiB that the host has given for the guest's memory."""
    with open(f"/proc/{machine.pid}/smaps") as maps:
        inside = False
        for line in maps:
            if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line):
                inside = int(match.group(2), 16) - int(match.group(1), 16) == s.mib * MIB
            elif inside and line.startswith("Rss:"):
                return int(line.split()[1]) >> 10
    check(False, "no such memory")


def becomes(s, machine, low, high):
    end = time.monotonic() + 30 * SCALE
    while not low <= (now := resident(s, machine)) <= high:
        check(time.monotonic() < end, f"{now} MiB are resident in {machine.name}, not {low} to {high}{machine.tail()}")
        time.sleep(0.1)


def session(**options):
    """16 MiB that it works with, and 48 that it can give up."""
    return Session(1, mib=64, last=16, append="balloon=48", **options)


def through_file(s):
    path = s.path("saved")
    s.control("save", s.owner.name, path)
    check(s.owner.wait(30) == 0, s.owner.tail())
    check(os.stat(path).st_size < 34 * MIB, f"the file has {os.stat(path).st_size} bytes")
    s.trail += bytes(s.owner.text)
    return s._new("m", "restore", "--name", f"m{s.count + 1}", path)


@needs_ferry
@limit(200)
@each(how=[*MODES, "file", "pre-copy shared", "post-copy shared"])
def test_balloon(how):
    """It is as large as it was, the host there gives nothing for it, and it can grow and be let out there; also where
    other processes could see the memory at the source."""
    how, _, shared = how.partition(" ")
    with session(extra=["--memory", "64M,shared"] if shared else ()) as s:
        s.start()
        check(resident(s, s.owner) > 55, f"{resident(s, s.owner)} MiB")
        balloon(s, s.owner, 32)
        becomes(s, s.owner, 0, 34)
        if how == "file":
            s.owner = through_file(s)
            s.owner.passes()
        else:
            s.move(*MODES[how])
        check(balloon(s, s.owner)["actual"] == 32 * MIB, "another size")
        becomes(s, s.owner, 0, 36)
        balloon(s, s.owner, 20)
        becomes(s, s.owner, 0, 24)
        balloon(s, s.owner, 64)
        s.owner.passes()
        becomes(s, s.owner, 55, 64)


@needs_ferry
@limit(200)
def test_balloon_under_way():
    """It grows while the guest's memory is being sent: what had been sent of it costs the host there nothing."""
    with session() as s:
        s.start()
        there = s.receiver()
        mover = s.mover(there.address, "--downtime", "1ms", *at_rate("32M"))
        mover.expect(r'"round":([2-9]|\d\d),', 60)
        balloon(s, s.owner, 32)
        s.control("migrate-control", s.owner.name, "postcopy")
        check(mover.wait(60) == 0, mover.tail())
        s.went(there)
        check(balloon(s, there)["actual"] == 32 * MIB, "another size")
        becomes(s, there, 0, 36)
        balloon(s, there, 64)
        there.passes()


@needs_ferry
@limit(200)
def test_balloon_missing():
    """It grows and is let out while pages are missing: those need not come, and come too late."""
    with session() as s:
        s.start()
        there = s.receiver()
        mover = s.mover(there.address, "--postcopy-after", "100ms", *at_rate("4M"))
        mover.expect(r'"phase":"postcopy"', 60)
        said = balloon(s, there, 30)
        check(said["inflated-bytes"] >= 34 * MIB, said)
        becomes(s, there, 0, 32)
        balloon(s, there, 40)
        left = [int(n) for n in re.findall(rb'"remaining":(\d+)', mover.text)][-1]
        check(left > 8 * MIB and not mover.ended, f"{left} bytes were missing, too few to tell")
        there.passes()
        check(mover.wait(60) == 0, mover.tail())
        s.went(there)
        becomes(s, there, 0, 42)
        balloon(s, there, 64)
        there.passes()
