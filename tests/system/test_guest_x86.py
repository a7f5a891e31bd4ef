"""The freestanding guests of tests/guest/x86: what the processor's manual promises, case by case.

Each image prints "PASS name", "FAIL name: what" or "SKIP name: why", and "DONE passed N failed N skipped N" at
its end. tests/guest/x86/known-failures lists the cases that are known to fail on ferry or on QEMU and why: those do
not fail the test, but one that passes must leave the list, so that it cannot hide anything later.
"""
import os
import re

from ferrytest import BUILD, TOP, VMM, Failure, Guest, check, each, limit, needs_ferry

IMAGES = os.path.join(BUILD, "release", "guest", "x86")
KNOWN = os.path.join(TOP, "tests/guest/x86/known-failures")
with open(os.path.join(TOP, "tests/guest/x86/Makefile")) as makefile:
    NAMES = re.search(r"^TESTS := (.*)", makefile.read(), re.M).group(1).split()
PARALLEL = ["smp", "smc"]  # these use all processors that there are


def known_failures(vmm):
    """Case -> may it also pass (it depends on timing)?"""
    known = {}
    with open(KNOWN) as lines:
        for line in lines:
            if line.strip() and not line.startswith("#"):
                who, how, case = line.strip().split(None, 2)
                if who == vmm:
                    known[case] = how == "sometimes"
    return known


def run(name, cpus, timeout, env=None):
    """The output of an image that came to its end."""
    image = os.path.join(IMAGES, name + ".elf")
    check(os.path.exists(image), f"{image} is not there: run `make guest-x86`")
    append = f"cpus={cpus}" + (" qemu=1" if VMM == "qemu" else "")
    with Guest(image, append=append, memory=128, cpus=cpus, terminal=False, reset_limit=0,
               debug_exit=0xf4, env=env) as guest:
        code = guest.wait(timeout)
        out = guest.stdout().replace("\r", "")
        tail = guest.tail(40)
    done = re.search(r"^DONE passed (\d+) failed (\d+) skipped (\d+)", out, re.M)
    check(done, f"{name} did not come to its end (exit code {code}){tail}")
    counts = [len(re.findall(rf"^{word} ", out, re.M)) for word in ("PASS", "SKIP")]
    check(counts == [int(done.group(1)), int(done.group(3))],
          f"{name}: the lines do not match the sum {done.group(0)!r}: output was lost{tail}")
    check(code == (3 if int(done.group(2)) else 1), f"{name}: exit code {code} after {done.group(0)!r}")
    return out


def judge(out):
    passed = set(re.findall(r"^PASS (.*)", out, re.M))
    lines = re.findall(r"^FAIL (.*)", out, re.M)
    known = known_failures(VMM)
    wrong, expected = [], set()
    for line in lines:
        # Case names hold colons of their own: the longest known name that fits.
        case = max((k for k in known if line.startswith(k + ":")), key=len, default=None)
        if case is None:
            wrong.append(line)
        else:
            expected.add(case)
    for case in sorted(expected):
        print("note: known failure: " + case)
    for skip in re.findall(r"^SKIP (.*)", out, re.M):
        print("note: skipped " + skip)
    stale = sorted(c for c, sometimes in known.items() if c in passed and not sometimes)
    print(f"note: {len(passed)} cases passed")
    if wrong:
        raise Failure(f"{len(wrong)} lines of failure:\n" + "\n".join(wrong))
    check(passed, "no case passed")
    check(not stale, "these pass now, take them out of known-failures:\n" + "\n".join(stale))


@limit(300)
@each(name=[n for n in NAMES if n not in PARALLEL])
def test_one_processor(name):
    judge(run(name, 1, 200))


@limit(400)
@each(name=PARALLEL, cpus=[1, 2, 4])
def test_processors(name, cpus):
    judge(run(name, cpus, 300))


@needs_ferry
@limit(300)
@each(control=["no-remote-code", "no-remote-flush"])
def test_negative_control(control):
    """Without that part of ferry the cases between processors must turn red, or they prove nothing."""
    out = run("smc", 2, 200, env={"FERRY_TEST": control})
    wrong = {case for case in re.findall(r"^FAIL (smc: [^:]*)", out, re.M)}
    check("smc: another processor rewrites, with handshake" in wrong, f"not noticed with {control}: {sorted(wrong)}")
    passed = re.findall(r"^PASS ", out, re.M)
    check(passed, "nothing passed: not only the part that is switched off is broken")
