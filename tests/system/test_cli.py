"""The command line: what is said about wrong input, exit codes, every way out, the serial back ends.

The guests are a few instructions in a multiboot kernel, so that each case takes a fraction of a second.
"""
import contextlib
import ctypes
import fcntl
import json
import os
import pty
import re
import resource
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import termios
import time

from ferrytest import (EXIT_POWEROFF, EXIT_RESET_LIMIT, EXIT_SIGNAL, EXIT_START, EXIT_USAGE, FERRY, SCALE, TOP, Failure,
                       Process, Skip, check, each, ferry, kernel, multiboot_elf, needs_ferry)

EXIT_KILLED = 8
PORT = ["--debug-exit", "0xf4"]

# mov dx, 3fdh; 1: in al, dx; test al, MASK; jz 1b
WAIT_INPUT = bytes.fromhex("66bafd03 ec a801 74fb")
WAIT_ROOM = bytes.fromhex("66bafd03 ec a820 74fb")
DATA = bytes.fromhex("66baf803")  # mov dx, 3f8h
FOREVER = bytes.fromhex("f4 ebfd")  # hlt, for ever


def say(text):
    return b"".join(WAIT_ROOM + DATA + b"\xb0" + bytes([c]) + b"\xee" for c in text.encode())


def leave(value):
    """Writes value to the debug-exit port."""
    return bytes.fromhex("66baf400 b8") + struct.pack("<I", value) + b"\xef" + FOREVER


def echo():
    """Sends back what it receives, until a q has come."""
    # in al, dx; mov ah, al; wait; mov al, ah; out dx, al; cmp ah, 'q'
    body = WAIT_INPUT + DATA + bytes.fromhex("ec 88c4") + WAIT_ROOM + DATA + bytes.fromhex("88e0 ee 80fc71")
    return body + b"\x75" + struct.pack("b", -len(body) - 2) + leave(5)


def flood(count):
    """Sends the low byte of a counter, count times."""
    return (b"\xb9" + struct.pack("<I", count) + WAIT_ROOM + DATA + bytes.fromhex("88c8 ee e2ee") + leave(5))


TRIPLE_FAULT = bytes.fromhex("0f011d 20001000 90 cc f4") + b"\0" * 16


class Place:
    """A folder for one case: the kernel in it, a runtime folder that must be empty at the end."""

    def __init__(self, code=None):
        self.top = tempfile.mkdtemp(prefix="ferry-cli-")
        self.runtime = os.path.join(self.top, "run")
        os.mkdir(self.runtime)
        self.kernel = multiboot_elf(code, self.path("kernel")) if code is not None else None

    def path(self, name):
        return os.path.join(self.top, name)

    def write(self, name, data):
        with open(self.path(name), "wb") as f:
            f.write(data)
        return self.path(name)

    def run(self, *args, **options):
        options["env"] = dict(options.get("env") or {}, FERRY_RUNTIME_DIR=self.runtime)
        return ferry("run", *args, **options)

    def start(self, *args, terminal=True, env=None):
        command = [FERRY, "run", "-m", "16M", *args, self.kernel]
        return Process(command, terminal, dict(env or {}, FERRY_RUNTIME_DIR=self.runtime))

    def nothing_left(self):
        left = os.listdir(self.runtime)
        check(not left, f"left in the runtime folder: {left}")

    def refused(self, *args, code=EXIT_START, says=(), env=None):
        """ferry run ARGS fails as it should: its code, one line that holds all of `says`, nothing left."""
        before = sorted(os.listdir(self.top))
        got, out, err = self.run("--quiet", *args, env=env)
        check(got == code, f"{args}: exit code {got} instead of {code}: {err}")
        check(err.startswith("ferry: ") and err.count("\n") == 1 and err.endswith("\n"), f"not one line: {err!r}")
        check(not out, f"on standard output: {out!r}")
        for word in says:
            check(word in err, f"{args}: {word!r} is not in {err!r}")
        check(sorted(os.listdir(self.top)) == before, f"left: {os.listdir(self.top)}")
        self.nothing_left()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        shutil.rmtree(self.top, ignore_errors=True)


# ---- words ------------------------------------------------------------------------------------------


@needs_ferry
def test_help():
    """Help, on standard output where it was asked for; man pages that roff likes; completion scripts."""
    code, out, err = ferry()
    check(code == EXIT_USAGE and not out and "Usage" in err, f"{code} {out!r} {err!r}")
    for args in (["help"], ["--help"], ["-h"]):
        check(ferry(*args) == (0, err, ""), f"{args} says something else")
    code, out, err = ferry("help", "run")
    check(code == 0 and not err, err)
    check(ferry("run", "--help") == (0, out, ""), "run --help says something else")
    check(ferry("run", "kernel", "-h") == (0, out, ""), "-h after the kernel")
    for option in ("initrd", "append", "memory", "cpus", "name", "engine", "cpu", "serial", "debug-exit", "reset-limit",
                   "net", "pidfile", "quiet"):
        check(f"--{option}" in out, f"--{option} is not in the help")
    check(max(map(len, out.splitlines())) < 80, "lines of 80 and more columns")
    check(ferry("help", "frobnicate")[0] == EXIT_USAGE, "help of an unknown command")
    pages = ferry("man")[1].split()
    check({"ferry", "ferry-run", "ferry-doctor"} <= set(pages), pages)
    for page in pages:
        text = ferry("man", page)[1]
        if shutil.which("groff"):
            done = subprocess.run(["groff", "-man", "-ww", "-z"], input=text, capture_output=True, text=True)
            check(done.returncode == 0 and not done.stderr, f"{page}: {done.stderr}")
    for shell in ("bash", "zsh", "fish"):
        script = ferry("completion", shell)[1]
        check("engine" in script, f"{shell}: no options in it")
        if shutil.which(shell):
            done = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True)
            check(done.returncode == 0 and not done.stderr, f"{shell}: {done.stderr}")
    check(ferry("completion", "csh")[0] == EXIT_USAGE, "completion for csh")


@needs_ferry
def test_completion():
    """The bash script completes verbs, options, choices after a space and after '='."""
    if not shutil.which("bash"):
        raise Skip("bash is not installed")
    script = ferry("completion", "bash")[1] + """
t() { COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); COMPREPLY=(); _ferry 2>/dev/null; echo "${COMPREPLY[*]}"; }
t ferry doc; t ferry run --eng; t ferry run --engine s; t ferry run --engine = k; t ferry help ru
"""
    out = subprocess.run(["bash", "-c", script], capture_output=True, text=True).stdout.split()
    check(out == ["doctor", "--engine", "soft", "kvm", "run"], out)


@needs_ferry
def test_version_doctor():
    code, out, _ = ferry("version")
    version = re.fullmatch(r"ferry (\d+\.\d+\S*)\n", out)
    check(code == 0 and version, out)
    check(ferry("--version")[1] == out, "--version")
    check(json.loads(ferry("version", "--json")[1])["version"] == version.group(1), "version --json")
    code, out, err = ferry("doctor")
    check(code == 0 and not err, f"{code}: {err}")
    for word in ("cpu", "/dev/kvm", "engine", "memory", "memfd", "hugepages", "io_uring", "userfaultfd", "tun"):
        check(word in out, f"{word} is not in doctor's output")
    report = json.loads(ferry("doctor", "--json")[1])
    check(report["engine"] in ("kvm", "soft") and report["reason"], report)
    for line in report["checks"]:
        check(line["status"] in ("ok", "limited", "missing") and line["detail"], line)
        check(line["status"] == "ok" or line["remedy"], f"no remedy: {line}")
    with open("/proc/cpuinfo") as f:
        if not re.search(r"\b(vmx|svm)\b", f.read()):
            check(report["engine"] == "soft", "auto would take a KVM without hardware")


@needs_ferry
def test_output_errors():
    """Help into a full disk is an error, help into a closed pipe is not."""
    with open("/dev/full", "w") as full:
        done = subprocess.run([FERRY, "help"], stdout=full, stderr=subprocess.PIPE, text=True)
    check(done.returncode == EXIT_START and "No space" in done.stderr, f"{done.returncode} {done.stderr}")
    done = subprocess.run(["bash", "-c", f"{FERRY} help run | head -c 1; exit ${{PIPESTATUS[0]}}"], capture_output=True)
    check(done.returncode == 0 and not done.stderr, done)


# ---- wrong input ------------------------------------------------------------------------------------


@needs_ferry
def test_wrong_words():
    """Unknown commands and options: the nearest one, or what to use instead."""
    for args, words in ((["rnu"], ["'run'"]), (["doctr"], ["'doctor'"]), (["frobnicate"], ["ferry help"]),
                        (["--memory", "1G", "run"], ["--memory", "follow"]), (["list"], ["ferry ps"]),
                        (["doctor", "x"], ["'x'"]), (["version", "--jsno"], ["--json"])):
        code, out, err = ferry(*args)
        check(code == EXIT_USAGE and not out and err.startswith("ferry: ") and err.count("\n") == 1, f"{args}: {err}")
        for word in words:
            check(word in err, f"{args}: {word!r} is not in {err!r}")
    with Place(b"") as place:
        k = place.kernel
        code, _, err = ferry(k)
        check(code == EXIT_USAGE and f"ferry run {k}" in err, err)
        usage = dict(code=EXIT_USAGE)
        place.refused("--memroy", "1G", k, says=["--memroy", "--memory"], **usage)
        place.refused("-smp", "4", k, says=["--cpus"], **usage)
        place.refused("-kernel", k, says=["-kernel", "ferry run [options] KERNEL"], **usage)
        place.refused("--append", "console=ttyS0", "quiet", k, says=["quiet", "quotes"], **usage)
        place.refused(says=["no kernel"], **usage)


@needs_ferry
def test_wrong_values():
    with Place(b"") as place:
        k = place.kernel
        for args, words in ((["-m", "12Q"], ["12Q", "512M"]), (["-m", "1"], ["2M to 256G"]), (["-c", "0"], ["1 to 8"]),
                            (["-c", "9"], ["1 to 8"]), (["--engine", "tcg"], ["auto, kvm, soft"]),
                            (["--cpu", "host"], ["host", "x86-64-v2"]), (["--serial", "vc"], ["file=PATH"]),
                            (["--name", "a b"], ["a b", "letters"]), (["--debug-exit", "x"], ["'x'"]),
                            (["--net", "slirp"], ["slirp", "user", "tap="]), (["--disk", "a,b=c"], ["b", "cache="]),
                            (["--serial", "stdio"] * 2, ["terminal"]),
                            (["--serial", "none"] * 5, ["at most 4"]), (["-c"], ["-c needs a value"])):
            got, out, err = place.run(k, *args)
            check(got == EXIT_USAGE and err.count("\n") == 1 and not out, f"{args}: {got} {err!r}")
            for word in words:
                check(word in err, f"{args}: {word!r} is not in {err!r}")
        place.refused("--engine", "kvm", k, says=["--engine kvm", "--engine soft"])


@needs_ferry
def test_bad_kernels():
    """Missing, empty, cut off, of another architecture, not a kernel at all."""
    with Place() as place:
        place.refused(place.path("none"), says=[place.path("none"), "No such file"])
        place.refused(place.write("empty", b""), says=["is empty"])
        place.refused(place.write("text", b"hello, world\n" * 1000), says=["text"])
        place.refused(place.write("short", b"\x7fELF"), says=["short"])
        place.refused(place.path("new\nline\x1b[31m"), says=["new?line?[31m", "No such file"])
        place.refused(place.top, says=[place.top, "directory"])
        with open(kernel(), "rb") as f:
            image = f.read()
        for part in (100, 600, 5000, len(image) // 2, len(image) - 200000):  # behind it: a signature
            place.refused(place.write(f"cut-{part}", image[:part]), "-m", "512M", says=[f"cut-{part}", "EFI" if part == 100 else "truncated"])
        arm64 = bytearray(4096)
        arm64[0x38:0x3C] = b"ARM\x64"
        place.refused(place.write("Image", bytes(arm64)), says=["arm64"])
        elf = b"\x7fELF\x02\x01\x01" + b"\0" * 9 + struct.pack("<HH", 2, 183) + b"\0" * 4000
        place.refused(place.write("vmlinux", elf), says=["vmlinux", "arm64"])


@needs_ferry
def test_bad_initrd():
    with Place() as place:
        place.refused(kernel(), "--initrd", place.path("none"), says=[place.path("none"), "No such file"])
        large = place.path("large")
        with open(large, "wb") as f:
            f.truncate(100 << 20)
        place.refused(kernel(), "--initrd", large, "-m", "128M", says=["initrd", "100 MiB", "--memory"])
        place.refused(kernel(), "--initrd", place.top, says=[place.top])


@needs_ferry
def test_memory_limits():
    """More memory than the host has is refused, unless that is wanted."""
    with Place(leave(5)) as place:
        place.refused(place.kernel, "-m", "256G", says=["--memory", "overcommit"])
        code, _, err = place.run(place.kernel, "-m", "64G,overcommit", "--serial", "none", *PORT)
        check(code == 11, f"64G,overcommit: exit code {code}: {err}")
        place.nothing_left()


def remove_group(group):
    """The last of its processes may be on its way out of it."""
    for _ in range(40):
        with contextlib.suppress(OSError):
            os.rmdir(group)
            return
        time.sleep(0.05)
    raise Failure(f"{group} is still in use")


@contextlib.contextmanager
def memory_group(limit):
    """A control group with that limit; None where this user may not make one."""
    for parent, name in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = os.path.join(parent, f"ferry-test-{os.getpid()}")
        try:
            os.mkdir(group)
        except OSError:
            continue
        try:
            with open(os.path.join(group, name), "w") as f:
                f.write(str(limit))
            yield os.path.join(group, "cgroup.procs")
            return
        except OSError:
            pass
        finally:
            remove_group(group)
    yield None


@needs_ferry
def test_control_group():
    """The limit of ferry's control group counts as the host's memory does."""
    with Place(leave(5)) as place, memory_group(128 << 20) as procs:
        if not procs:
            raise Skip("no control group with a memory limit can be made here")
        for size, should in (("256M", EXIT_START), ("64M", 11), ("256M,overcommit", 11)):
            line = f"echo $$ >{procs} && exec {FERRY} run -q --serial none -m {size} {' '.join(PORT)} {place.kernel}"
            done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60 * SCALE,
                                  env=dict(os.environ, FERRY_RUNTIME_DIR=place.runtime))
            check(done.returncode == should, f"{size}: {done.returncode} {done.stderr}")
            check(should == 11 or "control group" in done.stderr and "overcommit" in done.stderr, done.stderr)
        place.nothing_left()


@needs_ferry
def test_install():
    """make install puts everything where shells and man look, make uninstall takes it away."""
    with Place() as place:
        def make(target):
            subprocess.run(["make", "-s", "-C", TOP, target, f"DESTDIR={place.top}", "PREFIX=/usr"], check=True,
                           capture_output=True)
        make("install")
        ferry_there = place.path("usr/bin/ferry")
        out = subprocess.run([ferry_there, "version"], capture_output=True, text=True).stdout
        check(out.startswith("ferry "), out)
        for file in ("man/man1/ferry.1", "man/man1/ferry-run.1", "bash-completion/completions/ferry",
                     "zsh/site-functions/_ferry", "fish/vendor_completions.d/ferry.fish"):
            check(os.path.getsize(place.path("usr/share/" + file)) > 100, file)
        make("uninstall")
        left = [f for _, _, files in os.walk(place.path("usr")) for f in files]
        check(not left, f"left: {left}")


@needs_ferry
def test_no_descriptors():
    """A limit on open files ends the start with words, not the run with a crash."""
    with Place(leave(5)) as place:
        for count in range(4, 30):  # 3: not even the dynamic loader starts
            done = subprocess.run([FERRY, "run", "-m", "16M", "--serial", "none", *PORT, place.kernel],
                                  capture_output=True, text=True, stdin=subprocess.DEVNULL,
                                  env=dict(os.environ, FERRY_RUNTIME_DIR=place.runtime), timeout=60 * SCALE,
                                  preexec_fn=lambda n=count: resource.setrlimit(resource.RLIMIT_NOFILE, (n, n)))
            if done.returncode == 11:
                break
            check(done.returncode in (EXIT_START, 10), f"{count} descriptors: {done.returncode} {done.stderr}")
            check("ferry: " in done.stderr, f"{count} descriptors: {done.stderr!r}")
            place.nothing_left()
        else:
            raise Failure("30 descriptors are not enough")


# ---- names, pidfiles, the runtime folder ------------------------------------------------------------


@needs_ferry
def test_names():
    with Place(say("up") + FOREVER) as place:
        with place.start("--name", "one", *PORT) as vm:
            vm.expect("up", 20)
            check(sorted(os.listdir(place.runtime)) == ["one.lock", "one.sock"], os.listdir(place.runtime))
            code, _, err = place.run("-q", "-m", "16M", "--name", "one", place.kernel)
            check(code == EXIT_START and f"process {vm.pid}" in err and "--name" in err, f"{code} {err}")
            # kill -9 leaves files; the next machine of that name does not mind.
            vm.kill()
            vm.wait()
        check(sorted(os.listdir(place.runtime)) == ["one.lock", "one.sock"], os.listdir(place.runtime))
        with place.start("--name", "one", *PORT) as vm:
            vm.expect("up", 20)
            vm.send("\x01x")
            check(vm.wait(20) == EXIT_KILLED, "exit code")
        place.nothing_left()


@needs_ferry
def test_names_at_once():
    """Machines that start at the same moment: all with names of their own run, one of the same name does."""
    with Place(say("up") + echo()) as place:
        for name in (None, "one"):
            with contextlib.ExitStack() as stack:
                args = ["--name", name] if name else []
                vms = [stack.enter_context(place.start("-q", *PORT, *args)) for _ in range(8)]
                wait_for(lambda: all(b"up" in vm.text or vm.child.poll() is not None for vm in vms), "not all are up")
                alive = [vm for vm in vms if vm.child.poll() is None]
                check(len(alive) == (1 if name else 8), f"{len(alive)} of 8 run: {[vm.stderr() for vm in vms]}")
                check(len(os.listdir(place.runtime)) == 2 * len(alive), os.listdir(place.runtime))
                for vm in alive:
                    vm.send("q")
                check(all(vm.wait(30) == 11 for vm in alive), "exit codes")
                check(all(vm.wait(30) == EXIT_START for vm in vms if vm not in alive), "exit codes")
            place.nothing_left()


@needs_ferry
def test_runtime_folders():
    """Any mode, a path longer than a socket's name; what cannot be written is said."""
    with Place(leave(5)) as place:
        deep = place.path("/".join(["a" * 60] * 4))
        for folder, mode in ((deep, 0o700), (place.path("shared"), 0o777), (place.path("new/er"), None)):
            if mode:
                os.makedirs(folder)
                os.chmod(folder, mode)
            code, _, err = ferry("run", "-m", "16M", "--serial", f"socket={folder}/s" if mode else "none", *PORT,
                                 place.kernel, env={"FERRY_RUNTIME_DIR": folder})
            check(code == 11 and not os.listdir(folder), f"{folder}: {code} {err} {os.listdir(folder)}")
        code, _, err = ferry("run", "-q", place.kernel, env={"FERRY_RUNTIME_DIR": place.kernel})
        check(code == EXIT_START and "FERRY_RUNTIME_DIR" in err, f"{code} {err}")


@needs_ferry
def test_pidfile():
    with Place(say("up") + FOREVER) as place:
        pidfile = place.path("pid")
        for way in ("C-a x", "SIGTERM"):
            with place.start("--pidfile", pidfile) as vm:
                vm.expect("up", 20)
                with open(pidfile) as f:
                    check(f.read() == f"{vm.pid}\n", "what is in the pidfile")
                code, _, err = place.run("-q", "-m", "16M", "--pidfile", pidfile, place.kernel)
                check(code == EXIT_START and str(vm.pid) in err and os.path.exists(pidfile), f"{code} {err}")
                vm.send("\x01x") if way == "C-a x" else os.kill(vm.pid, signal.SIGTERM)
                vm.wait(20)
            check(not os.path.exists(pidfile), f"{way} left the pidfile")
        place.write("pid", b"not a number")
        place.refused("--pidfile", pidfile, place.kernel, says=[pidfile, "no pidfile"])
        place.refused("--pidfile", place.path("no/such"), place.kernel, says=["--pidfile"])


# ---- ends -------------------------------------------------------------------------------------------


@needs_ferry
@each(value=[0, 1, 21, 63])
def test_debug_exit(value):
    with Place(say("text\n") + leave(value)) as place:
        code, out, err = place.run("-m", "16M", *PORT, place.kernel)
        check(code == (value << 1 | 1) and out == "text\n", f"{code} {out!r} {err!r}")
        check("engine soft:" in err and "\r" not in err, err)
        check(place.run("-q", "-m", "16M", *PORT, place.kernel) == (code, out, ""), "--quiet is not quiet")
        place.nothing_left()


@needs_ferry
def test_triple_fault():
    with Place(TRIPLE_FAULT) as place:
        for limit in (0, 3):
            code, _, err = place.run("-m", "16M", "--reset-limit", str(limit), "--serial", "none", place.kernel)
            check(code == EXIT_RESET_LIMIT, f"exit code {code}: {err}")
            check(len(re.findall("(?i)triple fault", err)) == limit + 1, err)
            check(re.search(r"(?i)rip\W+(0x)?0*10001[0-9a-f]", err), f"no RIP in {err}")
            check("reset limit" in err, err)
        place.nothing_left()


def modes(fd):
    """The terminal's modes, without the one bit that the kernel sets by itself (FLUSHO, PENDIN)."""
    now = termios.tcgetattr(fd)
    return now[:3] + [now[3] & ~(termios.FLUSHO | termios.PENDIN)] + now[4:]


def kill_thread(pid, name, signo):
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/comm") as f:
            if f.read().strip() == name:
                tgkill = {"x86_64": 234, "aarch64": 131, "riscv64": 131}[os.uname().machine]
                ctypes.CDLL(None).syscall(tgkill, pid, int(task), int(signo))
                return
    raise Failure(f"no thread {name}")


@needs_ferry
@each(way=["C-a x", "debug-exit", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGSEGV", "SIGABRT", "vCPU crash", "start"])
def test_ways_out(way):
    """Whatever ends ferry: the exit code, the terminal as it was, nothing left behind."""
    with Place(say("up") + echo()) as place:
        extra = ["--serial", "stdio", "--serial", "socket=/nonexistent/x"] if way == "start" else []
        with place.start(*PORT, *extra, "--pidfile", place.path("pid")) as vm:
            before = modes(vm.master)  # racing with the start is no matter: see below
            before[3] |= termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN
            before[0] |= termios.ICRNL | termios.IXON
            before[1] |= termios.OPOST
            should = {"C-a x": EXIT_KILLED, "debug-exit": 11, "start": EXIT_START}.get(way)
            if way != "start":
                vm.expect("up", 20)
                check(not modes(vm.master)[3] & (termios.ICANON | termios.ISIG | termios.ECHO), "not raw")
            if way in ("C-a x", "debug-exit"):
                vm.send("\x01x" if way == "C-a x" else "q")
            elif way == "vCPU crash":
                kill_thread(vm.pid, "vcpu0", signal.SIGSEGV)
                should = -signal.SIGSEGV
            elif way != "start":
                signo = getattr(signal, way)
                os.kill(vm.pid, signo)
                should = -signo if way in ("SIGSEGV", "SIGABRT") else EXIT_SIGNAL + signo
            code = vm.wait(20)
            check(code == should, f"exit code {code} instead of {should}: {vm.stderr()}")
            after = modes(vm.master)
            check(after[:4] == before[:4], f"terminal: {after[:4]} instead of {before[:4]}")
            crash = way in ("SIGSEGV", "SIGABRT", "vCPU crash")
            check(vm.stderr().count("internal error") == crash, vm.stderr())
        place.nothing_left()
        check(not os.path.exists(place.path("pid")), "the pidfile is left")


@needs_ferry
@each(way=["debug-exit", "SIGTERM", "SIGSEGV"])
def test_foreign_terminal(way):
    """A terminal of another user cannot be opened anew: its shared flags are put back too."""
    if os.geteuid() or not shutil.which("setpriv"):
        raise Skip("needs root and setpriv")
    with Place(say("up") + echo()) as place:
        for folder in (place.top, place.runtime):
            os.chmod(folder, 0o777)
        program = shutil.copy(FERRY, place.path("ferry"))
        master, slave = pty.openpty()
        try:
            os.fchmod(slave, 0o600)
            before = modes(slave), fcntl.fcntl(slave, fcntl.F_GETFL)
            child = subprocess.Popen(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", program,
                                      "run", "-q", "-m", "16M", *PORT, place.kernel], stdin=slave, stdout=slave,
                                     stderr=subprocess.DEVNULL, env=dict(os.environ, FERRY_RUNTIME_DIR=place.runtime))
            try:
                got = b""
                while b"up" not in got:
                    check(select.select([master], [], [], 20 * SCALE)[0], "nothing from the guest")
                    got += os.read(master, 100)
                if way == "debug-exit":
                    os.write(master, b"q")
                else:
                    child.send_signal(getattr(signal, way))
                child.wait(20 * SCALE)
            finally:
                child.kill()
                child.wait()
            after = modes(slave), fcntl.fcntl(slave, fcntl.F_GETFL)
            check(after == before, f"{after} instead of {before}")
        finally:
            os.close(master)
            os.close(slave)
        place.nothing_left()


@needs_ferry
def test_stop_continue():
    """Stopped by its user, ferry gives the terminal back; continued, it takes it again."""
    with Place(say("up") + echo()) as place, place.start(*PORT) as vm:
        vm.expect("up", 20)
        for signo in (signal.SIGTSTP, signal.SIGSTOP):
            os.kill(vm.pid, signo)
            wait_for(lambda: state(vm.pid) == "T", "ferry does not stop")
            if signo == signal.SIGTSTP:
                check(modes(vm.master)[3] & termios.ICANON, "the terminal stays raw while stopped")
            else:  # what a shell does
                now = termios.tcgetattr(vm.master)
                now[3] |= termios.ICANON
                termios.tcsetattr(vm.master, termios.TCSANOW, now)
            os.kill(vm.pid, signal.SIGCONT)
            wait_for(lambda: not modes(vm.master)[3] & termios.ICANON, "the terminal is not raw again")
            vm.send("again")
            vm.expect("again", 20)
        vm.send("q")
        check(vm.wait(20) == 11, vm.stderr())
        check(modes(vm.master)[3] & termios.ICANON, "the terminal was not restored")


@needs_ferry
def test_stopped_time():
    """No time passes in the guest of a stopped process."""
    # rdtsc; mov ebx, eax; mov ecx, edx; say "up"; wait for a key; rdtsc; edx:eax -= ecx:ebx
    code = (bytes.fromhex("0f31 89c3 89d1") + say("up") + WAIT_INPUT + DATA +
            bytes.fromhex("ec 0f31 29d8 19ca") +
            # shrd eax, edx, 28; send al (units of 2^28 ticks, about 0.1 to 0.3 s)
            bytes.fromhex("0facd01c 88c3") + WAIT_ROOM + DATA + bytes.fromhex("88d8 ee") + leave(5))
    units = []
    for stopped in (False, True):
        with Place(code) as place:
            begun, still = time.monotonic(), 0
            with place.start(*PORT, "--serial", "stdio") as vm:
                vm.expect("up", 20)
                if stopped:
                    os.kill(vm.pid, signal.SIGTSTP)
                    wait_for(lambda: state(vm.pid) == "T", "ferry does not stop")
                    still = time.monotonic()
                time.sleep(4)
                if stopped:
                    still = time.monotonic() - still
                    os.kill(vm.pid, signal.SIGCONT)
                    wait_for(lambda: not modes(vm.master)[3] & termios.ECHO, "the terminal is not raw again")
                vm.send("k")
                units.append(vm.expect(b"(?s).", 20).group()[0])
                awake = time.monotonic() - begun - still
                check(vm.wait(20) == 11, vm.stderr())
    # The first one was awake for four seconds and more. A unit's fraction is cut off.
    check(units[1] <= (units[0] + 1) / 4 * awake + 1, f"{units[0]} units in 4 s, {units[1]} in {awake} s awake")


def state(pid):
    with open(f"/proc/{pid}/stat") as f:
        return f.read().rpartition(")")[2].split()[0]


def wait_for(condition, what, timeout=20):
    end = time.monotonic() + timeout * SCALE
    while not condition():
        if time.monotonic() > end:
            raise Failure(what)
        time.sleep(0.02)


@needs_ferry
def test_background():
    """A job in the background leaves the terminal alone and is not stopped; in the foreground it takes it."""
    if not shutil.which("bash"):
        raise Skip("bash is not installed")
    with Place(say("up") + echo()) as place:
        command = (f"{FERRY} run -q -m 16M {' '.join(PORT)} --name bg {place.kernel} & sleep 2; "
                   f"kill -0 %1 && echo al''ive; stty -a | grep -q ' icanon' && echo coo''ked; fg; echo code-$?")
        with terminal_shell(place) as shell:
            shell.line(command)
            shell.expect("alive", 30)
            shell.expect("cooked", 30)
            time.sleep(0.5)
            shell.send("x\n")
            shell.expect("x", 20)
            wait_for(lambda: not modes(shell.master)[3] & termios.ICANON, "the terminal is not taken after fg")
            shell.send("yz")
            shell.expect("yz", 20)
            shell.send("q")
            shell.expect("code-11", 20)


@contextlib.contextmanager
def terminal_shell(place):
    """An interactive bash whose controlling terminal is the Process's."""
    # Session leader without controlling terminal (Process did setsid): TIOCSCTTY, then bash.
    starter = ("import fcntl,os,termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.dup2(1, 2); "
               "os.execvp('bash', ['bash', '--norc', '--noprofile', '-i'])")
    with Process(["python3", "-c", starter], True, {"FERRY_RUNTIME_DIR": place.runtime, "PS1": "P> "}) as shell:
        shell.expect(r"\$ $|# $|P> $", 20, "a shell prompt")
        yield shell


# ---- standard input and output, back ends -----------------------------------------------------------


@needs_ferry
def test_escape_keys():
    with Place(say("up") + echo()) as place, place.start(*PORT) as vm:
        vm.expect("up", 20)
        wait_for(lambda: "C-a x" in vm.stderr() and "C-a h" in vm.stderr(), "the escape key is not shown")
        shown = len(vm.stderr())
        vm.send("\x03\x1a\x1ca\x01\x01b\x01zc")
        vm.expect(b"\x03\x1a\x1ca\x01bc", 20, "control keys in the guest")
        vm.send("\x01h")
        wait_for(lambda: "C-a C-a" in vm.stderr()[shown:], "C-a h does not help")
        vm.send("q")
        check(vm.wait(20) == 11, "exit code")


@needs_ferry
def test_pipes():
    """Standard input from a pipe, binary and unescaped; its end is no end of the guest's."""
    data = bytes(b for b in range(256) if b != ord("q")) * 30
    with Place(echo()) as place:
        env = dict(os.environ, FERRY_RUNTIME_DIR=place.runtime)
        command = [FERRY, "run", "-q", "-m", "16M", *PORT, place.kernel]
        done = subprocess.run(command, input=data + b"q", capture_output=True, env=env, timeout=60 * SCALE)
        check(done.returncode == 11 and done.stdout == data + b"q" and not done.stderr, done.stderr)
        # From and to files.
        source = place.write("in", data + b"q")
        with open(source, "rb") as f, open(place.path("out"), "wb") as out:
            out.write(b"before\n")
            out.flush()
            code = subprocess.run(command, stdin=f, stdout=out, env=env, timeout=60 * SCALE).returncode
        with open(place.path("out"), "rb") as f:
            check(code == 11 and f.read() == b"before\n" + data + b"q", "from file to file")
        # Standard descriptors that are closed.
        with Place(say("text") + leave(5)) as other:
            for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
                line = f"{FERRY} run -m 16M {' '.join(PORT)} {other.kernel} {closed}"
                done = subprocess.run(["bash", "-c", line], capture_output=True, timeout=60 * SCALE,
                                      env=dict(os.environ, FERRY_RUNTIME_DIR=other.runtime))
                check(done.returncode == 11, f"{closed}: {done}")
                check(done.stdout == (b"" if ">&-" in closed.replace("2>&-", "") else b"text"), f"{closed}: {done}")


@needs_ferry
def test_slow_reader():
    """The guest waits for a slow reader; every byte arrives, the last ones too."""
    count = 300000
    expected = bytes((count - n) & 0xFF for n in range(count))
    with Place(flood(count)) as place:
        reader, writer = os.pipe()
        fcntl.fcntl(reader, 1031, 4096)  # F_SETPIPE_SZ
        child = subprocess.Popen([FERRY, "run", "-q", "-m", "16M", *PORT, place.kernel], stdout=writer,
                                 stdin=subprocess.DEVNULL, env=dict(os.environ, FERRY_RUNTIME_DIR=place.runtime))
        os.close(writer)
        with open(reader, "rb") as output:
            try:
                time.sleep(1)
                check(child.poll() is None, "the guest did not wait for its reader")
                got = output.read(5000)
                time.sleep(0.5)
                check(child.poll() is None, "the guest did not wait for its reader")
                got += output.read()
                check(child.wait(60 * SCALE) == 11, "exit code")
            finally:
                child.kill()
                child.wait()
        check(got == expected, f"{len(got)} of {count} bytes, or changed ones")


@needs_ferry
def test_reader_goes():
    """`ferry run | head`: the guest goes on without reader."""
    with Place(flood(100000)) as place:
        line = f"{FERRY} run -m 16M {' '.join(PORT)} {place.kernel} </dev/null | head -c 10; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", line], capture_output=True, timeout=60 * SCALE,
                              env=dict(os.environ, FERRY_RUNTIME_DIR=place.runtime))
        check(done.returncode == 11 and len(done.stdout) == 10, done)
        check(done.stderr.count(b"standard output") == 1, done.stderr)


@needs_ferry
def test_socket():
    """A client on a unix socket: both ways, may come and go; the socket is private, and gone at the end."""
    with Place(echo()) as place:
        path = place.path("serial.sock")
        with place.start(*PORT, "--serial", f"socket={path}", terminal=False) as vm:
            wait_for(lambda: os.path.exists(path), "no socket")
            check(os.stat(path).st_mode & 0o777 == 0o600, "its mode")
            for _ in range(3):
                with socket.socket(socket.AF_UNIX) as client:
                    client.settimeout(20 * SCALE)
                    client.connect(path)
                    client.sendall(b"hello")
                    got = b""
                    while len(got) < 5:
                        got += client.recv(5 - len(got)) or b"(end)"
                    check(got == b"hello", got)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
                client.sendall(b"q")
                check(vm.wait(20) == 11, vm.stderr())
        check(not os.path.exists(path), "the socket is left")
        place.write("serial.sock", b"precious")
        place.refused(place.kernel, "--serial", f"socket={path}", says=["serial0", "serial.sock"])


@needs_ferry
def test_pty():
    with Place(echo()) as place, place.start(*PORT, "--serial", "pty", terminal=False) as vm:
        wait_for(lambda: "/dev/pts/" in vm.stderr(), "no path of the pty")
        path = re.search(r"serial0 is (/dev/pts/\d+)\n", vm.stderr()).group(1)
        for last in (b"", b"q"):
            fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
            try:
                os.write(fd, b"hello" + last)
                got = b""
                while len(got) < 5:
                    got += os.read(fd, 100)
                check(got.startswith(b"hello"), got)
            finally:
                os.close(fd)
        check(vm.wait(20) == 11, vm.stderr())


@needs_ferry
def test_four_lines():
    """Four serial lines, each with a back end of its own."""
    text = b""
    for n, base in enumerate((0x3F8, 0x2F8, 0x3E8, 0x2E8)):
        text += b"\x66\xba" + struct.pack("<H", base) + b"\xb0" + b"0123"[n:n + 1] + b"\xee"
    with Place(text + leave(5)) as place:
        args = sum((["--serial", f"file={place.path(str(n))}"] for n in range(4)), [])
        code, out, err = place.run("-q", "-m", "16M", *PORT, *args, place.kernel)
        check(code == 11 and not out, f"{code} {err}")
        for n in range(4):
            with open(place.path(str(n))) as f:
                check(f.read() == str(n), f"line {n}")


@needs_ferry
def test_file():
    """A byte is in the file as soon as the guest has sent it: nothing is lost by kill -9."""
    with Place(say("all of it") + FOREVER) as place:
        path = place.path("log")
        with place.start("--serial", f"file={path}", terminal=False) as vm:
            wait_for(lambda: os.path.exists(path) and os.path.getsize(path) == 9, "nothing in the file")
            vm.kill()
            vm.wait()
        with open(path) as f:
            check(f.read() == "all of it", "the file")
        # The next one cleans up what that one left.
        place.refused(place.kernel, "--serial", f"file={place.path('no/such')}", says=["serial0", "no/such"])
