"""The verbs to live with a machine: in the background and in the foreground, through its control socket.

The guests are a few instructions in a multiboot kernel, so that each case takes seconds.
"""
import contextlib
import json
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

from ferrytest import (EXIT_POWEROFF, EXIT_SIGNAL, EXIT_START, EXIT_USAGE, FERRY, SCALE, TOP, Process, Skip, check, each,
                       ferry, initramfs, kernel, multiboot_elf, needs_ferry)

EXIT_KILLED, EXIT_LOST, EXIT_HARD = 8, 12, 14

WAIT_INPUT = bytes.fromhex("66bafd03 ec a801 74fb")
WAIT_ROOM = bytes.fromhex("66bafd03 ec a820 74fb")
DATA = bytes.fromhex("66baf803")  # mov dx, 3f8h
FOREVER = bytes.fromhex("f4 ebfd")  # hlt, for ever
# ACPI: polls the power button's status bit, then switches off.
BUTTON = bytes.fromhex("66ba0006 66ed f6c401 74f5 66ba0406 66b80034 66ef") + FOREVER


def send_byte(register_move):
    return WAIT_ROOM + DATA + register_move + b"\xee"


def say(text):
    return b"".join(send_byte(b"\xb0" + bytes([c])) for c in text.encode())


def loop(body):
    return body + b"\xe9" + struct.pack("<i", -len(body) - 5)


# Sends back what it receives.
ECHO = loop(WAIT_INPUT + DATA + bytes.fromhex("ec 88c4") + send_byte(bytes.fromhex("88e0")))
# For each byte that it receives: the ACPI timer, 4 bytes. mov dx, 608h; in eax, dx; mov ebx, eax
CLOCK = loop(WAIT_INPUT + DATA + bytes.fromhex("ec 66ba0806 ed 89c3") +
             b"".join(send_byte(bytes.fromhex("88d8")) + bytes.fromhex("c1eb08") for _ in range(4)))
# Sends a counter's low byte for ever. inc ecx
FLOOD = loop(send_byte(bytes.fromhex("88c8")) + b"\x41")
PM_HZ = 3579545


def wait_for(condition, what, timeout=20):
    end = time.monotonic() + timeout * SCALE
    while not condition():
        check(time.monotonic() < end, what)
        time.sleep(0.02)


class Place:
    """A runtime folder of its own; nothing runs in it afterwards."""

    def __init__(self, runtime="run"):
        self.top = tempfile.mkdtemp(prefix="ferry-verbs-")
        self.runtime = os.path.join(self.top, runtime)
        os.makedirs(self.runtime)
        self.env = {"FERRY_RUNTIME_DIR": self.runtime}

    def path(self, name):
        return os.path.join(self.top, name)

    def kernel(self, code=FOREVER):
        path = self.path(f"kernel-{hash(code) & 0xffffff:x}")
        return path if os.path.exists(path) else multiboot_elf(code, path)

    def ferry(self, *args, code=0, timeout=60):
        """Runs the command; what it printed. code: what it must return (None: any)."""
        got, out, err = ferry(*args, env=self.env, timeout=timeout)
        check(code is None or got == code, f"{args}: exit code {got} instead of {code}: {out} {err}")
        return out, err

    def background(self, name, code=FOREVER, *args):
        out, err = self.ferry("run", "--detach", "-m", "16M", "--name", name, *args, self.kernel(code))
        check(out == name + "\n" and not err, f"{out!r} {err!r}")
        return self.info(name)["pid"]

    def start(self, *args, **options):
        return Process([FERRY, *args], env=self.env, **options)

    def info(self, name):
        return json.loads(self.ferry("info", "--json", name)[0])

    def state(self, name):
        return self.info(name)["state"]

    def names(self, *args):
        return self.ferry("ps", "--names", *args)[0].split()

    def files(self):
        return sorted(os.listdir(self.runtime))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for name in ferry("ps", "--names", env=self.env)[1].split():
            ferry("kill", name, env=self.env)
        shutil.rmtree(self.top, ignore_errors=True)


class Control:
    """A client of the control socket that is written anew, so that it trusts nothing of ferry's."""

    def __init__(self, place, name, negotiate=True):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20 * SCALE)
        folder = os.open(place.runtime, os.O_PATH)
        self.sock.connect(f"/proc/self/fd/{folder}/{name}.sock")
        os.close(folder)
        self.buffer = b""
        self.events = []
        check("QMP" in self.read(), "no greeting")
        if negotiate:
            check(self.ask("qmp_capabilities") == {}, "qmp_capabilities")

    def read(self):
        """The next message; None: closed."""
        while b"\n" not in self.buffer:
            data = self.sock.recv(65536)
            if not data:
                return None
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return json.loads(line)

    def send(self, command, **arguments):
        message = {"execute": command}
        if arguments:
            message["arguments"] = arguments
        self.sock.sendall(json.dumps(message).encode() + b"\r\n")

    def answer(self):
        while True:
            message = self.read()
            check(message is not None, "closed")
            if "event" not in message:
                check("return" in message, message)
                return message["return"]
            self.events.append(message["event"])

    def ask(self, command, **arguments):
        self.send(command, **arguments)
        return self.answer()

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


# ---- from start to end ------------------------------------------------------------------------------


@needs_ferry
def test_life_cycle():
    """Started, listed, described, ended, waited for; its name is free again."""
    with Place() as place:
        check(place.names() == [] and place.ferry("ps") == ("", ""), "an empty list")
        pid = place.background("one", FOREVER, "-c", "2", "--append", "words \xe9")
        check(place.files() == ["one+serial0.log", "one.lock", "one.log", "one.sock"], place.files())
        for file in place.files():
            check(os.stat(os.path.join(place.runtime, file)).st_mode & 0o777 == 0o600, file)
        info = place.info("one")
        config = info["config"]
        check((info["name"], info["state"], info["engine"], info["resets"]) == ("one", "running", "soft", 0), info)
        check(info["engine-reason"] and info["uptime"] >= 0 and info["guest-time"] >= 0, info)
        check(config["cpus"] == 2 and config["memory"] == 16 << 20 and config["append"] == "words \xe9", config)
        check(config["serial"] == ["attach"] and config["reset_limit"] is None and config["disk"] == [], config)
        listed = json.loads(place.ferry("ps", "--json")[0])
        check([m["pid"] for m in listed] == [pid], listed)
        check(re.search(rf"^one +{pid} +running .* 16M +soft$", place.ferry("ps")[0], re.M), place.ferry("ps")[0])
        stats = json.loads(place.ferry("stats", "--json")[0])
        check(len(stats["vcpus"]) == 2 and stats["mmu"]["faults"]["fixed"] > 0, stats)
        check("state: running\n" in place.ferry("info", "one")[0], "info in words")
        waiting = place.start("wait", "one", terminal=False)
        place.ferry("kill", "one")
        check(waiting.wait(20) == EXIT_KILLED, "exit code of wait")
        waiting.close()
        check(place.files() == ["one+serial0.log", "one.end", "one.log"], place.files())
        check(place.names() == [] and place.names("--all") == ["one"], "ps --all")
        check("ended by its user" in place.ferry("wait", "one", code=EXIT_KILLED)[1], "wait afterwards")
        check("ended" in place.ferry("info", "one", code=EXIT_START)[1], "info of one that has ended")
        place.background("one")
        check("one.end" not in place.files(), "the record of the machine before")


@needs_ferry
def test_fifty():
    """Fifty in the background: all are listed, all end."""
    with Place() as place:
        names = [f"m{n:02d}" for n in range(50)]
        kernel = place.kernel()
        for some in (names[n:n + 5] for n in range(0, 50, 5)):
            starts = [subprocess.Popen([FERRY, "run", "-d", "-m", "4M", "--name", n, kernel], stdout=subprocess.PIPE,
                                       text=True, env=dict(os.environ, **place.env)) for n in some]
            check([s.communicate(timeout=60 * SCALE)[0] for s in starts] == [n + "\n" for n in some], "names")
        listed = lambda: json.loads(place.ferry("ps", "--json")[0])
        check([m["name"] for m in listed()] == names, listed())
        wait_for(lambda: all(m["state"] == "running" for m in listed()), "not all run")
        for name in names[::10]:
            os.kill(place.info(name)["pid"], signal.SIGKILL)
        wait_for(lambda: len(place.names()) == 45, "the killed ones are still listed")
        ends = [subprocess.Popen([FERRY, "stop", "--timeout", "0", n], stderr=subprocess.DEVNULL,
                                 env=dict(os.environ, **place.env)) for n in place.names()]
        check({e.wait(60 * SCALE) for e in ends} == {EXIT_HARD}, "exit codes")
        check(place.names() == [] and len(place.names("--all")) == 50, "all have ended")
        check({f.rpartition(".")[2] for f in place.files()} == {"log", "end"}, place.files())


@needs_ferry
def test_stop():
    """The power button; the hard way for a guest that ignores it; a paused one is resumed."""
    with Place() as place:
        place.background("good", BUTTON)
        check(place.ferry("stop", "good") == ("", ""), "words")
        check(place.ferry("wait", "good") == ("", ""), "the guest switched itself off")
        place.background("paused", BUTTON)
        place.ferry("pause", "paused")
        check("resumed" in place.ferry("stop")[1], "it does not say that it was resumed")
        place.background("deaf")
        start = time.monotonic()
        out, err = place.ferry("stop", "--timeout", "1", "deaf", code=EXIT_HARD)
        check("hard way" in err and time.monotonic() - start >= 1, err)
        check(place.names() == [], "still there")
        place.ferry("wait", "deaf", code=EXIT_KILLED)
        # A process that does not answer is killed.
        pid = place.background("stuck")
        os.kill(pid, signal.SIGSTOP)
        check("not answering" in place.ferry("ps")[0], "ps of a stopped process")
        check("killed" in place.ferry("kill", "stuck")[1], "it does not say that it was killed")
        place.ferry("wait", "stuck", code=EXIT_LOST)
        check(place.names() == [] and "stuck.sock" not in place.files(), place.files())


@needs_ferry
def test_stop_linux():
    """A Linux guest whose acpid waits for the power button."""
    with Place() as place:
        place.ferry("run", "-d", "--name", "linux", "-m", "128M", "--initrd", initramfs("button"), "--append",
                    "console=ttyS0 quiet ferry.test=button.sh", kernel())
        with place.start("console", "linux", terminal=False) as console:
            console.expect("waiting for the button", 120)
            check(place.ferry("stop", "--timeout", "60", timeout=90) == ("", ""), "words")
            console.expect("the button was pressed", 5)
        place.ferry("wait", "linux")


def has_socket(pid):
    folder = f"/proc/{pid}/fd"
    for fd in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(f"{folder}/{fd}").startswith("socket:"):
                return True
    return False


@needs_ferry
@each(background=[True, False], how=["SIGKILL", "SIGSEGV"])
def test_kill_9(background, how):
    """kill -9, or a crash, leaves nothing that the next command does not clean up; who waits is told."""
    with Place() as place:
        if background:
            pid = place.background("one")
        else:
            machine = place.start("run", "-m", "16M", "--name", "one", place.kernel())
            pid = machine.pid
            wait_for(lambda: "one" in place.names(), "it is not listed")
            check(place.state("one") == "running", "a machine that has just started")
        with place.start("wait", "one", terminal=False) as waiting, Control(place, "one") as control:
            control.ask("query-status")
            wait_for(lambda: has_socket(waiting.pid), "nobody waits")
            os.kill(pid, getattr(signal, how))
            check(waiting.wait(20) == EXIT_LOST, f"wait: {waiting.stderr()}")
            check(control.read() is None, "the connection")
        check(place.ferry("ps") == ("", ""), "it is still listed")
        check(place.files() == (["one+serial0.log", "one.end", "one.log"] if background else []), place.files())
        if background:
            check("without saying" in place.ferry("ps", "-a")[0], "ps --all")
            check(how == "SIGKILL" or "internal error" in place.ferry("logs", "one")[0], "the last words")
        else:
            machine.close()


@needs_ferry
def test_bad_starts():
    """With --detach the command prints what is wrong, with its exit code, and nothing is left."""
    with Place() as place:
        with open(place.path("bad"), "wb") as f:
            f.write(b"not a kernel" * 100)
        for args, code, word in ((["bad"], EXIT_START, "bad"), (["-m", "1000000G", "bad"], EXIT_USAGE, "256G"),
                                 (["--serial", "stdio", "bad"], EXIT_USAGE, "attach"), ([], EXIT_USAGE, "kernel"),
                                 (["--engine", "kvm", place.kernel()], EXIT_START, "kvm"),
                                 (["--serial", f"socket={place.top}/no/x", place.kernel()], EXIT_START, "no")):
            if word == "kvm" and json.loads(ferry("doctor", "--json")[1])["engine"] == "kvm":
                continue
            args = [place.path("bad") if a == "bad" else a for a in args]
            out, err = place.ferry("run", "--detach", *args, code=code)
            check(not out and err.startswith("ferry: ") and err.count("\n") == 1 and word in err, f"{args}: {err!r}")
            check(place.files() == [], place.files())
        pid = place.background("one")
        err = place.ferry("run", "-d", "-m", "16M", "--name", "one", place.kernel(), code=EXIT_START)[1]
        check(f"process {pid}" in err, err)
        check(place.state("one") == "running", "the first one")


@needs_ferry
def test_names():
    """Which machine is meant: the only one; the nearest is suggested; several are listed."""
    with Place() as place:
        check("no machine runs" in place.ferry("info", code=EXIT_START)[1], "none")
        place.background("alpha")
        check(json.loads(place.ferry("info", "--json")[0])["name"] == "alpha", "the only one")
        for verb in ("info", "stats", "pause", "resume", "reset", "stop", "kill", "wait", "console", "logs"):
            err = place.ferry(verb, "alhpa", code=EXIT_START)[1]
            check("'alhpa'" in err and "'alpha'" in err and err.count("\n") == 1, f"{verb}: {err}")
        place.background("beta")
        err = place.ferry("stop", code=EXIT_START)[1]
        check("alpha, beta" in err, err)
        check("no machine 'zzzzzz' runs" in place.ferry("kill", "zzzzzz", code=EXIT_START)[1], "unknown")
        place.ferry("kill", "../x", code=EXIT_USAGE)
        if shutil.which("bash"):
            script = ferry("completion", "bash")[1] + (
                f't() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); COMPREPLY=(); _ferry; echo "${{COMPREPLY[*]}}"; }}\n'
                f"t {FERRY} stop ''; t {FERRY} info be\n")
            out = subprocess.run(["bash", "-c", script], capture_output=True, text=True,
                                 env=dict(os.environ, **place.env)).stdout
            check(out == "alpha beta\nbeta\n", f"completion: {out!r}")


@needs_ferry
def test_long_path():
    """A runtime folder whose path is too long for a socket's address."""
    with Place("/".join(["a" * 60] * 5)) as place:
        place.background("one", BUTTON)
        check(place.state("one") == "running", "info")
        place.ferry("stop", "one")


# ---- background and foreground ----------------------------------------------------------------------


@needs_ferry
def test_daemon():
    """One in the background: a session of its own, no terminal, nothing of its parent's held; it outlives both."""
    with Place() as place:
        with place.start("run", "-d", "-m", "16M", "--name", "one", place.kernel(ECHO)) as parent:
            check(parent.wait(30) == 0, parent.stderr())
            check(parent.stdout().replace("\r", "") == "one\n" and not parent.stderr(), parent.tail())
            pid = place.info("one")["pid"]
            with open(f"/proc/{pid}/stat") as f:
                fields = f.read().rpartition(")")[2].split()
            check(int(fields[3]) not in (pid, parent.pid) and int(fields[4]) == 0, f"session and terminal: {fields}")
            targets = [os.readlink(f"/proc/{pid}/fd/{n}") for n in range(3)]
            check(targets == ["/dev/null"] * 2 + [os.path.join(place.runtime, "one.log")], targets)
            parent.hang_up()
            parent.kill()
        time.sleep(0.2)
        check(place.state("one") == "running", "it ended with its terminal")
        os.kill(pid, signal.SIGTERM)
        place.ferry("wait", "one", code=EXIT_SIGNAL + signal.SIGTERM)


@needs_ferry
def test_wait_while_it_ends():
    """A machine that does not listen any more and is not gone: it waits for who reads its last words."""
    with Place() as place:
        pid = place.background("one", ECHO, "--serial", "pty")
        with open(os.path.join(place.runtime, "one.log")) as f:
            line = os.open(re.search(r"/dev/pts/\d+", f.read()).group(0), os.O_RDWR | os.O_NOCTTY)
        os.write(line, b"unread")
        check(select.select([line], [], [], 20 * SCALE)[0], "no echo")
        begun = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: "one.sock" not in place.files(), "it still listens")
        # It waits for two seconds.
        check("one.lock" in place.files() or time.monotonic() - begun > 1.5, "it is gone: nothing was tried")
        place.ferry("wait", "one", code=EXIT_SIGNAL + signal.SIGTERM)
        os.close(line)


def start_script(place, script):
    """A shell that leads a session without a terminal, as cron's."""
    return subprocess.Popen(["bash", "-c", script], start_new_session=True, stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ, **place.env))


@needs_ferry
@each(how=["plain", "setsid", "nohup", "launcher"])
def test_parent_goes(how):
    """A machine in the foreground ends when the script that started it is killed; not after nohup, and not if
    its parent ended at once, as one that only launches does."""
    prefix = {"plain": "", "setsid": "setsid", "nohup": "nohup", "launcher": ""}[how]
    with Place() as place:
        command = f"{prefix} {FERRY} run -q -m 16M --name one {place.kernel()}"
        script = start_script(place, f"({command} &)\nsleep 1000" if how == "launcher" else f"{command}\nsleep 1000\n:")
        try:
            wait_for(lambda: "one" in place.names(), "it does not run")
            # From here on it knows of its parent, and one that has lived for a second with it counts.
            check(place.state("one") == "running", "its state")
            time.sleep(1.2)
            script.kill()
            script.wait()
            if how in ("nohup", "launcher"):
                time.sleep(0.5)
                check(place.state("one") == "running", "it ended")
            else:
                wait_for(lambda: place.files() == [], f"it still runs: {place.files()}")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(script.pid, signal.SIGKILL)
            script.wait()


# ---- pause, resume, reset ---------------------------------------------------------------------------


@needs_ferry
def test_pause():
    """A paused guest's clock stands still, its input waits; commands that come twice do no harm."""
    with Place() as place, contextlib.ExitStack() as stack:
        place.background("one", CLOCK)
        with Control(place, "one") as control:
            check(control.ask("ferry-console") == {"line": "serial0"}, "ferry-console")
            line = control.sock

            def answer():
                data = b""
                while len(data) < 4:
                    data += line.recv(4 - len(data))
                return struct.unpack("<I", data)[0]

            def clock():
                """The guest's, and the host's before and after."""
                before = time.monotonic()
                line.sendall(b"?")
                return answer(), before, time.monotonic()

            control2 = stack.enter_context(Control(place, "one"))
            ticks, host, _ = clock()
            place.ferry("pause", "one")
            place.ferry("pause", "one")
            check(place.state("one") == "paused", "state")
            check(control2.ask("query-status") == {"status": "paused", "running": False, "singlestep": False}, "status")
            before = place.info("one")["guest-time"]
            time.sleep(2)
            check(place.info("one")["guest-time"] == before, "guest time goes on")
            line.sendall(b"?")
            line.settimeout(0.3)
            try:
                check(not line.recv(1), "the guest answers while it is paused")
            except TimeoutError:
                pass
            line.settimeout(20)
            place.ferry("resume", "one")
            place.ferry("resume", "one")
            check(place.state("one") == "running", "state")
            answer()
            later, _, now = clock()
            passed, elapsed = ((later - ticks) & 0xFFFFFFFF) / PM_HZ, now - host
            check(0 < passed < elapsed - 1.9, f"{passed:.3f} s passed for the guest, {elapsed:.3f} s here")
            check(control2.events == ["STOP"], control2.events)
            control2.ask("query-name")
            check(control2.events == ["STOP", "RESUME"], control2.events)


@needs_ferry
def test_reset():
    """The reset button starts the kernel again; a paused machine stays paused; --reset-limit does not count it."""
    with Place() as place:
        place.background("one", say("boot ") + ECHO, "--reset-limit", "0")
        with place.start("console", "one") as console, Control(place, "one") as control:
            console.expect("boot ")
            place.ferry("reset", "one")
            console.expect("boot ")
            place.ferry("pause", "one")
            place.ferry("reset", "one")
            wait_for(lambda: place.info("one")["resets"] == 2, "resets")
            check(place.state("one") == "paused", "state")
            time.sleep(0.3)
            check(console.stdout().count("boot") == 2, "it runs while paused")
            place.ferry("resume", "one")
            console.expect("boot ")
            control.ask("query-name")
            check(control.events == ["RESET", "STOP", "RESET", "RESUME"], control.events)
            place.ferry("kill", "one")
            check(console.wait(20) == 0 and "has ended" in console.stderr(), console.tail())


# ---- consoles and logs ------------------------------------------------------------------------------


@needs_ferry
def test_console():
    """Recent output at first, keys to the guest, C-a x leaves it; several at once; pipes."""
    with Place() as place:
        place.background("one", say("hello ") + ECHO)
        with place.start("console", "one") as a, place.start("console") as b:
            a.expect("hello ")
            b.expect("hello ")
            a.send("abc\x03\x01\x01")
            for each_one in (a, b):
                each_one.expect("abc\x03\x01")
            a.send("\x01x")
            check(a.wait(20) == 0 and "left" in a.stderr(), a.tail())
            b.send("d")
            b.expect("d")
            check("dropped" not in b.stdout(), b.stdout())
        code, out, _ = ferry("console", "--line", "serial1", env=place.env)
        check(code == EXIT_START, "a line that is not there")
        with place.start("console", "one", terminal=False) as pipe:
            pipe.expect("hello abc\x03\x01d")
            pipe.send("piped")
            pipe.expect("piped")
        machine = place.start("run", "-m", "16M", "--name", "two", "--serial", "none", place.kernel())
        with machine:
            wait_for(lambda: "two" in place.names(), "it does not run")
            err = place.ferry("console", "two", code=EXIT_START)[1]
            check("attach" in err, err)


def size(log):
    """Of a file that is there but for the moment in which it is turned over."""
    while True:
        with contextlib.suppress(FileNotFoundError):
            return os.path.getsize(log)


@needs_ferry
def test_slow_console():
    """A viewer that never reads does not hold up the guest, and does not keep others from seeing."""
    with Place() as place:
        place.background("one", FLOOD)
        with Control(place, "one") as stuck:
            stuck.ask("ferry-console")
            log = os.path.join(place.runtime, "one+serial0.log")
            # Far more than the socket and the ring hold; the log is turned over.
            wait_for(lambda: os.path.exists(log + ".1"), "the guest stands still", 60)
            with place.start("console", "one", terminal=False) as other:
                wait_for(lambda: len(other.text) > 100000, "another viewer sees nothing")
            sizes = [size(f) for f in (log, log + ".1")]
            check(max(sizes) < 700000, f"logs of {sizes} bytes")
            stuck.sock.settimeout(20)
            data = b""
            while b"read too slowly" not in data:
                more = stuck.sock.recv(65536)
                check(more and len(data) < 1 << 24, "no word about what was left out")
                data = data[-100:] + more
        check(place.state("one") == "running", "state")


@needs_ferry
def test_logs():
    """Messages and output, while it runs and afterwards."""
    with Place() as place:
        with place.start("run", "-m", "16M", "--name", "front", "--serial", "none", place.kernel()):
            wait_for(lambda: "front" in place.names(), "it does not run")
            check("--detach" in place.ferry("logs", "front", code=EXIT_START)[1], "logs of one in the foreground")
        place.background("one", say("first\n") + WAIT_INPUT + say("second\n") + FOREVER)
        with place.start("logs", "--follow", "--console", "one", terminal=False) as follow:
            follow.expect("first\n")
            with Control(place, "one") as control:
                control.ask("ferry-console")
                control.sock.sendall(b"x")
                follow.expect("second\n")
            place.ferry("kill", "one")
            check(follow.wait(20) == 0 and follow.stdout() == "first\nsecond\n", follow.tail())
        check(place.ferry("logs", "--console", "one")[0] == "first\nsecond\n", "the console's log")
        ours = place.ferry("logs", "--ferry", "one")[0]
        check(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ferry: engine soft: ", ours), ours)
        both = place.ferry("logs", "one")[0]
        check(both.startswith(ours) and both.endswith("==> serial0 <==\nfirst\nsecond\n"), both)


# ---- the control socket -----------------------------------------------------------------------------


@needs_ferry
def test_protocol():
    """The document's table is what query-commands says; events come in order; deferred answers."""
    with open(os.path.join(TOP, "docs/control-protocol.md")) as f:
        table = f.read().partition("## Commands")[2].partition("\n## ")[0]
        rows = re.findall(r"^\| `([\w-]+)` \|([^|]*)\| (.*) \|$", table, re.M)
    with Place() as place:
        place.background("one", BUTTON)
        with Control(place, "one") as a, Control(place, "one") as b:
            said = [(c["name"], " ".join(f"`{x['name']}{'?' if x['optional'] else ''}`" for x in c["arguments"]),
                     c["help"]) for c in a.ask("query-commands")]
            check(said == [(name, args.strip(), text) for name, args, text in rows],
                  f"the document says something else: {said}")
            cpus = a.ask("query-cpus-fast")
            pid = place.info("one")["pid"]
            check([c["cpu-index"] for c in cpus] == [0] and os.path.isdir(f"/proc/{pid}/task/{cpus[0]['thread-id']}"),
                  cpus)
            check(a.ask("query-name") == {"name": "one"}, "query-name")
            a.send("ferry-wait")
            # A client that goes before its answer comes.
            gone = Control(place, "one")
            gone.send("ferry-wait")
            gone.close()
            b.ask("stop")
            b.ask("cont")
            b.ask("system_reset")
            b.ask("system_powerdown")
            check(a.answer() == {"exit-code": EXIT_POWEROFF, "reason": "the guest switched itself off"}, "ferry-wait")
            check(a.read() is None, "a message behind the last")
            expected = ["STOP", "RESUME", "RESET", "POWERDOWN", "SHUTDOWN"]
            check(sorted(a.events) == sorted(expected) and a.events[-1] == "SHUTDOWN", a.events)


@needs_ferry
def test_hostile_clients():
    """Garbage, half messages, huge lines, a thousand connections: the machine and its commands go on."""
    with Place() as place:
        pid = place.background("one", ECHO)
        before = len(os.listdir(f"/proc/{pid}/fd"))
        for data in (b"\0" * 1000, b"GET / HTTP/1.0\r\n\r\n", b'{"execute":', b"[" * 70000, b"{" * 65000 + b"\n",
                     os.urandom(200000), b'{"execute":"ferry-wait"}\n' * 3000):
            with Control(place, "one", negotiate=len(data) % 2 == 0) as client:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    client.sock.sendall(data)
            check(place.state("one") == "running", f"after {data[:20]}")
        many = []
        for _ in range(1000):
            sock = socket.socket(socket.AF_UNIX)
            sock.setblocking(False)
            try:
                sock.connect(os.path.join(place.runtime, "one.sock"))
            except BlockingIOError:
                time.sleep(0.01)
            many.append(sock)
        fds = len(os.listdir(f"/proc/{pid}/fd"))
        check(fds < before + 100, f"{fds} descriptors, {before} before")
        check(place.state("one") == "running", "info while a thousand are connected")
        place.ferry("pause", "one")
        place.ferry("resume", "one")
        for sock in many:
            sock.close()
        wait_for(lambda: len(os.listdir(f"/proc/{pid}/fd")) <= before + 1, "descriptors are left")
        with Control(place, "one") as slow:
            # It asks for megabytes and reads nothing.
            slow.sock.setblocking(False)
            with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                while True:
                    slow.sock.send(b'{"execute":"query-commands"}\n' * 100)
            check(place.state("one") == "running", "beside a slow reader")


@needs_ferry
def test_other_user():
    """Another user is not served, even if the file's mode lets him connect; root is."""
    if os.geteuid():
        raise Skip("needs root, to be another user")
    with Place() as place:
        place.background("one")
        os.chmod(place.top, 0o755)
        os.chmod(place.runtime, 0o755)
        path = os.path.join(place.runtime, "one.sock")
        script = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(s.recv(999))"

        def other():
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)

        done = subprocess.run(["python3", "-c", script, path], preexec_fn=other, capture_output=True, text=True)
        check("PermissionError" in done.stderr, done)
        os.chmod(path, 0o666)
        done = subprocess.run(["python3", "-c", script, path], preexec_fn=other, capture_output=True, text=True)
        check("user and root" in done.stdout and "QMP" not in done.stdout, done)
