"""The state of the whole machine, taken out, wiped and put back at random moments while a guest boots and works: it
must go on as if nothing had happened."""
import json
import os
import tempfile

from ferrytest import check, each, limit, linux_test, needs_ferry

BAD = ("BUG:", "WARNING: CPU", "Call Trace", "segfault", "lockup", "spurious", "unstable")


@needs_ferry
@limit(400)
@each(cpus=[1, 2, 4])
def test_roundtrip(cpus):
    with tempfile.TemporaryDirectory(prefix="ferry-test-") as folder:
        stats = os.path.join(folder, "stats.json")
        names = "atomics mutex pingpong fork exec timer-signals clock fpu ptrace user32"
        code, out = linux_test("smpstress", f"10 {names}", cpus, timeout=300, append="",
                               extra=("--stats", stats), env={"FERRY_TEST": "roundtrip=10"})
        for bad in BAD:
            check(bad not in out, f"the kernel says {bad!r}:\n{out[-4000:]}")
        check(code == 0, f"smpstress ended with {code}:\n{out[-3000:]}")
        with open(stats) as f:
            done = json.load(f)["roundtrips"]
        check(done >= 100, f"only {done} round trips")
        print(f"note: {done} round trips")
