"""Guests whose memory is not here when they start: it comes page by page while they boot and work, in random order and
on demand. Until it comes a page holds rubbish on the host's side."""
import hashlib
import json
import os
import re
import tempfile
import time

from ferrytest import QUIET, Guest, check, each, ferry, initramfs, kernel, limit, needs_ferry

BAD = ("BUG:", "WARNING: CPU", "Call Trace", "segfault", "lockup", "spurious", "unstable")
MEMORY = 256


def missing_test(name, args, cpus, how, image="test", extra=(), timeout=300):
    """A guest programme that must end well, with all of memory brought, each page asked for at most once: (what the
    guest printed, pages that were asked for, its statistics)."""
    with tempfile.TemporaryDirectory(prefix="ferry-test-") as folder:
        stats = os.path.join(folder, "stats.json")
        words = f"{QUIET} ferry.test={name} ferry.args={args.replace(' ', ',')}"
        with Guest(kernel(), initramfs(image), words, MEMORY, cpus, ["--stats", stats, *extra], terminal=False,
                   reset_limit=0, env={"FERRY_TEST": how}) as guest:
            code = guest.result(name, timeout)
            guest.wait(60)
            out, err = guest.stdout().replace("\r", ""), guest.stderr()
        for bad in BAD:
            check(bad not in out, f"the kernel says {bad!r}:\n{out[-4000:]}")
        check(code == 0, f"{name} ended with {code}:\n{out[-3000:]}")
        found = re.search(r"missing pages: (\d+) have come, (\d+) were asked for \((\d+) twice\)", err)
        check(found, f"memory was not complete when the guest ended:\n{err[-2000:]}")
        come, asked, twice = (int(n) for n in found.groups())
        check(come == MEMORY * 256 and not twice, found.group())
        with open(stats, encoding="utf-8") as f:
            return out, asked, json.load(f)


def waits(stats):
    return sum(vcpu["page-waits"] for vcpu in stats["vcpus"])


@needs_ferry
@limit(400)
@each(cpus=[1, 4])
def test_stress(cpus):
    """What is asked for comes at once, the rest within a few seconds."""
    _, asked, stats = missing_test("smpstress", "5 atomics mutex pingpong fork exec timer-signals clock fpu", cpus,
                                   "missing=5000")
    check(asked > 500 and waits(stats) > 500, f"{asked} pages asked for, {waits(stats)} waits")
    print(f"note: {asked} of {MEMORY * 256} pages were asked for, {waits(stats)} waits of vCPUs")


@needs_ferry
@limit(400)
def test_long_waits():
    """Nothing comes because it was asked for: vCPUs wait long, and meanwhile the machine's state is taken out, wiped and
    put back, which stops and starts them while they wait."""
    _, _, stats = missing_test("smpstress", "5 atomics pingpong fork exec timer-signals clock fpu", 2,
                               "missing=4000,missing-deaf,roundtrip=10")
    check(waits(stats) > 100, f"{waits(stats)} waits")
    check(stats["roundtrips"] > 50, f"{stats['roundtrips']} round trips")
    print(f"note: {waits(stats)} waits, {stats['roundtrips']} round trips")


@needs_ferry
@limit(400)
def test_disk():
    """The disk's requests wait for pages that are missing, and what arrives is what the guest has written."""
    with tempfile.TemporaryDirectory(prefix="ferry-test-") as folder:
        path = os.path.join(folder, "disk.img")
        with open(path, "wb") as f:
            f.truncate(64 << 20)
        out, _, _ = missing_test("disk.sh", "filesystem ext4 24", 2, "missing=8000", "disk", ["--disk", path])
        with open(path, "rb") as f:
            digest = hashlib.sha256(f.read()).hexdigest()
        check(f"image {digest}" in out, "the host's file is not what the guest has written")


def quick(env, *args):
    begin = time.monotonic()
    code, out, err = ferry(*args, env=env)
    check(code == 0, f"{args}: {code}: {out}{err}")
    check(time.monotonic() - begin < 10, f"{args} took {time.monotonic() - begin:.1f} s")
    return out


@needs_ferry
@limit(120)
def test_control():
    """vCPUs that wait for what never comes: the control socket answers, they can be paused and ended."""
    with Guest(kernel(), initramfs("test"), QUIET, MEMORY, 2, terminal=False,
               env={"FERRY_TEST": "missing=3600000,missing-deaf"}) as guest:
        env = {"FERRY_RUNTIME_DIR": guest.runtime}
        for _ in range(100):
            if ferry("info", "test", env=env)[0] == 0 and waits(json.loads(quick(env, "stats", "--json", "test"))):
                break
            time.sleep(0.1)
        before = waits(json.loads(quick(env, "stats", "--json", "test")))
        check(before, "no vCPU waits")
        for _ in range(3):
            quick(env, "pause", "test")
            check("state: paused" in quick(env, "info", "test"), "not paused")
            quick(env, "resume", "test")
        check("state: running" in quick(env, "info", "test"), "not running")
        for _ in range(100):
            if waits(json.loads(quick(env, "stats", "--json", "test"))) > before:
                break
            time.sleep(0.1)
        else:
            check(False, "it did not wait again")
        check(guest.cpu_seconds() < 60, "it waits busily")
        quick(env, "kill", "test")
        guest.wait(20)
