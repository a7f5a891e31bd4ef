"""Guest memory: what it costs before it is touched, and reserved huge pages."""
import os
import tempfile

from ferrytest import (EXIT_START, Failure, Guest, Skip, check, ferry, initramfs, kernel, limit, multiboot_elf,
                       needs_ferry)

HUGE = "/sys/kernel/mm/hugepages/hugepages-2048kB/"
# mov dx, 0x3f8; mov al, '!'; out dx, al; mov al, '\n'; out dx, al; hlt; jmp -3
SAY = bytes.fromhex("66ba f803 b021 ee b00a ee f4 ebfd")


def free_huge_pages():
    def number(name):
        with open(HUGE + name) as f:
            return int(f.read())
    try:
        return number("free_hugepages") - number("resv_hugepages")
    except OSError:
        return 0


@needs_ferry
def test_untouched():
    """Memory that no guest touches costs nothing: 8 GiB as much as 64 MiB."""
    with tempfile.TemporaryDirectory() as folder:
        image = multiboot_elf(SAY, os.path.join(folder, "say.elf"))
        cost = []
        for size in ("64M", "8G,overcommit"):
            with Guest(image, append="", console=False, terminal=False, extra=["--memory", size]) as guest:
                guest.expect("!", 30)
                cost.append(guest.resident())
        check(cost[1] < cost[0] + 8, f"{cost[0]} MiB with 64 MiB of memory, {cost[1]} MiB with 8 GiB")


@needs_ferry
@limit(400)
def test_untouched_linux():
    """More memory costs what the kernel itself uses more of it (64 bytes for each page, larger hash tables)."""
    cost, used = [], []
    for size, mib in (("512M", 512), ("8G,overcommit", 8192)):
        with Guest(kernel(), initramfs("shell"), extra=["--memory", size]).shell(180) as guest:
            free = int(guest.run("grep MemFree /proc/meminfo").split()[1]) >> 10
            cost.append(guest.resident())
            used.append(mib - free)
    text = f"512 MiB: {cost[0]} resident, {used[0]} in use; 8 GiB: {cost[1]} resident, {used[1]} in use"
    check(cost[1] - cost[0] < used[1] - used[0] + 64, text)


@needs_ferry
def test_huge_pages_refused():
    """Too few: said at the start, with the remedy."""
    size = 2 * free_huge_pages() + 512
    code, _, err = ferry("run", "--memory", f"{size}M,overcommit,hugepages", "--serial", "none", kernel())
    check(code == EXIT_START and "/proc/sys/vm/nr_hugepages" in err and f"{size // 2} huge pages" in err, err)
    code, _, err = ferry("run", "--memory", "255M,hugepages", "--serial", "none", kernel())
    check(code == EXIT_START and "multiple of 2M" in err, err)


@needs_ferry
@limit(300)
def test_huge_pages():
    """Enough: a guest lives in them, and nothing is left of them afterwards."""
    before = free_huge_pages()
    if before < 128:
        raise Skip(f"128 huge pages are needed and {before} are free: echo 128 >/proc/sys/vm/nr_hugepages")
    with Guest(kernel(), initramfs("shell"), reset_limit=0, extra=["--memory", "256M,hugepages"]).shell() as guest:
        if free_huge_pages() > before - 128:
            raise Failure(f"{before} huge pages were free, {free_huge_pages()} are")
        check(guest.poweroff() == 0, guest.tail())
    check(free_huge_pages() == before, "huge pages were lost")
