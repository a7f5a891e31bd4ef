"""Living with one guest: its terminal, its ends, its costs."""
import hashlib
import json
import os
import re
import signal
import tempfile
import time

from ferrytest import (EXIT_PANIC, EXIT_POWEROFF, EXIT_RESET_LIMIT, EXIT_SIGNAL, EXIT_START, PROMPT, Failure,
                       Guest, check, each, ferry, initramfs, kernel, linux_test, multiboot_elf, needs_ferry)


def shell_guest(**options):
    options.setdefault("reset_limit", 0)
    return Guest(kernel(), initramfs("shell"), **options).shell()


def test_typing():
    """Each key on its own, and editing."""
    with shell_guest() as guest:
        for key in "echo tyX\x7fped":
            guest.send(key)
            time.sleep(0.01)
        guest.send("\n")
        guest.expect(r"^typed\r*\n", 20)
        check(guest.poweroff() == 0, "exit code")


def test_interrupt_key():
    """Ctrl-C reaches the guest, not ferry, and interrupts what runs there."""
    with shell_guest() as guest:
        guest.line("echo going; sleep 1000")
        guest.expect(r"^going\r*\n", 20)  # the shell has left its line editing
        time.sleep(1)
        guest.send("\x03")
        guest.expect(PROMPT, 20, "a prompt after Ctrl-C")
        guest.line("echo code-$?")
        guest.expect(r"code-130", 20, "the exit code of an interrupted sleep")
        guest.line("sleep 1000 & jobs; kill %1; echo job-$?")
        guest.expect(r"job-0", 20, "job control")
        check(guest.poweroff() == 0, "exit code")


@each(echo=["echo", "raw"])
def test_paste(echo):
    """64 KB through the terminal arrive whole."""
    lines = "".join(f"{n:06d} the quick brown fox jumps over the lazy dog {n * 7919 % 100003}\n"
                    for n in range(1200))
    data = lines[:65535].rpartition("\n")[0] + "\n"
    with shell_guest() as guest:
        if echo == "raw":
            guest.run("stty -echo")
        guest.line("cat >/tmp/paste; wc -c /tmp/paste; md5sum /tmp/paste")
        time.sleep(0.5)
        guest.send(data)
        guest.send("\x04")
        count = int(guest.expect(r"(\d+) /tmp/paste", 120, "the size of what was pasted").group(1))
        check(count == len(data), f"{count} of {len(data)} bytes arrived")
        digest = guest.expect(r"([0-9a-f]{32}) +/tmp/paste", 20, "its checksum").group(1).decode()
        check(digest == hashlib.md5(data.encode()).hexdigest(), "the pasted bytes were changed")
        check(guest.poweroff() == 0, "exit code")


def test_flood():
    """A guest that prints a megabyte: every line arrives, in order."""
    code, out = linux_test("seq", "1 150000", cpus=1)
    numbers = [int(n) for n in re.findall(r"^(\d+)$", out, re.M)]
    check(code == 0 and numbers == list(range(1, 150001)), f"{len(numbers)} of 150000 lines arrived in order")


def test_reboot():
    """Reboot from inside starts the same kernel again; power-off ends with code 0."""
    with Guest(kernel(), initramfs("shell")) as guest:
        for _ in range(3):
            guest.shell()
            guest.line("reboot")
        guest.shell()
        code = guest.poweroff()
        check(code == EXIT_POWEROFF, f"exit code {code}{guest.tail()}")


@needs_ferry
def test_reset_limit():
    """--reset-limit ends a guest that reboots for ever, with an exit code of its own."""
    with Guest(kernel(), initramfs(), "quiet panic=-1 ferry.test=true ferry.end=reboot", terminal=False,
               reset_limit=2) as guest:
        code = guest.wait(180)
        runs = guest.stdout().count("ferry: init")
        check(runs == 3, f"{runs} boots with a reset limit of 2{guest.tail()}")
        check(code == EXIT_RESET_LIMIT, f"exit code {code}{guest.tail()}")


@needs_ferry
@each(how=["port", "kernel"])
def test_panic(how):
    """A guest that crashes says so through pvpanic: an exit code of its own."""
    with Guest(kernel(), initramfs("panic"), f"quiet panic=-1 ferry.test=panic.sh ferry.args={how}",
               terminal=False, reset_limit=0) as guest:
        code = guest.wait(120)
        check("panic" in guest.stderr().lower(), f"stderr does not speak of a panic{guest.tail()}")
        check(code == EXIT_PANIC, f"exit code {code}{guest.tail()}")


@needs_ferry
def test_triple_fault():
    """lidt of an empty table, then int3: counts as a reset, and RIP is printed."""
    code = bytes.fromhex("0f011d 20001000 90 cc f4")  # header at 1 MiB: its bytes 16.. are this code
    with tempfile.TemporaryDirectory() as directory:
        elf = multiboot_elf(code + b"\0" * 16, os.path.join(directory, "triple.elf"))
        with Guest(elf, append="", terminal=False, reset_limit=0, memory=64) as guest:
            exit_code = guest.wait(30)
            check("triple fault" in guest.stderr().lower(), f"stderr does not name it{guest.tail()}")
            check(re.search(r"(?i)rip\W+(0x)?0*10001[0-9a-f]", guest.stderr()), f"no RIP{guest.tail()}")
            check(exit_code == EXIT_RESET_LIMIT, f"exit code {exit_code}{guest.tail()}")


def test_idle():
    """An idle guest sleeps."""
    with shell_guest(cpus=2) as guest:
        time.sleep(3)
        before, start = guest.cpu_seconds(), time.monotonic()
        time.sleep(10)
        share = (guest.cpu_seconds() - before) / (time.monotonic() - start)
        print(f"note: an idle guest with 2 processors costs {100 * share:.2f} % of a host core")
        check(share < 0.10, f"an idle guest costs {100 * share:.1f} % of a host core")
        check(guest.poweroff() == 0, "exit code")


@needs_ferry
def test_terminal_restored():
    """Whatever way out is taken, the terminal is as it was."""
    import termios
    for way in ("poweroff", "SIGTERM", "SIGINT"):
        with Guest(kernel(), initramfs("shell"), reset_limit=0) as guest:
            guest.shell()
            raw = termios.tcgetattr(guest.master)
            check(not raw[3] & termios.ICANON, "the terminal is not raw while the guest runs")
            if way == "poweroff":
                guest.line("poweroff")
            else:
                os.kill(guest.pid, getattr(signal, way))
            guest.wait(30)
            after = termios.tcgetattr(guest.master)
            check(after == guest.modes, f"the terminal was not restored after {way}: {after}, not {guest.modes}")


@needs_ferry
def test_closed_terminal():
    """A terminal that goes away ends ferry; nothing is left behind."""
    guest = Guest(kernel(), initramfs("shell"), reset_limit=0)
    try:
        guest.shell()
        guest.hang_up()
        code = guest.wait(30)
        check(code == EXIT_SIGNAL + signal.SIGHUP, f"exit code {code}")
        check(not os.listdir(guest.runtime), f"left behind: {os.listdir(guest.runtime)}")
    finally:
        guest.close()


@needs_ferry
@each(way=["poweroff", "SIGTERM"])
def test_nothing_left(way):
    """No files, no processes after the end."""
    with Guest(kernel(), initramfs("shell"), reset_limit=0) as guest:
        guest.shell()
        if way == "poweroff":
            guest.line("poweroff")
        else:
            os.kill(guest.pid, getattr(signal, way))
        code = guest.wait(30)
        should = EXIT_POWEROFF if way == "poweroff" else EXIT_SIGNAL + signal.SIGTERM
        check(code == should, f"exit code {code} instead of {should}")
        check(not os.listdir(guest.runtime), f"left behind: {os.listdir(guest.runtime)}")
        try:
            os.killpg(guest.pid, 0)
        except ProcessLookupError:
            return
        raise Failure("a process of its group is still there")


@needs_ferry
def test_serial_file():
    """--serial file=: a byte is in the file when the guest has sent it; stdin at its end is ignored."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "out")
        with Guest(kernel(), initramfs(), "quiet panic=-1 ferry.test=seq ferry.args=1,1000", terminal=False,
                   reset_limit=0, extra=["--serial", f"file={path}"]) as guest:
            guest.child.stdin.close()
            check(guest.wait(120) == 0, f"exit code{guest.tail()}")
        with open(path, newline="") as f:
            text = f.read()
        check("\n999\r\n1000\r\n" in text and "ferry: result seq 0" in text, text[-500:])


@needs_ferry
def test_name_in_use():
    """A second machine of the same name is refused, and the first one lives on."""
    with shell_guest() as guest:
        code, _, err = ferry("run", "--name", "test", "--initrd", initramfs("shell"), kernel(),
                             env={"FERRY_RUNTIME_DIR": guest.runtime})
        check(code == EXIT_START and "test" in err, f"{code}: {err}")
        check(guest.run("echo alive").strip() == "alive", "the first one")
        check(guest.poweroff() == 0, "exit code")


def run_with_stats(env=None, cpus=2, test="true", **options):
    """A guest from start to end; what --stats counted."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "stats.json")
        code, out = linux_test(test, cpus=cpus, extra=["--stats", path], env=env, **options)
        check(code == 0, out[-3000:])
        with open(path) as f:
            return json.load(f)


@needs_ferry
def test_stats():
    """Every second-stage fault, kick and stop is counted."""
    # A boot alone may leave the second processor without some of it.
    stats = run_with_stats(test="smpstress", args="4 fork code-same")
    check(len(stats["vcpus"]) == 2, stats)
    for vcpu in stats["vcpus"]:
        for name in ("runs", "kicks", "halts", "interrupts", "second-stage-faults", "code-drops", "write-drops"):
            check(vcpu[name] > 0, f"no {name}: {vcpu}")
    faults = stats["mmu"]["faults"]
    check(faults["fixed"] > 0 and faults["nomem"] == 0, faults)
    check(sum(stats["mmu"]["pages"].values()) > 0, stats["mmu"])
    print("note: " + ", ".join(f"{n} {sum(v[n] for v in stats['vcpus'])}" for n in
                               ("second-stage-faults", "kicks", "halts", "code-drops", "write-drops", "exclusive")))
