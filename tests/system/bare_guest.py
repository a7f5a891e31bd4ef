"""The bare guest that moves (tests/guest/x86/move), and the machines it is in: it checks itself, starts in no time,
and what it prints tells where it runs and that nothing of it was lost or came twice."""
import hashlib
import json
import os
import re
import shutil
import tempfile
import time

from ferrytest import BUILD, FERRY, SCALE, Process, at_rate, check, ferry

IMAGE = os.path.join(BUILD, "release", "guest", "x86", "move.elf")
# Ways to move it: what `ferry migrate` is told.
MODES = {"pre-copy": ["--downtime", "30s"],
         "post-copy": ["--postcopy", *at_rate("100M")],
         "hybrid": ["--downtime", "1ms", "--postcopy-after", "3", "--bandwidth", "200M"]}
TICK = re.compile(rb"^move: tick (\d+) pass (\d+) (.*)\r*\n", re.M)


class Machine(Process):
    """A ferry that has the guest, or waits for it."""

    def __init__(self, session, name, *command, through=()):
        self.session, self.name = session, name
        super().__init__([*through, FERRY, *command], terminal=False, env=session.env)

    def passes(self, more=2, seconds=60):
        """It goes on: each page has been checked once more, and nothing is wrong."""
        mark, first = len(self.text), None
        end = time.monotonic() + seconds * SCALE
        while True:
            check(b"WRONG" not in self.text, f"in {self.name}{self.tail()}")
            found = TICK.findall(self.text, mark)
            if found:
                first = first or int(found[0][1])
                if int(found[-1][1]) >= first + more:
                    return
            check(time.monotonic() < end and not self.ended, f"the guest in {self.name} does not go on{self.tail()}")
            with self.changed:
                self.changed.wait(0.2)

    def is_still(self, seconds=0.3):
        """It does not run, whoever has it."""
        time.sleep(0.2)  # what is in the pipe
        mark = len(self.text)
        time.sleep(seconds)
        check(len(self.text) == mark, f"the guest in {self.name} runs{self.tail()}")

    def crashes_are_seen(self, least):
        """Each of its threads, so many at least, lets the signals of a crash through: SIGILL, ABRT, BUS, FPE, SEGV."""
        tasks = os.listdir(f"/proc/{self.pid}/task")
        check(len(tasks) >= least, f"{len(tasks)} threads in {self.name}, not {least}")
        for task in tasks:
            try:
                with open(f"/proc/{self.pid}/task/{task}/status") as status:
                    text = status.read()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended meanwhile
            blocked = int(re.search(r"SigBlk:\s*(\w+)", text).group(1), 16)
            bad = [signo for signo in (4, 6, 7, 8, 11) if blocked >> signo - 1 & 1]
            check(not bad, f"{self.name}: {text.split()[1]} blocks the signals {bad}")

    def digest(self):
        """Of the guest's memory: it must be paused."""
        size = self.session.mib << 20
        with open(f"/proc/{self.pid}/maps") as maps:
            for line in maps:
                start, end = (int(x, 16) for x in line.split()[0].split("-"))
                if end - start == size and line.split()[1].startswith("rw"):
                    break
            else:
                check(False, f"no memory of {self.session.mib} MiB in {self.name}")
        with open(f"/proc/{self.pid}/mem", "rb") as memory:
            memory.seek(start)
            return hashlib.sha256(memory.read(size)).hexdigest()


class Session:
    """A folder for sockets and names, one guest after the other, and where it is: self.owner."""

    def __init__(self, cpus=1, mib=16, every=20, extra=(), append="", last=None):
        self.folder = tempfile.TemporaryDirectory(prefix="ferry-bare-")
        self.env = {"FERRY_RUNTIME_DIR": self.folder.name}
        self.cpus, self.mib, self.every, self.extra, self.append = cpus, mib, every, extra, append
        self.last = last or mib
        self.image = self.path("move.elf")  # a destination may find it
        self.machines, self.count, self.owner, self.trail = [], 0, None, b""

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def _new(self, kind, *command, **options):
        self.count += 1
        machine = Machine(self, f"{kind}{self.count}", *command, **options)
        self.machines.append(machine)
        return machine

    def start(self):
        """A fresh guest."""
        check(os.path.exists(IMAGE), f"{IMAGE} is not there: run `make guest-x86`")
        shutil.copy(IMAGE, self.image)
        append = f"cpus={self.cpus} last={self.last} every={self.every} {self.append}".strip()
        self.owner = self._new("m", "run", "--name", f"m{self.count + 1}", "-m", f"{self.mib}M", "-c", str(self.cpus),
                               "--append", append, *self.extra, self.image)
        self.trail = b""
        self.owner.passes(1)
        return self.owner

    def receiver(self, *options, address=None, through=()):
        """A ferry receive that listens; its address is .address."""
        name = f"m{self.count + 1}"
        machine = self._new("m", "receive", "--name", name, *options, address or "unix:" + self.path(name + ".s"),
                            through=through)
        machine.await_error("waiting for a guest")
        machine.address = re.search(r"guest at (\S+)", machine.stderr()).group(1)
        return machine

    def migrate(self, address, *options, code=0, timeout=120):
        """ferry migrate: the lines of --json."""
        got, out, err = ferry("migrate", "--json", *options, self.owner.name, address, env=self.env, timeout=timeout)
        check(code is None or got == code, f"migrate: exit code {got}, not {code}: {out[-600:]}{err}")
        self.code = got
        return [json.loads(line) for line in out.splitlines()]

    def mover(self, address, *options):
        """ferry migrate, while it goes on."""
        mover = Process([FERRY, "migrate", "--json", *options, self.owner.name, address], terminal=False, env=self.env)
        self.machines.append(mover)
        return mover

    def control(self, *command, code=0):
        got, out, err = ferry(*command, env=self.env)
        check(got == code, f"{command}: {got} {out}{err}")
        return out

    def went(self, there):
        """The guest is in that machine now: the old one has ended, each tick has come once, and it is right."""
        old = self.owner
        check(old.wait(30) == 0, f"the source ended otherwise{old.tail()}")
        self.owner = there
        there.passes()
        self.trail += bytes(old.text)
        both = (self.trail + bytes(there.text)).replace(b"\r", b"")
        check(b"WRONG" not in both, f"{there.tail()}")
        ticks = [int(t[0]) for t in TICK.findall(both)]
        check(ticks == list(range(ticks[0], ticks[0] + len(ticks))),
              f"ticks are lost, or came twice: {[a for a, b in zip(ticks, ticks[1:]) if b != a + 1]} {there.tail()}")

    def move(self, *options, receive=(), address=None):
        """One that nothing disturbs."""
        there = self.receiver(*receive, address=address)
        lines = self.migrate(there.address, *options)
        self.went(there)
        return lines

    def drop(self, machine):
        machine.close()
        self.machines.remove(machine)

    def tidy(self):
        """Only the one with the guest is kept."""
        for machine in [m for m in self.machines if m is not self.owner]:
            self.drop(machine)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for machine in self.machines:
            machine.close()
        self.folder.cleanup()
