#!/usr/bin/env python3
"""Moves of a guest, ferry against `qemu-system-x86_64 -accel tcg`: same kernel, initramfs, memory, load and link, in
turn, medians. As root between two network namespaces that it makes itself, with the link limited by tbf; otherwise over
loopback through a relay that keeps to the limit. Prints the table and, with --output, writes it.

    bench_migration.py [--runs N] [--rows precopy,postcopy,idle,restore] [--link MiB/s] [--memory MiB] [--cpus N]
                       [--only ferry|qemu] [--output docs/benchmarks-migration.md]
"""
import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from bench import VMMS, Table, machine, median, progress, publish, ratio  # noqa: E402
from bench_hosts import Hosts  # noqa: E402
from ferrytest import FERRY, QUIET, Failure, Process, initramfs, kernel  # noqa: E402

ROWS = ["precopy", "postcopy", "idle", "restore"]
DOWNTIME_MS = 300
BEFORE, AFTER = 0.7, 0.4  # seconds of the guest's own speed before a move, and after it


class Stamped(bytearray):
    """With the times at which it grew."""

    def __init__(self):
        super().__init__()
        self.times = []  # (time, its length then)

    def __iadd__(self, data):
        now = time.monotonic()
        super().__iadd__(data)
        if data:
            self.times.append((now, len(self)))
        return self


class Machine(Process):
    """A guest, or a receiver for one. What its console says is kept with the time that it came."""

    Text = Stamped

    def __init__(self, hosts, place, vmm, memory, cpus, append="", incoming=None, restore=None,
                 own_kernel=False):
        self.vmm, self.place, self.hosts = vmm, place, hosts
        self.folder = tempfile.mkdtemp(prefix="ferry-bench-")
        self.address = None
        # On a busy host the kernel finds no timer in QEMU otherwise, and panics.
        append = f"console=ttyS0 {QUIET} no_timer_check {append}"
        image, initrd = kernel(), initramfs("movebench")
        if own_kernel:
            image = shutil.copy(image, self.folder)
        self.kernel = image
        if vmm == "qemu":
            command = ["qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-cpu", "max", "-nodefaults", "-display",
                       "none", "-chardev", "stdio,id=c,signal=off", "-serial", "chardev:c", "-m", str(memory), "-smp",
                       str(cpus), "-kernel", image, "-initrd", initrd, "-append", append, "-no-reboot",
                       "-qmp", f"unix:{self.folder}/qmp,server=on,wait=off"]
            if incoming:
                command += ["-incoming", "defer"]
            if restore:
                command += ["-incoming", f"exec:cat {restore}"]
        elif incoming:
            command = [FERRY, "receive", "--insecure", "--name", "test", incoming]
        elif restore:
            command = [FERRY, "restore", "--name", "test", *restore.split()]
        else:
            command = [FERRY, "run", "--memory", f"{memory}M", "--cpus", str(cpus), "--name", "test", "--initrd",
                       initrd, "--append", append, "--reset-limit", "0", image]
        super().__init__([*hosts.inside(place), *command], terminal=False,
                         env={"FERRY_RUNTIME_DIR": self.folder})

    def ready(self, timeout=300):
        self.expect("^MOVEBENCH", timeout)
        return self

    def qmp(self, name, **arguments):
        """One command of QEMU's monitor; its answer."""
        end = time.monotonic() + 20
        with socket.socket(socket.AF_UNIX) as line:
            while True:
                try:
                    line.connect(f"{self.folder}/qmp")
                    break
                except OSError:
                    if time.monotonic() > end or self.child.poll() is not None:
                        raise Failure(f"QEMU's monitor does not answer{self.tail()}") from None
                    time.sleep(0.01)
            line.settimeout(30)
            reader = line.makefile()
            reader.readline()
            for command in ({"execute": "qmp_capabilities"}, {"execute": name, "arguments": arguments}):
                line.sendall(json.dumps(command).encode())
                answer = {}
                while "return" not in answer and "error" not in answer:
                    answer = json.loads(reader.readline() or '{"error": "it has hung up"}')
            if "error" in answer:
                raise Failure(f"{name}: {answer['error']}")
            return answer["return"]

    def close(self):
        super().close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def pause(self, on):
        """So that it does not disturb the other's turn."""
        if self.vmm == "qemu":
            self.qmp("stop" if on else "cont")
        else:
            subprocess.run([FERRY, "pause" if on else "resume", "test"], check=True, capture_output=True, timeout=60,
                           env=dict(os.environ, FERRY_RUNTIME_DIR=self.folder))

    def works(self):
        """(time, loops) as the guest said them."""
        with self.changed:
            text, times = bytes(self.text), list(self.text.times)
        found, n = [], 0
        for match in re.finditer(rb"W (\d+)\r*\n", text):
            while n < len(times) and times[n][1] < match.end():
                n += 1
            if n < len(times):
                found.append((times[n][0], int(match.group(1))))
        return found

    def ask(self, timeout=20):
        """What the guest has measured since it was told to forget."""
        self.send("d")
        match = self.expect(r"^D (\d+) (\d+) ([\d.]+) ([\d.]+) ([\d.]+) ([\d.]+) (\d+)\r*\n", timeout, "its numbers")
        keys = ("reads", "slow", "p50", "p99", "max", "gap", "wrong")
        return dict(zip(keys, (float(v) for v in match.groups())))


# ---- one move ----------------------------------------------------------------------------------------


def receiver(hosts, place, vmm, memory, cpus, postcopy):
    there = Machine(hosts, place, vmm, memory, cpus, incoming=f"tcp:{(address := hosts.listen(place))}")
    if vmm == "ferry":
        there.await_error("waiting for a guest")
    else:
        there.qmp("migrate-set-capabilities", capabilities=capabilities(postcopy))
        there.qmp("migrate-incoming", uri=f"tcp:{address}")
    there.address = hosts.way(address)
    return there


def capabilities(postcopy):
    return [{"capability": name, "state": postcopy} for name in ("postcopy-ram", "postcopy-preempt")]


def move_ferry(here, there, postcopy):
    command = [FERRY, "migrate", "--json", "--downtime", f"{DOWNTIME_MS}ms"]
    command += ["--postcopy-after", "1ms"] if postcopy else []
    done = subprocess.run([*command, "test", f"tcp:{there.address}"], capture_output=True, text=True, timeout=300,
                          env=dict(os.environ, FERRY_RUNTIME_DIR=here.folder))
    if done.returncode:
        raise Failure(f"ferry migrate: {done.returncode}: {done.stdout[-500:]}{done.stderr}{here.tail()}{there.tail()}")
    end = json.loads(done.stdout.splitlines()[-1])
    return end["bytes"], end["downtime_ms"]


def move_qemu(here, there, postcopy):
    here.qmp("migrate-set-capabilities", capabilities=capabilities(postcopy))
    here.qmp("migrate-set-parameters", **{"max-bandwidth": 1 << 34, "downtime-limit": DOWNTIME_MS})
    here.qmp("migrate", uri=f"tcp:{there.address}")
    end = time.monotonic() + 300
    switched = not postcopy
    while True:
        state = here.qmp("query-migrate")
        status = state.get("status")
        if not switched and status == "active":
            here.qmp("migrate-start-postcopy")
            switched = True
        if status == "completed":
            break
        if status in ("failed", "cancelled") or time.monotonic() > end:
            raise Failure(f"QEMU's migration: {state}{there.tail()}")
        time.sleep(0.005)
    return state["ram"]["transferred"], state.get("downtime", 0)


def longest_gap(machines, begin, end):
    """The longest time in which no tick came from any of them, ms."""
    times = sorted(t for m in machines for t, _ in list(m.text.times) if begin <= t <= end)
    return max((b - a for a, b in zip([begin, *times], [*times, end])), default=0) * 1e3


def speed(works, begin, end):
    """Loops per second between two times, by the nearest lines; NaN: too few."""
    inside = [w for w in works if begin - 0.15 <= w[0] <= end + 0.15]
    if len(inside) < 2 or inside[-1][0] - inside[0][0] < 0.05:
        return float("nan")
    return (inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0])


def move(hosts, here, memory, cpus, postcopy):
    """Moves it to the other place: (the machine there, what was measured)."""
    there = receiver(hosts, 1 - here.place, here.vmm, memory, cpus, postcopy)
    try:
        here.send("r")
        time.sleep(BEFORE)
        begun = time.monotonic()
        sent, word = (move_qemu if here.vmm == "qemu" else move_ferry)(here, there, postcopy)
        ended = time.monotonic()
        time.sleep(AFTER)
        seen = there.ask()
        gap = longest_gap([here, there], begun - 0.1, ended + AFTER / 2)
        noise = longest_gap([here], begun - BEFORE + 0.1, begun)
        works = here.works() + there.works()
        before, during = speed(works, begun - BEFORE, begun), speed(works, begun, ended)
        seen.update(total=ended - begun, gap_out=gap, noise=noise, word=word, bytes=sent / (memory << 20),
                    slow_down=100 * (1 - during / before) if before else float("nan"))
        if seen["wrong"]:
            raise Failure(f"{seen['wrong']:.0f} pages of the guest were wrong after the move")
    except BaseException:
        there.close()
        raise
    here.close()
    return there, seen


# ---- rows --------------------------------------------------------------------------------------------


class Lost(dict):
    """How many moves went wrong, and how, by (row, VMM)."""

    def note(self, row, vmm, why):
        self.setdefault((row, vmm), []).append(str(why).splitlines()[0][:150])
        progress(f"{row}, {vmm}: {why}")


def moves(hosts, args, vmms, row, lost, guest_mib, memory, work, runs, own_kernel=False):
    """A guest of each goes to and fro, in turn: {vmm: [measured]}. own_kernel: no other host has it."""
    seen = {v: [] for v in vmms}
    here = dict.fromkeys(vmms)
    try:
        for n in range(runs):
            for vmm in vmms:
                try:
                    if here[vmm]:
                        here[vmm].pause(False)
                    else:
                        here[vmm] = Machine(hosts, 0, vmm, memory, args.cpus,
                                            f"ferry.test=movebench ferry.args={guest_mib},{work}",
                                            own_kernel=own_kernel).ready()
                        if own_kernel:
                            os.unlink(here[vmm].kernel)
                    here[vmm], one = move(hosts, here[vmm], memory, args.cpus, row == "postcopy")
                    seen[vmm].append(one)
                    progress(f"{row} {n + 1}/{runs}, {vmm}: {one['total']:.2f} s, gap {one['gap_out']:.0f} ms, "
                             f"touch p50 {one['p50']:.0f} p99 {one['p99']:.0f} us of {one['slow']:.0f}")
                    here[vmm].pause(True)
                except (Failure, OSError, subprocess.SubprocessError, ValueError) as why:
                    lost.note(row, vmm, why)
                    if here[vmm]:
                        here[vmm].close()
                    here[vmm] = None
    finally:
        for machine_here in here.values():
            if machine_here:
                machine_here.close()
    return seen


def percentile(values, percent):
    """Nearest rank."""
    values = sorted(v for v in values if v == v)
    return values[max(0, -(-len(values) * percent // 100) - 1)] if values else float("nan")


def add(table, what, per, pick, goal=None, form="{:.2f}"):
    """A line; goal: the ratio that is wanted at most, or a function of ferry's value."""
    values = [pick(per.get(v, [])) for v in VMMS]
    cells = [form.format(v) if v == v else "" for v in values]
    text, met = "", ""
    if goal is not None and values[0] == values[0]:
        if callable(goal):
            text, met = goal(values[0])
        elif values[1] == values[1] and values[1]:
            text, met = f"at most {goal:g} of QEMU's", values[0] / values[1] <= goal
        met = {True: "yes", False: "**no**"}.get(met, "")
    table.add(what, *cells, ratio(*values), text, met)


def key(name):
    return lambda runs: median([r[name] for r in runs if r[name] == r[name]])


def restores(hosts, args, vmms, lost, table):
    for memory in (256, 16384):
        per = {v: [] for v in vmms}
        eager, instruction = [], []
        for vmm in vmms:
            with tempfile.TemporaryDirectory(prefix="ferry-bench-", dir="/var/tmp") as folder:
                path = os.path.join(folder, "saved")
                try:
                    with Machine(hosts, None, vmm, memory, args.cpus, "ferry.test=movebench ferry.args=64,0") as guest:
                        guest.ready()
                        time.sleep(0.5)
                        if vmm == "qemu":
                            guest.qmp("migrate-set-parameters", **{"max-bandwidth": 1 << 34})
                            guest.qmp("migrate", uri=f"exec:cat >{path}")
                            while guest.qmp("query-migrate").get("status") not in ("completed", "failed"):
                                time.sleep(0.05)
                        else:
                            subprocess.run([FERRY, "save", "test", path], check=True, timeout=300, capture_output=True,
                                           env=dict(os.environ, FERRY_RUNTIME_DIR=guest.folder))
                    for _ in range(args.restores):
                        began, output = first_signs(hosts, vmm, memory, args.cpus, path)
                        per[vmm].append(output)
                        progress(f"restore {memory} MiB, {vmm}: instruction {began:.1f} ms, output {output:.1f} ms")
                        if vmm == "ferry":
                            instruction.append(began)
                            eager.append(first_signs(hosts, vmm, memory, args.cpus, f"--eager {path}")[1])
                except (Failure, OSError, subprocess.SubprocessError) as why:
                    lost.note("restore", vmm, why)
        add(table, f"restore of {memory} MiB: start of the process to the guest's first instruction, ms",
            {"ferry": instruction}, median, lambda v: ("at most 50 ms", v <= 50), "{:.1f}")
        add(table, "the same, to the guest's first output, ms", per, median, None, "{:.1f}")
        add(table, "the same, with all memory loaded before (ferry: --eager), ms",
            {"ferry": eager, "qemu": per.get("qemu", [])}, median, None, "{:.0f}")


def first_signs(hosts, vmm, memory, cpus, path):
    """ms from the start of the process to the guest's first instruction (QEMU does not say) and first output."""
    with Machine(hosts, None, vmm, memory, cpus, restore=path) as guest:
        guest.expect(r"\.", 300)
        began = float("nan")
        if vmm == "ferry":
            info = subprocess.run([FERRY, "info", "--json", "test"], check=True, capture_output=True, timeout=60,
                                  env=dict(os.environ, FERRY_RUNTIME_DIR=guest.folder)).stdout
            began = json.loads(info)["first-instruction"]["monotonic-ns"] / 1e9 - guest.started
        return began * 1e3, (guest.text.times[0][0] - guest.started) * 1e3


TEXT = """# Benchmarks of migration

`make bench-migration` measures this table anew; `make bench-migration ARGS="--output docs/benchmarks-migration.md"`
writes it here.

How: ferry and `qemu-system-x86_64 -accel tcg -M q35 -cpu max` (7.2) move the same guest (Debian 12 cloud kernel, a small
initramfs, {cpus} vCPU, no devices but the serial line) over the same link, in turn. Link: {link}. A plain sender carries
{plain:.1f} MiB/s on it. {runs} moves each way of pre-copy and post-copy; medians where nothing else is said. The guest has
{memory} MiB, {filled} of them filled with what cannot be compressed; it reads its pages in random order for ever and writes
to 64 of them ("lightly": QEMU's TCG loses dirty pages of guests that write much), and writes a byte to its serial line each
millisecond. Both may stop the guest for {downtime} ms at most. ferry compresses what the link cannot take at once; QEMU has that,
too, off by default, and it is off here. Post-copy begins at once in both; QEMU with postcopy-preempt. What the guest boots
from is on the destination's disk, too: QEMU's is told where, ferry's looks where the source has it, and gets what is missing.

* **Downtime** is the longest time in which no such tick of the guest came out at either side, from before the move until
  after its end: waits for pages in post-copy count. (QEMU's clock stands still meanwhile, so that the guest itself cannot
  tell; ferry's runs on, and what its guest sees by it is in the line below. Without a move the longest is
  {noise} ms.)
* **First touch** is measured in the guest: reads of a page that take 50 us or more, between the beginning of the move and
  its end.
* **First instruction** of a restored guest: when a processor has fetched it from a page that has come, and executes it
  next (`ferry info`); from before the process is forked on. Its first output comes some milliseconds of guest's time, and
  some dozens of pages, later.
* **Slow-down**: by how much fewer pages the guest reads in a second during the move than before it.

Machine: {machine}

{table}

{lost}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--idle-runs", type=int, default=3)
    parser.add_argument("--restores", type=int, default=7)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--link", type=float, default=119, help="MiB/s")
    parser.add_argument("--memory", type=int, default=256)
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--only", choices=VMMS)
    parser.add_argument("--loopback", action="store_true", help="no namespaces, though they could be made")
    parser.add_argument("--output")
    args = parser.parse_args()
    rows = args.rows.split(",")
    if unknown := set(rows) - set(ROWS):
        parser.error(f"no such row: {', '.join(unknown)}")
    vmms = [args.only] if args.only else VMMS
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was made is taken away again
    about, lost = machine(), Lost()
    filled = args.memory // 2
    table = Table("", "ferry", "QEMU TCG", "ferry / QEMU", "goal", "met")
    noise = []
    with Hosts(args.link, args.loopback) as hosts:
        plain = hosts.plain()
        progress(f"link: {hosts.about}: a plain sender carries {plain:.1f} MiB/s")
        for row in [r for r in ("precopy", "postcopy") if r in rows]:
            per = moves(hosts, args, vmms, row, lost, filled, args.memory, 1, args.runs)
            noise += [r["noise"] for runs in per.values() for r in runs]
            name = {"precopy": "pre-copy", "postcopy": "post-copy"}[row]
            add(table, f"{name}: total time, s", per, key("total"), 1)
            if row == "precopy" and "ferry" in vmms:
                own = moves(hosts, args, ["ferry"], row, lost, filled, args.memory, 1, -(-args.runs // 4), True)
                add(table, "the same, where the destination has not got the kernel, s", own, key("total"))
            for percent in (50, 99):
                add(table, f"{name}: downtime p{percent}, ms", per,
                    lambda runs, p=percent: percentile([r["gap_out"] for r in runs], p), 0.5, "{:.1f}")
            add(table, f"{name}: by the guest's own clock p50, ms", {"ferry": per.get("ferry", [])},
                lambda runs: percentile([r["gap"] / 1e3 for r in runs], 50), None, "{:.1f}")
            add(table, f"{name}: by the VMM's own word p50, ms", per, key("word"), None, "{:.0f}")
            add(table, f"{name}: bytes sent per byte of guest memory", per, key("bytes"), None)
            add(table, f"{name}: slow-down during the move, %", per, key("slow_down"), None, "{:.0f}")
            if row == "postcopy":
                add(table, "post-copy: first touch p50, us", per, key("p50"), None, "{:.0f}")
                add(table, "post-copy: first touch p99, us (median of the moves)", per, key("p99"), 0.5, "{:.0f}")
                add(table, "post-copy: pages waited for", per, key("slow"), None, "{:.0f}")
        if "idle" in rows:
            per = moves(hosts, args, vmms, "idle", lost, 880, 1024, 0, args.idle_runs)
            add(table, "idle 1 GiB (880 MiB incompressible): total time, s", per, key("total"), 1)
            add(table, "the same: share of what a plain sender carries", per,
                lambda runs: median([r["bytes"] * 1024 / r["total"] / plain for r in runs]),
                lambda v: ("at least 0.8", v >= 0.8))
            add(table, "the same: downtime p50, ms", per, lambda runs: percentile([r["gap_out"] for r in runs], 50),
                0.5, "{:.1f}")
        if "restore" in rows:
            restores(hosts, args, vmms, lost, table)
        link = hosts.about
    said = "\n".join(f"* {row}, {vmm}: {len(whys)} went wrong: {'; '.join(sorted(set(whys)))}"
                     for (row, vmm), whys in sorted(lost.items()))
    publish(TEXT.format(cpus=args.cpus, link=link, plain=plain, runs=args.runs, memory=args.memory, filled=filled,
                        downtime=DOWNTIME_MS, noise=f"{median(noise):.1f}" if noise else "?", machine=about, table=table,
                        lost="Moves that went wrong and are in no number above:\n\n" + said if said
                        else "No move went wrong."), args.output)


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(f"bench_migration.py: {failure}")
