"""Disks with Debian's own driver and file systems: what the guest writes is what the host's file has, whatever
carries it out, and whatever happens to the host meanwhile."""
import contextlib
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from ferrytest import (EXIT_START, Guest, Process, Skip, check, each, ferry, guest_program, initramfs, kernel, limit,
                       linux_test, needs_ferry, slow)

MIB = 1 << 20
AIO = ["io_uring", "threads"]
PAIRS = ["io_uring none", "threads writeback"]  # each of both once: unit tests try all


def image(folder, mib, name="disk.img", data=b""):
    path = os.path.join(folder, name)
    with open(path, "wb") as f:
        f.write(data)
        f.truncate(mib * MIB)
    return path


def digest(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else \
            hashlib.sha256(f.read()).hexdigest()


def disk_test(args, *disks, timeout=300, cpus=2):
    """disk.sh with its arguments in a guest with these disks: what it printed."""
    extra = [word for disk in disks for word in ("--disk", disk)]
    code, out = linux_test("disk.sh", args, cpus=cpus, image="disk", extra=extra, timeout=timeout)
    check(code == 0, out[-2000:])
    return out


def image_digest(out):
    return re.search(r"^image (\w{64})", out, re.M).group(1)


def mechanism_options(aio, cache="writeback"):
    return f",aio={aio},cache={cache}"


@needs_ferry
@limit(600)
@each(how=["io_uring ext4", "threads xfs"])
def test_filesystem(how):
    aio, fs = how.split()
    with tempfile.TemporaryDirectory() as folder:
        path = image(folder, 64 if fs == "ext4" else 320)
        out = disk_test(f"filesystem {fs} 24", path + mechanism_options(aio))
        check(image_digest(out) == digest(path), "the host's file is not what the guest has written")


@needs_ferry
@limit(600)
@each(cache=["writethrough", "none", "unsafe"])
def test_cache(cache):
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path = image(folder, 64)
        out = disk_test("filesystem ext4 24", path + mechanism_options("auto", cache))
        check(image_digest(out) == digest(path), "the host's file is not what the guest has written")


def check_pieces(path, mib, options, timeout):
    """Four threads of the guest write pieces of all sizes, and the host finds each in its place."""
    code, out = linux_test("blkcheck", f"write /dev/vda {mib}", image="disk", extra=["--disk", path + options],
                           timeout=timeout)
    check(code == 0, out[-2000:])
    done = subprocess.run([guest_program("blkcheck"), "check", path, str(mib)], capture_output=True, text=True)
    check(done.returncode == 0, done.stdout)


@needs_ferry
@limit(600)
@each(how=PAIRS)
def test_pieces(how):
    aio, cache = how.split()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        check_pieces(image(folder, 64), 64, mechanism_options(aio, cache), 300)


@slow
@needs_ferry
@limit(3600)
@each(aio=AIO, cache=["writeback", "none"])
def test_large(aio, cache):
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path = image(folder, 1536)
        check_pieces(path, 1024, mechanism_options(aio, cache), 1500)
        out = disk_test("filesystem ext4 1024", path + mechanism_options(aio, cache), timeout=1500)
        check(image_digest(out) == digest(path), "the host's file is not what the guest has written")


@needs_ferry
@limit(300)
def test_info():
    """Order, size, serial number, read-only; an image that may not be written to."""
    with tempfile.TemporaryDirectory() as folder:
        first = image(folder, 16, "first.img", os.urandom(MIB))
        second = image(folder, 8, "second.img")
        os.chmod(first, 0o400)
        before = digest(first)
        out = disk_test("info", first + ",ro,serial=FERRY-0001", second + ",cache=writethrough")
        check("disks vda vdb" in out, out[-2000:])
        check(f"size {16 * 2048} ro 1 serial FERRY-0001" in out, out[-2000:])
        check("logical 512 physical 4096" in out and "discard 0 zeroes 0 queues 2" in out, out[-2000:])
        check(image_digest(out) == before, "the guest has read something else")
        out = disk_test("info", second + ",cache=writethrough")
        check("cache write through" in out and "discard 1073741824 zeroes 1073741824" in out, out[-2000:])
        disk_test("write-refused", first + ",ro")
        check(digest(first) == before, "a read-only disk has been written to")


LAST_SEQUENCE = "quiet panic=-1 ferry.test=lastseq ferry.args=write,/dev/vda,0,16"


def durable(guest):
    """The number of the last record that the guest has called durable."""
    numbers = re.findall(r"^durable (\d+)\r*\n", guest.stdout(), re.M)
    check(numbers, guest.tail())
    return int(numbers[-1])


def check_sequence(path, number):
    done = subprocess.run([guest_program("lastseq"), "check", path, str(number), "16"], capture_output=True, text=True)
    check(done.returncode == 0, done.stdout)


@needs_ferry
@limit(300)
@each(how=PAIRS)
def test_killed(how):
    """kill -9 in the middle of a load: everything that was flushed is there."""
    aio, cache = how.split()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path = image(folder, 4)
        for seconds in (0.5, 1.2):
            with Guest(kernel(), initramfs("disk"), LAST_SEQUENCE, cpus=2, terminal=False,
                       extra=["--disk", path + mechanism_options(aio, cache)]) as guest:
                guest.expect(r"^durable (\d+)", 120)
                time.sleep(seconds)
                guest.kill(signal.SIGKILL)
                guest.wait()
                check_sequence(path, durable(guest))


@needs_ferry
@limit(300)
def test_discard():
    """fstrim in the guest gives the host its space back."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path = image(folder, 128)
        with Guest(kernel(), initramfs("disk"), "quiet panic=-1 ferry.test=disk.sh ferry.args=discard,64", cpus=2,
                   reset_limit=0, extra=["--disk", path]) as guest:
            guest.expect("^full", 120)
            full = os.stat(path).st_blocks * 512
            check(full > 64 * MIB, f"the host's file has {full} bytes only")
            guest.line("go on")
            check(guest.result("disk.sh") == 0, guest.tail())
            left = os.stat(path).st_blocks * 512
            check(left < full - 60 * MIB, f"{full} bytes, and {left} are left")


class SmallHost:
    """A host's file system of a few MiB (and, if said, so many files), in a mount namespace of its own; ferry runs in
    there."""

    def __init__(self, mib, files=0):
        self.folder = tempfile.mkdtemp(prefix="ferry-small-")
        limits = f"size={mib}m,nr_inodes={files}"
        script = f"mount -t tmpfs -o {limits} small {self.folder} && echo ready && read -r _"
        wrap = ["unshare", "-m"] if os.getuid() == 0 else ["unshare", "-rm"]
        self.keeper = Process([*wrap, "sh", "-c", script], terminal=False)
        try:
            self.keeper.expect("^ready", 10)
        except Exception:
            reason = self.keeper.stderr()
            self.close()
            raise Skip(f"no mount namespace here: {reason.strip()}") from None
        self.inside = f"/proc/{self.keeper.pid}/root{self.folder}"
        self.enter = ["nsenter", "-t", str(self.keeper.pid), "-m"] + ([] if os.getuid() == 0 else ["-U"])

    def close(self):
        self.keeper.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


@needs_ferry
@limit(300)
@each(aio=AIO)
def test_full_report(aio):
    """The host's disk is full and the guest is to hear of it: an I/O error, and everything before it is there."""
    with SmallHost(24) as host:
        path = image(host.inside, 64)
        name = os.path.join(host.folder, "disk.img")
        with Guest(kernel(), initramfs("disk"), "quiet panic=-1 ferry.test=disk.sh ferry.args=fill,64", cpus=2,
                   terminal=False, reset_limit=0, through=host.enter,
                   extra=["--disk", name + mechanism_options(aio) + ",enospc=report"]) as guest:
            match = guest.expect(r"^written (\d+): (.*)\r*\n", 200)
            check(guest.wait() == 0, guest.tail())
            check(16 <= int(match.group(1)) <= 24 and b"Input/output" in match.group(2), guest.tail())
            check("No space left on device" in guest.stderr(), guest.tail())
        check(os.stat(path).st_blocks * 512 >= 16 * MIB, "less than what was written")


@needs_ferry
@limit(300)
@each(aio=AIO)
def test_full_stop(aio):
    """The host's disk is full: the guest stands still, and goes on as if nothing had been when there is room again."""
    with SmallHost(32) as host:
        image(host.inside, 64)
        filler = os.path.join(host.inside, "filler")
        with open(filler, "wb") as f:
            f.write(b"x" * 24 * MIB)
        name = os.path.join(host.folder, "disk.img")
        with Guest(kernel(), initramfs("disk"), "quiet panic=-1 ferry.test=blkcheck ferry.args=write,/dev/vda,16", cpus=2,
                   terminal=False, reset_limit=0, through=host.enter,
                   extra=["--disk", name + mechanism_options(aio)]) as guest:
            env = {"FERRY_RUNTIME_DIR": guest.runtime}
            guest.await_error("the host has no space left", 120)
            guest.await_error("Make room, then: ferry resume test")
            for _ in range(100):
                state = ferry("info", "test", env=env)[1]
                if "io-error" in state:
                    break
                time.sleep(0.1)
            check("io-error" in state, state)
            os.unlink(filler)
            code, _, err = ferry("resume", "test", env=env)
            check(code == 0, err)
            check(guest.result("blkcheck") == 0, guest.tail())
            check(guest.wait() == 0, guest.tail())
        done = subprocess.run([guest_program("blkcheck"), "check", os.path.join(host.inside, "disk.img"), "16"],
                              capture_output=True, text=True)
        check(done.returncode == 0, done.stdout)


@needs_ferry
@limit(300)
def test_shrunk():
    """The file has become shorter behind the guest: errors for what is gone, and nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        path = image(folder, 64)
        with Guest(kernel(), initramfs("disk"), "quiet panic=-1 ferry.test=disk.sh ferry.args=reads,64", cpus=2,
                   terminal=False, reset_limit=0, extra=["--disk", path]) as guest:
            guest.expect("ferry: init", 60)
            os.truncate(path, 40 * MIB)
            guest.expect("^readable 40", 200)
            check(guest.wait() == 0, guest.tail())
            check("the file has become shorter" in guest.stderr(), guest.tail())


@contextlib.contextmanager
def loop_device(path):
    """A block device over a file."""
    done = subprocess.run(["losetup", "--find", "--show", "--direct-io=off", path], capture_output=True, text=True)
    if done.returncode:
        raise Skip(f"no loop device: {done.stderr.strip()}")
    try:
        yield done.stdout.strip()
    finally:
        subprocess.run(["losetup", "--detach", done.stdout.strip()], check=True)


@needs_ferry
@limit(300)
@each(how=PAIRS)
def test_block_device(how):
    aio, cache = how.split()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path = image(folder, 64)
        with loop_device(path) as device:
            out = disk_test("filesystem ext4 24", device + mechanism_options(aio, cache))
        check(image_digest(out) == digest(path), "the device does not hold what the guest has written")


@needs_ferry
@limit(120)
def test_second_opener():
    """Who has the disk is said by name, whether a ferry or a QEMU."""
    with tempfile.TemporaryDirectory() as folder:
        path = image(folder, 16)
        with Guest(kernel(), initramfs("disk"), extra=["--disk", path]) as guest:
            guest.shell()
            for options in ["", ",ro"]:
                code, _, err = ferry("run", "--disk", path + options, kernel())
                check(code == EXIT_START and f"{path} is in use by process {guest.pid} (ferry)" in err, err)
            if shutil.which("qemu-io"):
                done = subprocess.run(["qemu-io", "-f", "raw", "-c", "write 0 512", path], capture_output=True,
                                      text=True)
                check(done.returncode and "lock" in done.stderr, "QEMU opens it, too")
            check(guest.poweroff() == 0, guest.tail())
        code, _, err = ferry("run", "--disk", path, "--disk", path, kernel())
        check(code == EXIT_START and "is in use by another disk of this machine" in err, err)


def helpers(pid):
    """The qemu-nbd processes that a ferry has started."""
    found = subprocess.run(["pgrep", "-P", str(pid), "qemu-nbd"], capture_output=True, text=True)
    return [int(n) for n in found.stdout.split()]


@needs_ferry
@limit(300)
def test_qcow2():
    if not shutil.which("qemu-nbd") or not shutil.which("qemu-img"):
        raise Skip("no qemu-nbd (qemu-utils)")
    with tempfile.TemporaryDirectory() as folder:
        path, raw = os.path.join(folder, "disk.qcow2"), os.path.join(folder, "disk.raw")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "64M"], check=True)
        out = disk_test("filesystem ext4 24", path)
        subprocess.run(["qemu-img", "check", "-q", path], check=True)
        subprocess.run(["qemu-img", "convert", "-O", "raw", path, raw], check=True)
        check(image_digest(out) == digest(raw), "the image is not what the guest has written")
        with Guest(kernel(), initramfs("disk"), LAST_SEQUENCE, cpus=2,
                   terminal=False, extra=["--disk", path]) as guest:
            guest.expect(r"^durable (\d+)", 120)
            servers = helpers(guest.pid)
            check(len(servers) == 1, f"{len(servers)} helpers")
            # ferry alone: the helper notices by itself.
            os.kill(guest.pid, signal.SIGKILL)
            guest.wait()
            number = durable(guest)
        for _ in range(100):
            if not os.path.exists(f"/proc/{servers[0]}"):
                break
            time.sleep(0.1)
        check(not os.path.exists(f"/proc/{servers[0]}"), "the helper has outlived ferry")
        subprocess.run(["qemu-img", "check", "-q", path], check=True)
        subprocess.run(["qemu-img", "convert", "-O", "raw", path, raw], check=True)
        check_sequence(raw, number)


@needs_ferry
@limit(300)
@each(where=["unix", "tcp"])
def test_nbd_server(where):
    """A disk that somebody else's server holds."""
    if not shutil.which("qemu-nbd"):
        raise Skip("no qemu-nbd (qemu-utils)")
    with tempfile.TemporaryDirectory() as folder:
        path, address = image(folder, 64), os.path.join(folder, "nbd.sock")
        if where == "unix":
            disk, listen = f"nbd+unix:///?socket={address}", ["-k", address]
        else:
            with socket.create_server(("127.0.0.1", 0)) as probe:
                port = probe.getsockname()[1]
            disk, listen = f"nbd://127.0.0.1:{port}", ["-b", "127.0.0.1", "-p", str(port)]
        code, _, err = ferry("run", "--disk", disk, kernel())
        check(code == EXIT_START and disk in err, f"no server: {code}: {err}")
        with Process(["qemu-nbd", "--format=raw", "--persistent", *listen, path], terminal=False):
            for _ in range(100):
                with socket.socket(socket.AF_UNIX if where == "unix" else socket.AF_INET) as probe:
                    if probe.connect_ex(address if where == "unix" else ("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            out = disk_test("filesystem ext4 24", disk)
        check(image_digest(out) == digest(path), "the server's file is not what the guest has written")


@needs_ferry
@limit(300)
def test_helper_killed():
    """The helper of an image dies: errors for the guest, a message, and the guest goes on."""
    if not shutil.which("qemu-nbd") or not shutil.which("qemu-img"):
        raise Skip("no qemu-nbd (qemu-utils)")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "disk.qcow2")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "64M"], check=True)
        with Guest(kernel(), initramfs("disk"), LAST_SEQUENCE, cpus=2,
                   terminal=False, reset_limit=0, extra=["--disk", path]) as guest:
            guest.expect(r"^durable (\d+)", 120)
            os.kill(helpers(guest.pid)[0], signal.SIGKILL)
            check(guest.result("lastseq") == 2, guest.tail())
            check(guest.wait() == 0, guest.tail())
            check("qemu-nbd was killed by signal 9" in guest.stderr(), guest.tail())
