"""virtio devices with Debian's own drivers, undisturbed and with the machine's state going back and forth."""
import hashlib
import json
import os
import random
import socket
import tempfile
import time

from ferrytest import (EXIT_START, SCALE, Failure, Guest, check, each, ferry, initramfs, kernel, limit, linux_test,
                       needs_ferry)


@limit(300)
@each(cpus=[1, 2])
def test_rng(cpus):
    code, out = linux_test("virtio.sh", "rng", cpus, image="virtio")
    check(code == 0 and "virtio_rng.0" in out and "result virtio.sh 0" in out, out[-2000:])


def connect(path, timeout=30):
    line = socket.socket(socket.AF_UNIX)
    line.settimeout(120)
    for _ in range(timeout * 10):
        try:
            line.connect(path)
            return line
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"nobody listens at {path}")


@needs_ferry
@limit(300)
@each(roundtrips=[False, True])
def test_console(roundtrips):
    """Both directions byte for byte."""
    env = {"FERRY_TEST": "roundtrip=20"} if roundtrips else {}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "c.sock")
        with Guest(kernel(), initramfs("virtio"), "quiet panic=-1 ferry.test=virtio.sh ferry.args=console",
                   cpus=2, terminal=False, extra=["--console", "socket=" + path], env=env) as guest:
            line = connect(path)
            got = b""
            while not got.endswith(b"ready\n"):
                piece = line.recv(5000)
                check(piece, f"the console was closed{guest.tail()}")
                got += piece
            want = b"".join(b"%d\n" % n for n in range(1, 5001)) + b"ready\n"
            check(got == want, f"{len(got)} bytes came, not those {len(want)} that were sent")
            data = random.Random(1).randbytes(100000)
            line.sendall(data)
            guest.expect(hashlib.md5(data).hexdigest(), 120)
            check(guest.wait() == 0, guest.tail())


def wait_resident(guest, below, timeout=60):
    for _ in range(int(timeout * SCALE)):
        if guest.resident() < below:
            return
        time.sleep(1)
    raise Failure(f"{guest.resident()} MiB are still resident, not less than {below}{guest.tail()}")


@needs_ferry
@limit(300)
@each(shared=[False, True])
def test_free_page_reporting(shared):
    """What the guest frees goes back to the host by itself."""
    with Guest(kernel(), initramfs("virtio"), memory=600, cpus=2,
               extra=["--memory", "600M,shared"] if shared else []).shell() as guest:
        guest.run("mount -o remount,size=400m /dev/shm")
        before = guest.resident()
        guest.run("dd if=/dev/zero of=/dev/shm/a bs=1M count=300 2>/dev/null", 120)
        full = guest.resident()
        check(full > before + 250, f"{before} MiB before, {full} MiB with 300 MiB in use")
        guest.run("rm /dev/shm/a")
        wait_resident(guest, full - 230)
        # And it can be used again.
        guest.run("cd /dev/shm; for f in a b; do for i in $(seq 40); do cat /bin/busybox; done >$f; done; cmp a b", 120)
        check(guest.poweroff() == 0, guest.tail())


@needs_ferry
@limit(300)
@each(cpus=[1, 2])
def test_balloon(cpus):
    """A guest gives memory up on request and takes it back; what it says of its memory is heard."""
    with Guest(kernel(), initramfs("virtio"), memory=512, cpus=cpus).shell() as guest:
        def balloon(*args):
            code, out, err = ferry("balloon", *args, env={"FERRY_RUNTIME_DIR": guest.runtime})
            check(code == 0, err)
            return out

        def wait_for(what, condition):
            for _ in range(int(60 * SCALE)):
                said = json.loads(balloon("--json"))
                if condition(said):
                    return said
                time.sleep(1)
            raise Failure(f"{what}: {said}{guest.tail()}")

        def memory():
            return int(guest.run("grep MemFree /proc/meminfo").split()[1]) >> 10

        check("memory of the guest: 512 MiB" in balloon(), balloon())
        free = memory()
        balloon("test", "256M")
        said = wait_for("never that small", lambda said: said["actual"] == 256 << 20)
        small = memory()
        check(free - 266 < small < free - 246, f"{free} MiB free before, {small} MiB with 256 MiB less")
        check(said["inflated-bytes"] >= 256 << 20, said)
        wait_for("nothing is known of the guest's memory", lambda said: "free-memory" in said and
                 said["free-memory"] < said["total-memory"] < 512 << 20)
        # And back.
        balloon("test", "512M")
        wait_for("never that large", lambda said: said["actual"] == 512 << 20)
        check(memory() > free - 10, f"{free} MiB free before, {memory()} MiB after")
        code, _, err = ferry("balloon", "test", "513M", env={"FERRY_RUNTIME_DIR": guest.runtime})
        check(code == EXIT_START and "512 MiB" in err, err)
        check(guest.poweroff() == 0, guest.tail())
