"""The freestanding guests of tests/guest/x86: what the processor's manual promises, case by case."""
import os
import re

from ferrytest import BUILD, TOP, Failure, Guest, check, each, limit

IMAGES = os.path.join(BUILD, "release", "guest", "x86")
with open(os.path.join(TOP, "tests/guest/x86/Makefile")) as makefile:
    NAMES = re.search(r"^TESTS := (.*)", makefile.read(), re.M).group(1).split()


@limit(300)
@each(name=NAMES)
def test_guest(name):
    image = os.path.join(IMAGES, name + ".elf")
    check(os.path.exists(image), f"{image} is not there: run `make guest-x86`")
    with Guest(image, append="", memory=256, cpus=2, terminal=False, reset_limit=0, debug_exit=0xf4) as guest:
        code = guest.wait(240)
        out = guest.stdout().replace("\r", "")
    fails = re.findall(r"^FAIL .*", out, re.M)
    done = re.search(r"^DONE passed (\d+) failed (\d+) skipped (\d+)", out, re.M)
    check(done, f"{name} did not come to its end (exit code {code})" + guest.tail(40))
    passed, failed, skipped = map(int, done.groups())
    check(not failed and not fails and passed and code == 1, f"exit code {code}, {failed} of {passed + failed} "
          "cases failed:\n" + "\n".join(fails))
    print(f"note: {passed} cases passed, {skipped} skipped")
    for skip in re.findall(r"^SKIP (.*)", out, re.M):
        print("note: skipped " + skip)
