"""Code that a device writes: every processor runs the new one, whatever it had translated before."""
import os
import subprocess
import tempfile

from ferrytest import QUIET, Guest, check, each, guest_program, initramfs, kernel, needs_ferry

ROUNDS = 400


def run(cpus, env=None):
    with tempfile.TemporaryDirectory(prefix="ferry-test-") as folder:
        image = os.path.join(folder, "code.img")
        subprocess.run([guest_program("dmacode"), "make", image], check=True)
        append = f"{QUIET} ferry.test=dmacode ferry.args=/dev/vda,{ROUNDS}"
        with Guest(kernel(), initramfs("io"), append, 256, cpus, terminal=False, reset_limit=0, env=env,
                   disks=[(image, "writeback")]) as guest:
            code = guest.result("dmacode", 120)
            guest.wait(30)
            return code, guest.stdout()


@each(cpus=[1, 2, 4])
def test_disk(cpus):
    code, out = run(cpus)
    check(code == 0 and f"{ROUNDS} rounds on {cpus} processors" in out, f"code {code}\n{out[-2000:]}")


@needs_ferry
def test_negative_control():
    """Without the invalidation of what a device writes, the case above turns red."""
    code, out = run(2, {"FERRY_TEST": "no-device-code"})
    check(code == 1 and "instead of" in out, f"code {code}: the control does not work\n{out[-2000:]}")
