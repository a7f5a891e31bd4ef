"""Several processors at once: the self-checking stress suite, its negative controls, stress-ng."""
import os
import re
import signal
import subprocess

from ferrytest import (Failure, check, each, guest_program, initramfs, limit, linux_test, needs_ferry, slow)

SECONDS = int(os.environ.get("STRESS_SECONDS", "300"))


def report(out):
    """The lines "STRESS name checks=N errors=N" as {name: (checks, errors)}."""
    return {m[0]: (int(m[1]), int(m[2]))
            for m in re.findall(r"^STRESS (\S+) checks=(\d+) errors=(\d+)", out, re.M)}


def stress(seconds, cpus, names="", timeout=None, **options):
    code, out = linux_test("smpstress", f"{seconds} {names}".strip(), cpus, timeout=timeout or seconds * 2 + 240,
                           **options)
    results = report(out)
    check(results, f"smpstress reported nothing:\n{out[-3000:]}")
    return code, out, results


def all_green(code, out, results, count):
    red = [n for n, (checks, errors) in results.items() if errors or not checks]
    check(code == 0 and not red, f"red: {', '.join(red) or 'exit code %d' % code}\n{out[-4000:]}")
    check(len(results) == count, f"{len(results)} of {count} tests reported")
    for bad in ("BUG:", "WARNING: CPU", "Call Trace", "segfault", "rcu_sched", "lockup"):
        check(bad not in out, f"the kernel says {bad!r}:\n{out[-4000:]}")
    print(f"note: {sum(c for c, _ in results.values())} checks")


COUNT = 20


@limit(600)
@each(cpus=[2, 4])
def test_stress(cpus):
    all_green(*stress(25, cpus), COUNT)


@slow
@each(suite=["bookworm", "trixie"], cpus=[2, 4, 8])
@limit(3 * SECONDS + 600)
def test_stress_long(suite, cpus):
    all_green(*stress(SECONDS, cpus, suite=suite), COUNT)


@limit(60)
def test_stress_says_what_crashed():
    """An unexpected fault in the suite must say what it was; here on the host, as no guest has a part in it."""
    done = subprocess.run([guest_program("smpstress"), "1", "crash"], capture_output=True, text=True, timeout=50)
    check(done.returncode == -signal.SIGSEGV, f"it ended with {done.returncode}")
    match = re.search(r"^crash: unexpected signal 0xb code 0x2 address (0x[0-9a-f]+123)\nvector 0xe error code 0x6 "
                      r"cr2 \1 rip 0x[0-9a-f]+ ", done.stdout, re.M)
    check(match, f"it says: {done.stdout}")
    page = f"{int(match[1], 16) & ~0xfff:08x}"
    check(re.search(rf"^{page}-[0-9a-f]+ r--p", done.stdout, re.M), f"no mapping of {page}: {done.stdout}")


@needs_ferry
@limit(400)
@each(off=["remote-flush", "remote-code"])
def test_negative_control(off):
    """With one duty of the engine switched off the suite must turn red, or its green means nothing."""
    names = "code-same code-alias code-kernel code-remap"
    try:
        code, _, results = stress(8, 2, names, timeout=30, env={"FERRY_TEST": "no-" + off})
    except Failure:
        # Red enough, if it is no slow machine: all that is there, it gets through in the same time.
        all_green(*stress(8, 2, names, timeout=120), 4)
        print("note: the guest did not survive it")
        return
    red = {n: e for n, (_, e) in results.items() if e}
    check(code != 0 and red, f"without {off} the stress suite stays green: it proves nothing")
    print("note: red as it should be: " + ", ".join(f"{n} {e} errors" for n, e in red.items()))


def stress_ng(seconds, cpus, names=""):
    code, out = linux_test("stressng.sh", f"{seconds} {names}".strip(), cpus, memory=512 + 384 * cpus, timeout=1500,
                           image="stress-ng")
    ok = re.findall(r"^stressng: (\S+) ok", out, re.M)
    failed = re.findall(r"^stressng: .*FAILED.*", out, re.M)
    check(code == 0 and not failed, "\n".join(failed) + "\n" + out[-4000:])
    check(ok, f"no stressor ran:\n{out[-2000:]}")
    print(f"note: {len(ok)} stressors ok")
    return ok


@limit(600)
def test_stress_ng():
    """Debian's stress-ng --verify, a few seconds for each stressor."""
    stress_ng(2, 2, "cpu matrix vm mmap fork pthread mutex switch pipe sigsegv atomic memcpy")


@slow
@limit(2400)
@each(cpus=[2, 4])
def test_stress_ng_long(cpus):
    stress_ng(20, cpus)
