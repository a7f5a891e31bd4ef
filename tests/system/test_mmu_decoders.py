"""The tables of mmu/ under the eyes of emulated processors (tests/decoders): some accesses of every format; `make
mmu-decoders` does thousands of them."""
import os
import sys

from ferrytest import TOP, Skip, check, each, limit, needs_ferry

sys.path.insert(0, os.path.join(TOP, "tests", "decoders"))
import decoders  # noqa: E402  (found there)

SEED = 1  # tests/decoders/decoders.py --seed N tries others


@needs_ferry
@limit(600)
@each(machine=list(decoders.MACHINES))
def test_processor(machine):
    """What a processor does with each access, and the address of each fault, is what was expected."""
    if decoders.missing(machine):
        raise Skip(f"there is no {decoders.missing(machine)} here")
    failures, text = decoders.run(machine, SEED, 200)
    print(text)
    check(failures == 0, f"{failures} failures:\n{text}")


@needs_ferry
@limit(600)
def test_wrong_tables():
    """The negative control: another page behind one address is seen."""
    if decoders.missing("riscv32"):
        raise Skip(f"there is no {decoders.missing('riscv32')} here")
    failures, text = decoders.run("riscv32", 1, 100, broken=True)
    check(failures > 0 and "another address" in text, f"wrong tables were not found:\n{text}")
