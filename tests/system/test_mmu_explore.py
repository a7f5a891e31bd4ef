"""Every interleaving of small programs over mmu/ (tests/explore), within bounds; `make mmu-explore` goes further, and
`make mmu-mutants` shows that planted mistakes are found."""
import os
import subprocess

from ferrytest import TOP, check, each, limit, needs_ferry

EXPLORE = os.path.join(TOP, os.environ.get("BUILD", "build"), "explore", "explore")


@needs_ferry
@limit(300)
@each(bounds=["-p 2 -s 0", "-p 1 -s 1"])
def test_interleavings(bounds):
    """No schedule, and nothing that a weak memory model lets a load see, breaks an oracle."""
    done = subprocess.run([EXPLORE, *bounds.split()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace")
    print(done.stdout[-4000:])
    check(done.returncode == 0, "an interleaving fails; its steps are above")
    check(" 0 scenarios cut short" in done.stdout, "not every interleaving was tried")
