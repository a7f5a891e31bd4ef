"""Stock Debian kernels boot to a shell, and to a machine that the kernel has no complaint about."""
from ferrytest import VMM, Guest, check, each, initramfs, kernel, limit, linux_test


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
