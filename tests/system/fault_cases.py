"""Links and processes that fail at each frame of a migration: what the cases are, and what must be after each of them:
exactly one guest, which finds its memory right, and a next attempt that succeeds. Run by test_move_faults.py (some) and
tests/faults.py (all)."""
import os
import signal
import subprocess
import threading
import time

import bare_guest
from bare_guest import Session
from fault_link import HARM, HARM_ONE, HARMLESS, Link
from ferrytest import Failure, at_rate, check, ferry

MODES = {**bare_guest.MODES,
         # Pages are asked for on the main connection.
         "one connection": ["--postcopy", "--bandwidth", "100M"],
         # The connections have time to say that they live.
         "slow": ["--postcopy-after", "100ms", *at_rate("2M")]}
# Memory that comes last, because nobody looks at it.
GUESTS = {"slow": {"mib": 64, "last": 16, "append": "balloon=48 probes=0"}}

# The destination finds what the guest boots from: it is not sent.
SAME_FILES = {"hybrid"}

# The frames of an undisturbed move, as fault_link.py names them.
_HEAD = ["HELLO 0", "DESCRIPTION 0", "MEMORY 0", "IMAGE 0"]


def _round(n, frame):
    """A round with its two ROUND frames, or in post-copy with the first one only."""
    pages = [f"PAGES {n} {place}" for place in ("first", "middle", "last")]
    return [f"ROUND {frame}", *pages, f"ROUND {frame + 1}"]


_REQUESTS = ["REQUEST 0", "REQUEST 1", "REQUEST 9"]
_DEMAND_REQUESTS = ["demand " + r for r in _REQUESTS]
_DEMAND_PAGES = ["demand PAGES 0", "demand PAGES 9"]
PLACES = {
    "pre-copy": {"there": [*_HEAD, *_round(1, 0), *_round(2, 2), "DEVICE 0", "RUN 0", "END 0"],
                 "back": ["HELLO 0", "ACCEPT 0", "READY 0", "ACK 0"]},
    "post-copy": {"there": [*_HEAD, *_round(1, 0), "RECEIVED 0", "DEVICE 0", "RUN 0", *_DEMAND_PAGES,
                            *_round(2, 2)[:4], "END 0"],
                  "back": ["HELLO 0", "ACCEPT 0", "READY 0", "ACK 0", *_DEMAND_REQUESTS, "RESUME 0"]},
    "hybrid": {"there": [*_HEAD[:3], *_round(1, 0), *_round(2, 2), *_round(3, 4), "RECEIVED 0", "DEVICE 0", "RUN 0",
                         *_DEMAND_PAGES, *_round(4, 6)[:4], "END 0"],
               "back": ["HELLO 0", "ACCEPT 0", "READY 0", "ACK 0", *_DEMAND_REQUESTS, "RESUME 0"]},
    "one connection": {"there": ["RUN 0", *_round(2, 2)[:4], "END 0"],
                       "back": ["READY 0", "ACK 0", *_REQUESTS, "RESUME 0"]},
    "slow": {"there": ["RUN 0", "demand ALIVE 0", "END 0"],
             "back": ["READY 0", "ACK 0", "demand ALIVE 0", "ALIVE 0", "RESUME 0"]},
}
# Of these two, what the others do not have.
ONLY = {"one connection": {*_round(2, 2)[:4], *_REQUESTS}, "slow": {"demand ALIVE 0", "ALIVE 0"}}

KILLS = ["source killed", "destination killed"]
STOPS = {"source stands for 2 s": ("source", 2), "destination stands for 2 s": ("destination", 2),
         "source stands for 13 s": ("source", 13), "destination stands for 13 s": ("destination", 13)}
# These take longer than a connection may be silent.
LONG = {"black hole", "its connection silent", "source stands for 13 s", "destination stands for 13 s"}


class Case:
    def __init__(self, mode, cpus, way, place, harm):
        self.mode, self.cpus, self.way, self.place, self.harm = mode, cpus, way, place, harm
        self.name = f"{mode}, {cpus} cpus: {harm}, {place} {way}"
        # Has RUN been written when it happens? Has it arrived? Does the source know that it runs there?
        there, back = PLACES[mode]["there"], PLACES[mode]["back"]
        at = (there if way == "there" else back).index(place)
        self.written = at >= there.index("RUN 0") if way == "there" else at > back.index("READY 0")
        self.arrived = at > there.index("RUN 0") if way == "there" else at > back.index("READY 0")
        self.known = at > there.index("RUN 0") if way == "there" else at > back.index("ACK 0")
        # It may: a demand on the other connection says so too, and can be there before ACK.
        self.may_be_known = place == "ACK 0" and mode in ("post-copy", "hybrid")
        # Are pages still missing there?
        self.missing = mode != "pre-copy" and self.arrived and place != "END 0"
        # Pages of post-copy come before RUN or behind it, as long as it takes to load the state there.
        self.may_be_ahead = way == "there" and mode != "pre-copy" and self.known and \
            place.startswith(("ROUND", "PAGES"))
        self.ahead = False

    def happened(self, before_run):
        """RUN may be right behind, or may never come."""
        if self.may_be_ahead and before_run:
            self.ahead = True
            self.written = self.arrived = self.known = self.missing = False

    def options(self):
        """What `ferry migrate` is told. So slowly that the guest demands enough of its pages before they come."""
        options = MODES[self.mode]
        return [*options[:-2], *at_rate("30M")] if self.place.startswith("demand") and options[-1].endswith("00M") else options

    def expected(self):
        if self.ahead:
            if self.harm in KILLS:
                return {"died with its source", "lost: pages died with the source"} if self.harm == "source killed" \
                    else {"kept", "in doubt, taken back"}
            return {"moved"} if self.harm in HARMLESS else {"moved", "kept"}
        if self.harm == "source killed":
            if not self.arrived:
                return {"died with its source"}
            return {"lost: pages died with the source"} if self.missing else {"moved"}
        if self.harm == "destination killed":
            if not self.written:
                return {"kept"}
            if self.known:
                return {"died with the destination"}
            return {"in doubt, taken back", *(["died with the destination"] if self.may_be_known else [])}
        if self.harm in HARMLESS or self.harm in STOPS and STOPS[self.harm][1] < 10:
            return {"moved"}
        if self.written:
            return {"moved"}
        # READY comes in, or is known to be lost.
        # While a machine is built there is more patience, and who stands may have had his last word.
        open_end = self.place in ("READY 0", "DEVICE 0") or self.harm in STOPS
        return {"moved", "kept"} if open_end else {"kept"}


def all_cases():
    """Each harm to each frame. The number of processors goes with the mode, and changes with the harm."""
    harms = [*HARM, *KILLS, *STOPS]
    for number, harm in enumerate(harms):
        for index, mode in enumerate(MODES):
            cpus = (1, 2, 4)[(number + index) % 3]
            for way in ("there", "back"):
                for place in PLACES[mode][way]:
                    if place in ONLY.get(mode, [place]):
                        yield Case(mode, cpus, way, place, harm)
    for harm in HARM_ONE:
        for index, mode in enumerate(MODES):
            for way in ("there", "back"):
                for place in PLACES[mode][way]:
                    if place.startswith("demand"):
                        yield Case(mode, (1, 2, 4)[index % 3], way, place, harm)


class Killer:
    """Does something to one of the two processes when the frame is there."""

    def __init__(self, harm, source, there):
        self.process = source if harm.startswith("source") else there
        self.seconds = STOPS[harm][1] if harm in STOPS else None

    def __call__(self, link, frame, send):
        if self.seconds is None:
            self.process.kill()
            return True
        os.kill(self.process.pid, signal.SIGSTOP)
        # What stands does not read either: passing on would stop here, too.
        threading.Timer(self.seconds, os.kill, (self.process.pid, signal.SIGCONT)).start()
        return False


def _ends(machine, seconds):
    try:
        machine.child.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _kept(s, case, there):
    s.owner.passes()
    if case.way == "there" and case.place == "HELLO 0" and not _ends(there, 6 if case.harm in STOPS else 0):
        # Of this source it has never heard. (Who stands for 13 s hears of it after the source has given up.)
        s.migrate(there.address, "--downtime", "30s")
        s.went(there)
        return "kept"
    # It ends by itself, and has never run.
    check(there.wait(20) == 1, f"the destination ended otherwise{there.tail()}")
    check(not there.text, f"it ran there, too{there.tail()}")
    s.move("--downtime", "30s")
    return "kept"


def _after_kill_of_source(s, case, there, mover):
    check(mover.wait(30) == 26, f"the mover{mover.tail()}")
    s.trail = b""
    old, s.owner = s.owner, None
    if case.expected() == {"moved"}:
        there.passes()
        s.owner = there
        return "moved"
    if case.arrived:
        # It goes on until it needs one of them: it waits, and takes nothing else for it.
        time.sleep(0.3)
        check(b"WRONG" not in there.text, there.tail())
        check(there.child.poll() is None, f"it ended{there.tail()}")
        return "lost: pages died with the source"
    if case.ahead:
        time.sleep(0.5)
        if there.text:
            return "lost: pages died with the source"
    there.is_still(0.2)
    check(not there.text, f"it runs without RUN{there.tail()}{old.tail()}")
    # Of HELLO it has heard nothing; one that has said READY waits for minutes: RUN may be on its way.
    if not case.ahead and \
            (case.way, case.place) not in (("there", "HELLO 0"), ("there", "RUN 0"), ("back", "READY 0")):
        check(there.wait(20) == 1, f"the destination ended otherwise{there.tail()}")
    return "died with its source"


def _in_doubt(mover):
    """Whether RUN was said: else it ends."""
    end = time.monotonic() + 60
    while mover.child.poll() is None and time.monotonic() < end:
        if b'"phase":"paused"' in mover.text:
            return True
        time.sleep(0.01)
    return False


def _after_kill_of_destination(s, case, mover):
    if case.ahead and not case.written:
        case.written = _in_doubt(mover)
    if not case.written:
        check(mover.wait(60) in (20, 22), f"the mover{mover.tail()}")
        s.owner.passes()
        s.move("--downtime", "30s")
        return "kept"
    if case.known and case.mode == "pre-copy" or case.place == "END 0":
        check(mover.wait(60) == 0, f"the mover{mover.tail()}")
        check(s.owner.wait(30) == 0, s.owner.tail())
        s.owner = None
        return "died with the destination"
    mover.expect(r'"phase":"paused"', 60)
    s.owner.is_still()
    code, _, err = ferry("migrate-control", s.owner.name, "cancel", env=s.env)
    check(code == 1 and "too late" in err, f"cancel: {code} {err}")
    code, _, err = ferry("migrate-control", "--force", s.owner.name, "cancel", env=s.env)
    if case.known or case.may_be_known and "the guest runs at" in err:
        check(code == 1, f"a guest whose pages are newer elsewhere was taken back: {code} {err}")
        s.owner = None
        return "died with the destination"
    check(code == 0 and mover.wait(30) == 22, f"force: {code} {err}{mover.tail()}")
    s.owner.passes()
    s.trail = b""
    s.move("--downtime", "30s")
    return "in doubt, taken back"


def _run(s, case):
    there = s.receiver()
    harm = HARM.get(case.harm) or HARM_ONE.get(case.harm) or Killer(case.harm, s.owner, there)
    link = Link(s.path(f"l{s.count}"), there.address[5:], case.way, case.place, harm, case.mode == "one connection")
    try:
        mover = s.mover(link.address, *case.options())
        if case.harm in KILLS:
            end = time.monotonic() + 30
            while not link.done and mover.child.poll() is None and time.monotonic() < end:
                time.sleep(0.005)
            if not link.done:
                return "not reached"
            case.happened(link.before_run)
            if case.harm == "source killed":
                return _after_kill_of_source(s, case, there, mover)
            return _after_kill_of_destination(s, case, mover)
        code = mover.wait(90)
        if not link.done:
            return "not reached"
        case.happened(link.before_run)
        if code == 0:
            s.went(there)
            return "moved"
        check(code in (20, 22), f"the mover ended with {code}{mover.tail()}{s.owner.tail()}{there.tail()}")
        return _kept(s, case, there)
    finally:
        link.close()


class Runner:
    """Cases one after the other, in one guest as long as it lives."""

    def __init__(self):
        self.session, self.kind = None, None

    def run(self, case):
        """(outcome, whether it is right, text). How many pages a guest demands is its own affair: a fault in one of
        them that does not come is waited for in two more moves."""
        for _ in range(3):
            outcome, good, text = self._once(case)
            if outcome != "not reached":
                break
        return outcome, good, text

    def _once(self, case):
        try:
            kind = (case.cpus, GUESTS.get(case.mode, {}), case.mode in SAME_FILES)
            if self.kind != kind or not self.session or not self.session.owner:
                self.close()
                self.session, self.kind = Session(case.cpus, **kind[1]), kind
                self.session.start()
                if not kind[2]:
                    os.unlink(self.session.image)
            outcome = _run(self.session, case)
            if outcome == "not reached":
                self.close()
                return outcome, False, ""
            self.session.tidy()
            good = outcome in case.expected()
            return outcome, good, "" if good else f"expected: {' or '.join(sorted(case.expected()))}"
        except (Failure, OSError, ValueError, subprocess.SubprocessError) as failure:
            # One that goes wrong in whatever way is not the end of the others.
            self.close()
            return "WRONG", False, f"{type(failure).__name__}: {failure}"

    def close(self):
        if self.session:
            self.session.__exit__()
        self.session = None
