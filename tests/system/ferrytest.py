"""What the system tests share: start a virtual machine, talk to its terminal, wait, clean up.

The programme under test is $FERRY (default: build/release/ferry). VMM=qemu runs the same tests on
`qemu-system-x86_64 -accel tcg` instead: a test that fails there too is a wrong test.
TIMEOUT_SCALE multiplies every time-out (slow machines, sanitizers).
"""
import ctypes
import fcntl
import functools
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import termios
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(TOP, os.environ.get("BUILD", "build"))
FERRY = os.environ.get("FERRY", os.path.join(BUILD, "release", "ferry"))
VMM = os.environ.get("VMM", "ferry")
GUEST = os.path.join(BUILD, "guest")
SCALE = float(os.environ.get("TIMEOUT_SCALE", "1"))

# Exit codes of `ferry run` (vmm/exit_codes.h).
EXIT_POWEROFF, EXIT_START, EXIT_USAGE, EXIT_RESET_LIMIT, EXIT_PANIC, EXIT_SIGNAL = 0, 1, 2, 4, 6, 128


class Failure(Exception):
    pass


class Skip(Exception):
    pass


def check(condition, message):
    if not condition:
        raise Failure(message)


def each(**axes):
    """Makes one case of a function per combination: @each(cpus=[1, 2])."""

    def mark(function):
        cases = [{}]
        for name, values in axes.items():
            cases = [dict(c, **{name: v}) for c in cases for v in values]
        function.cases = cases
        return function

    return mark


def slow(function):
    """Not part of `make test`: only with --slow (make soak, make stress)."""
    function.slow = True
    return function


def limit(seconds):
    """The case's own time-out."""

    def mark(function):
        function.limit = seconds
        return function

    return mark


def needs_ferry(function):
    """A case about ferry itself, not about a guest: skipped with VMM=qemu."""

    @functools.wraps(function)
    def run(*args, **kwargs):
        if VMM != "ferry":
            raise Skip("about ferry itself, and this run is of " + VMM)
        return function(*args, **kwargs)

    return run


def _output(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Failure(f"{command[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


@functools.lru_cache(maxsize=None)
def kernel(suite="bookworm"):
    return _output(os.path.join(TOP, "tests/guest/kernel.sh"), suite)


@functools.lru_cache(maxsize=None)
def modules(suite="bookworm"):
    return _output(os.path.join(TOP, "tests/guest/kernel.sh"), suite, "modules")


def initramfs(name="test"):
    """An initramfs that the Makefile has built."""
    path = os.path.join(GUEST, name + ".cpio")
    if not os.path.exists(path):
        raise Failure(f"{path} is not there: run `make guest`")
    return path


def guest_program(name):
    return os.path.join(GUEST, "bin", name)


def _die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Process:
    """A programme on a terminal of its own (tty=True) or on pipes; a thread collects what it prints."""

    Text = bytearray  # what keeps its output

    def __init__(self, command, terminal=True, env=None, cwd=None):
        self.command = command
        self.text = self.Text()
        self.errors = bytearray()
        self.cursor = 0
        self.changed = threading.Condition()
        self.ended = self.said_all = self.hung_up = False
        environment = dict(os.environ, **(env or {}))
        self.started = time.monotonic()
        if terminal:
            self.master, slave = pty.openpty()
            self.modes = termios.tcgetattr(slave)  # now: whoever starts may change them at once
            self.child = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=subprocess.PIPE,
                                          env=environment, cwd=cwd, preexec_fn=self._session)
            os.close(slave)
            self.reads, self.writes = self.master, self.master
        else:
            self.master = None
            self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                          stderr=subprocess.PIPE, env=environment, cwd=cwd,
                                          preexec_fn=self._session)
            self.reads, self.writes = self.child.stdout.fileno(), self.child.stdin.fileno()
        self.pid = self.child.pid
        self.threads = [threading.Thread(target=self._collect, args=a, daemon=True)
                        for a in ((self.reads, self.text), (self.child.stderr.fileno(), self.errors))]
        for thread in self.threads:
            thread.start()

    def resident(self):
        """MiB of it that are in the host's memory."""
        with open(f"/proc/{self.pid}/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE") >> 20

    @staticmethod
    def _session():
        os.setsid()
        if os.isatty(0):
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # a terminal that hangs up says so
        _die_with_parent()

    def _collect(self, fd, buffer):
        while True:
            # Not asleep in read(): that would keep the terminal open after hang_up().
            while not select.select([fd], [], [], 0.2)[0]:
                if self.hung_up and buffer is self.text:
                    return
            try:
                data = os.read(fd, 65536)
            except OSError:
                data = b""
            with self.changed:
                buffer += data
                if not data and buffer is self.text:
                    self.ended = True
                elif not data:
                    self.said_all = True
                self.changed.notify_all()
            if not data:
                return

    def expect(self, pattern, timeout=60, what=None):
        """Waits until the output (after the last match) matches; returns the match."""
        regex = re.compile(pattern.encode() if isinstance(pattern, str) else pattern, re.M)
        end = time.monotonic() + timeout * SCALE
        with self.changed:
            while True:
                match = regex.search(self.text, self.cursor)
                if match:
                    self.cursor = match.end()
                    return match
                left = end - time.monotonic()
                if self.ended or left <= 0:
                    raise Failure(f"{'the output ended' if self.ended else 'time-out'} while waiting for "
                                  f"{what or pattern!r}{self.tail()}")
                self.changed.wait(min(left, 1))

    def await_error(self, text, seconds=60):
        """Waits until it has said that on stderr."""
        end = time.monotonic() + seconds * SCALE
        with self.changed:
            while text.encode() not in self.errors:
                left = end - time.monotonic()
                if left <= 0 or self.said_all:
                    raise Failure(f"{self.command[0]} has not said {text!r}{self.tail()}")
                self.changed.wait(min(left, 0.2))

    def tail(self, lines=25):
        out = self.text.decode(errors="replace").splitlines()[-lines:]
        err = self.errors.decode(errors="replace").splitlines()[-lines:]
        return "".join("\n    | " + line for line in out) + "".join("\n    ! " + line for line in err)

    def send(self, data):
        data = data.encode() if isinstance(data, str) else data
        while data:
            data = data[os.write(self.writes, data):]

    def line(self, text):
        self.send(text + "\n")

    def wait(self, timeout=60):
        """Waits for the end; the exit code (negative: killed by a signal)."""
        try:
            code = self.child.wait(timeout * SCALE)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.command[0]} did not end in {timeout * SCALE:.0f} s{self.tail()}") from None
        for thread in self.threads:
            thread.join(5)
        return code

    def stderr(self):
        return self.errors.decode(errors="replace")

    def stdout(self):
        return self.text.decode(errors="replace")

    def kill(self, sig=signal.SIGKILL):
        try:
            os.killpg(self.pid, sig)
        except ProcessLookupError:
            pass

    def hang_up(self):
        """Closes the terminal, as a terminal window does."""
        self.hung_up = True
        self.threads[0].join()
        os.close(self.master)
        self.master = None

    def close(self):
        if self.child.poll() is None:
            self.kill()
            self.child.wait()
        for thread in self.threads:
            thread.join(5)
        if self.master is not None:
            os.close(self.master)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def cpu_seconds(self):
        with open(f"/proc/{self.pid}/stat") as f:
            fields = f.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_split(pid, megabytes):
    """Proportional set size of a process, KiB: (beyond the guest's RAM of so many MiB, in that RAM)."""
    ram = total = size = 0
    name = flags = ""
    with open(f"/proc/{pid}/smaps") as f:
        for line in f:
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                _, flags, _, _, _, *rest = line.split(maxsplit=5)
                name = rest[0].strip() if rest else ""
            elif line.startswith("Size:"):
                size = int(line.split()[1])
            elif line.startswith("Pss:"):
                pss = int(line.split()[1])
                total += pss
                # An anonymous mapping of that size or a memfd; what is executable is translated code.
                if size >= megabytes * 1024 // 2 and "x" not in flags and ("memfd" in name or not name):
                    ram += pss
    return total - ram, ram


PROMPT = r"[~/\w]* # (\x1b\[6n)?$"
QUIET = "quiet panic=-1"


class Guest(Process):
    """A virtual machine. extra: further options of `ferry run` (dropped with VMM=qemu). disks: raw images with their
    cache mode; net: "user", with hostfwd= as both know it; through: a command that starts the command."""

    def __init__(self, image=None, initrd=None, append=QUIET, memory=256, cpus=1, extra=(), terminal=True,
                 env=None, reset_limit=None, console=True, debug_exit=None, vmm=None, disks=(), net=None, through=()):
        self.vmm = vmm or VMM
        self.runtime = tempfile.mkdtemp(prefix="ferry-test-")
        if console and image is None or initrd:
            append = ("console=ttyS0 " + append).strip()
        image = image or kernel()
        if self.vmm == "qemu":
            command = ["qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-cpu", "max", "-nodefaults",
                       "-display", "none", "-chardev", "stdio,id=c,signal=off", "-serial", "chardev:c",
                       "-device", "pvpanic", "-m", str(memory), "-smp", str(cpus), "-kernel", image,
                       "-monitor", f"unix:{self.runtime}/monitor,server=on,wait=off"]
            if initrd:
                command += ["-initrd", initrd]
            if append:
                command += ["-append", append]
            if debug_exit is not None:
                command += ["-device", f"isa-debug-exit,iobase={debug_exit:#x},iosize=4"]
            if reset_limit == 0:
                command += ["-no-reboot"]
            for path, cache in disks:
                # QEMU's native asynchronous I/O; O_DIRECT or not is cache's.
                command += ["-drive", f"file={path},if=virtio,format=raw,cache={cache},aio=io_uring,discard=unmap"]
            if net:
                command += ["-nic", f"{net},model=virtio-net-pci"]
        else:
            command = [FERRY, "run", "--memory", f"{memory}M", "--cpus", str(cpus), "--name", "test"]
            if initrd:
                command += ["--initrd", initrd]
            if append:
                command += ["--append", append]
            if debug_exit is not None:
                command += ["--debug-exit", f"{debug_exit:#x}"]
            if reset_limit is not None:
                command += ["--reset-limit", str(reset_limit)]
            for path, cache in disks:
                command += ["--disk", f"{path},cache={cache}"]
            if net:
                command += ["--net", net]
            command += [*extra, image]
        super().__init__([*through, *command], terminal, dict(env or {}, FERRY_RUNTIME_DIR=self.runtime))

    def shell(self, timeout=120):
        """Waits for the prompt of the interactive guest."""
        self.expect(r"This is a guest of ferry", timeout, "the guest's greeting")
        self.expect(PROMPT, timeout, "a shell prompt")
        return self

    def run(self, command, timeout=60):
        """Types a command at the prompt; what it printed. The marker is computed by the guest's shell, so
        that the echo of the line is never taken for the answer."""
        self.line(command + '; echo "done-$((40+2)):$?"')
        match = self.expect(r"done-42:(\d+)\r*\n", timeout, f"the end of {command!r}")
        start = self.text.rfind(b"\n", 0, self.text.rfind(b'echo "done-', 0, match.start()))
        output = bytes(self.text[start + 1:match.start()]).decode(errors="replace")
        output = output.partition("\n")[2].replace("\r", "")
        if match.group(1) != b"0":
            raise Failure(f"{command!r} in the guest: exit code {match.group(1).decode()}:\n{output}")
        return output

    def poweroff(self, timeout=60):
        self.line("poweroff")
        return self.wait(timeout)

    def power_button(self):
        """Presses it: the guest is asked to end in order."""
        if self.vmm == "qemu":
            with socket.socket(socket.AF_UNIX) as monitor:
                monitor.connect(os.path.join(self.runtime, "monitor"))
                monitor.sendall(b"system_powerdown\n")
                monitor.recv(100)
            return
        code, out, err = ferry("stop", "--timeout", "120", "test", timeout=150,
                               env={"FERRY_RUNTIME_DIR": self.runtime})
        check(code == 0, f"ferry stop: {code}: {out}{err}{self.tail()}")

    def result(self, name, timeout=120):
        """Waits for the result line of a guest started with ferry.test=name; the exit code in the guest."""
        return int(self.expect(rf"^ferry: result {name} (\d+)\r*\n", timeout, f"the result of {name}").group(1))

    def close(self):
        super().close()
        shutil.rmtree(self.runtime, ignore_errors=True)


def linux_test(name, args="", cpus=2, memory=512, timeout=300, suite="bookworm", image="test", extra=(),
               env=None, append=QUIET):
    """Runs one programme in a fresh guest: (its exit code, everything printed)."""
    words = f"{append} ferry.test={name}" + (" ferry.args=" + args.replace(" ", ",") if args else "")
    with Guest(kernel(suite), initramfs(image), words, memory, cpus, extra, terminal=False, env=env,
               reset_limit=0) as guest:
        code = guest.result(name, timeout)
        guest.wait(30)
        return code, guest.stdout().replace("\r", "")


def multiboot_elf(code, path):
    """Writes the smallest multiboot 1 kernel: a 32-bit ELF with `code` entered in protected mode at 1 MiB."""
    magic, flags = 0x1BADB002, 0
    header = struct.pack("<III", magic, flags, (-(magic + flags)) & 0xFFFFFFFF) + b"\0" * 4
    body = header + code
    base, offset = 0x100000, 0x1000
    ehdr = b"\x7fELF\x01\x01\x01" + b"\0" * 9 + struct.pack(
        "<HHIIIIIHHHHHH", 2, 3, 1, base + len(header), 52, 0, 0, 52, 32, 1, 40, 0, 0)
    phdr = struct.pack("<IIIIIIII", 1, offset, base, base, len(body), len(body), 7, 0x1000)
    with open(path, "wb") as f:
        f.write((ehdr + phdr).ljust(offset, b"\0") + body)
    return path


def at_rate(rate):
    """Options of `ferry migrate`: it takes as long as that, whatever the guest has in its pages."""
    return ["--uncompressed", "--bandwidth", rate]


def ferry(*args, timeout=60, env=None, stdin=subprocess.DEVNULL):
    """Runs the ferry command: (exit code, stdout, stderr)."""
    done = subprocess.run([FERRY, *args], capture_output=True, text=True, errors="backslashreplace", stdin=stdin,
                          timeout=timeout * SCALE, env=dict(os.environ, **(env or {})))
    return done.returncode, done.stdout, done.stderr
