"""Stock Debian kernels boot to a shell, and to a machine that the kernel has no complaint about."""
import glob
import os
import shutil
import tempfile

from ferrytest import (FERRY, QUIET, VMM, Guest, Process, Skip, check, each, initramfs, kernel, limit, linux_test,
                       needs_ferry)


def boot(suite, cpus):
    with Guest(kernel(suite), initramfs("shell"), cpus=cpus, reset_limit=0) as guest:
        guest.shell()
        if VMM == "ferry":  # QEMU's TCG marks the TSC unstable with two processors
            out = guest.run(f"bootcheck.sh {cpus}")
            check("bootcheck: ok" in out, out)
            check("clocksource tsc" in out or "clocksource kvm-clock" in out, out)
        check(guest.run("echo $((6*7))").strip() == "42", "the shell cannot count")
        code = guest.poweroff()
        check(code == 0, f"exit code {code} after a power-off{guest.tail()}")


@limit(400)
@each(suite=["bookworm", "trixie"], cpus=[1, 2, 4, 8])
def test_shell(suite, cpus):
    boot(suite, cpus)


def test_loud():
    """With all kernel messages on the serial line, and no `quiet`."""
    code, out = linux_test("true", append="panic=-1")
    check(code == 0 and "Linux version" in out, out[-2000:])


def test_memory_sizes():
    """The guest finds the memory that it was given, above 4 GiB as well."""
    for megabytes in (128, 1024, 5120):
        code, out = linux_test("cat", "/proc/meminfo", cpus=1, memory=megabytes)
        total = int(out.split("MemTotal:")[1].split()[0]) // 1024
        check(code == 0 and megabytes * 0.7 < total <= megabytes, f"{megabytes} MiB given, {total} MiB found")


@needs_ferry
def test_rootless():
    """Another user, with no rights, groups or home, and nothing set in the environment: the whole of a boot. (Without
    root every test here is rootless.)"""
    if os.geteuid():
        raise Skip("this run has no root rights: all of its boots are rootless")
    if not shutil.which("setpriv"):
        raise Skip("needs setpriv")
    with tempfile.TemporaryDirectory(prefix="ferry-test-") as folder:
        os.chmod(folder, 0o755)
        program, image, initrd = (shutil.copy(f, folder) for f in (FERRY, kernel(), initramfs("shell")))
        command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs",
                   "--inh-caps=-all", "--bounding-set=-all", "env", "-i", "PATH=/usr/bin:/bin", program, "run", "-q",
                   "-m", "256M", "-c", "2", "--initrd", initrd, "--append", "console=ttyS0 " + QUIET, image]
        with Process(command) as guest:
            guest.expect("This is a guest of ferry", 120)
            guest.expect("# ", 60)
            guest.line("poweroff")
            check(guest.wait(60) == 0, guest.tail())
        left = [f for d in glob.glob("/run/ferry-65534") + glob.glob("/tmp/ferry-65534") for f in os.listdir(d)]
        check(not left, f"left behind: {left}")
