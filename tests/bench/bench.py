#!/usr/bin/env python3
"""Compares ferry with `qemu-system-x86_64 -accel tcg`: same kernel, initramfs and command line, runs
alternating, medians. Prints the tables and, with --output, writes them with the machine's description.

    bench.py [--runs N] [--cpus 1,2] [--rows NAME,...] [--output docs/benchmarks.md] [--only ferry|qemu]
"""
import argparse
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
from ferrytest import FERRY, QUIET, TOP, Failure, Guest, initramfs, kernel, memory_split  # noqa: E402

MEMORY = 512
VMMS = ["ferry", "qemu"]
APART = ["vector"]  # vector-heavy code is reported, and not part of the medians
PARALLEL = ["parallel-compute", "parallel-faults"]


def run(vmm, cpus, test, args="", timeout=600):
    """One guest from start to power-off: its output and the times seen by the host."""
    append = f"{QUIET} ferry.test={test}" + (f" ferry.args={args}" if args else "")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    with Guest(kernel(), initramfs("bench"), append, MEMORY, cpus, terminal=False, reset_limit=0, vmm=vmm) as guest:
        guest.expect("ferry: init", timeout)
        init = time.monotonic() - start
        code = guest.result(test, timeout)
        guest.wait(60)
        end = time.monotonic() - start
        if code:
            raise Failure(f"{test} in {vmm} ended with {code}{guest.tail()}")
        out = guest.stdout()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return out, {"init": init, "off": end, "cpu": cpu}


def memory(vmm, cpus):
    """KiB of the process beyond the guest's RAM, once the guest sits at its prompt, and the RAM's share."""
    with Guest(kernel(), initramfs("shell"), QUIET, MEMORY, cpus, reset_limit=0, vmm=vmm) as guest:
        guest.shell()
        time.sleep(1)
        split = memory_split(guest.pid, MEMORY)
        guest.poweroff()
    return split


def median(values):
    return statistics.median(values) if values else float("nan")


def cell(value):
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


class Table:
    def __init__(self, *head):
        self.rows = [head]

    def add(self, *row):
        self.rows.append(row)

    def __str__(self):
        widths = [max(len(str(r[i])) for r in self.rows) for i in range(len(self.rows[0]))]
        lines = ["| " + " | ".join(str(v).ljust(w) for v, w in zip(row, widths)) + " |" for row in self.rows]
        lines.insert(1, "| " + " | ".join("-" * w for w in widths) + " |")
        return "\n".join(lines)


def ratio(ferry, qemu):
    return f"{ferry / qemu:.2f}" if qemu == qemu and qemu and ferry == ferry else ""


def publish(text, path):
    """Prints a document and, with --output, writes it."""
    print(text)
    if path:
        with open(path, "w") as f:
            f.write(text)


def progress(text):
    print(text, file=sys.stderr, flush=True)


def boots(runs, all_cpus, vmms):
    table = Table("boot", "vCPUs", "ferry", "QEMU TCG", "ferry / QEMU")
    for cpus in all_cpus:
        seen = {v: [] for v in VMMS}
        for n in range(runs):
            for vmm in vmms:
                out, times = run(vmm, cpus, "cat", "/proc/uptime")
                times["kernel"] = float(re.search(r"^(\d+\.\d+) \d+\.\d+\r*$", out, re.M).group(1))
                seen[vmm].append(times)
                progress(f"boot {n + 1}/{runs}, {cpus} vCPU, {vmm}: init {times['init']:.2f} off {times['off']:.2f}")
        for key, what in (("init", "start to init's first line, s"), ("off", "start to power-off, s"),
                          ("kernel", "the kernel's own clock at the end, s"), ("cpu", "host CPU time, s")):
            f, q = (median([t[key] for t in seen[v]]) for v in VMMS)
            table.add(what, cpus, cell(f), cell(q), ratio(f, q))
    return table


def one_load_run(vmm, cpus, names):
    """ubench in one guest: {row: (the guest's seconds, seconds of host CPU time)}."""
    append = f"{QUIET} ferry.test=ubench ferry.args={','.join(names)}"
    seen = {}
    with Guest(kernel(), initramfs("bench"), append, MEMORY, cpus, terminal=False, reset_limit=0, vmm=vmm) as guest:
        guest.expect("^UBENCH start", 300)
        before = guest.cpu_seconds()
        for name in names:
            match = guest.expect(rf"^UBENCH {name} ([\d.]+)\r*\n", 600)
            after = guest.cpu_seconds()
            seen[name] = (float(match.group(1)), after - before)
            before = after
        guest.wait(60)
    return seen


def loads(runs, all_cpus, vmms, rows):
    """{(row, cpus, vmm): [(seconds, CPU seconds)]}"""
    seen = {}
    for cpus in all_cpus:
        names = [r for r in rows if cpus == 1 or r in PARALLEL]
        for n in range(runs if names else 0):
            for vmm in vmms:
                for name, times in one_load_run(vmm, cpus, names).items():
                    seen.setdefault((name, cpus, vmm), []).append(times)
                progress(f"loads {n + 1}/{runs}, {cpus} vCPU, {vmm}")
    return seen


def machine():
    model = re.search(r"^model name\s*: (.*)", open("/proc/cpuinfo").read(), re.M)
    mem = int(re.search(r"MemTotal:\s*(\d+)", open("/proc/meminfo").read()).group(1)) >> 20
    qemu = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True).stdout.split("\n")[0]
    ferry = subprocess.run([FERRY, "version"], capture_output=True, text=True).stdout.split("\n")[0]
    commit = subprocess.run(["git", "-C", TOP, "rev-parse", "--short", "HEAD"], capture_output=True,
                            text=True).stdout.strip()
    return (f"{model.group(1) if model else platform.machine()}, {os.cpu_count()} cores (a virtual machine: "
            f"{'hypervisor' in open('/proc/cpuinfo').read()}), {mem} GiB, Linux {platform.release()}; "
            f"{ferry or 'ferry'} at {commit}; {qemu}. Load average at the start: "
            f"{os.getloadavg()[0]:.1f}. Guest kernel: {os.path.basename(kernel())}.")


TEXT = """# Benchmarks

`make bench` measures this table anew; `make bench ARGS="--output docs/benchmarks.md"` writes it here.

How: ferry and `qemu-system-x86_64 -accel tcg -M q35 -cpu max` (multi-threaded TCG, its default) run the same
Debian 12 cloud kernel, initramfs and command line ("{append}") with {memory} MiB, one after
the other in turn, {runs} times; medians. Times are seconds, lower is better; those of the loads are
measured inside the guest by CLOCK_MONOTONIC, those of the boot from outside. ferry unpacks the kernel on the
host, QEMU's firmware and the guest unpack it inside: that is part of the comparison. QEMU's `-cpu max`
offers more instructions (AVX2 among them) than ferry's default model; the loads are built for plain x86-64.

Machine: {machine}

## Boot

{boots}

## Loads, 1 vCPU

{loads}

Elapsed seconds in the guest, then seconds of host CPU time that the process used meanwhile: on a machine that does
other things too, the second says more.

{summary}

## 1 and 2 vCPUs

The same work by as many threads as processors.

{parallel}

## Memory

Of the whole process beyond the guest's RAM, at an idle shell prompt (proportional set size).

{memory_table}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--cpus", default="1,2")
    parser.add_argument("--rows", default="")
    parser.add_argument("--only", choices=VMMS)
    parser.add_argument("--output")
    args = parser.parse_args()
    all_cpus = [int(c) for c in args.cpus.split(",")]
    vmms = [args.only] if args.only else VMMS
    with open(os.path.join(TOP, "tests/bench/ubench.c")) as f:
        known = re.findall(r'\{"([a-z-]+)", +\w+\}', f.read())
    rows = [r for r in args.rows.split(",") if r] or known
    about = machine()

    boot_table = boots(args.runs, all_cpus, vmms)
    seen = loads(args.runs, all_cpus, vmms, rows)
    load_table = Table("load", "ferry", "QEMU TCG", "ferry / QEMU", "CPU: ferry", "QEMU TCG", "ferry / QEMU")
    ratios = ([], [])
    for name in [r for r in rows if r not in PARALLEL]:
        row = [name + (" (apart)" if name in APART else "")]
        for which in (0, 1):
            f, q = (median([t[which] for t in seen.get((name, all_cpus[0], v), [])]) for v in VMMS)
            row += [cell(f), cell(q), ratio(f, q)]
            if name not in APART and ratio(f, q):
                ratios[which].append((f / q, name))
        load_table.add(*row)
    parallel_table = Table("load", "VMM", *[f"{c} vCPU" for c in all_cpus], "speed-up")
    for name in [r for r in PARALLEL if r in rows]:
        for vmm in vmms:
            values = [median([t[0] for t in seen.get((name, c, vmm), [])]) for c in all_cpus]
            parallel_table.add(name, vmm, *map(cell, values), f"{values[0] / values[-1]:.2f}")
    memory_table = Table("VMM", "vCPUs", "beyond guest RAM, MiB", "guest RAM touched, MiB")
    for cpus in all_cpus:
        for vmm in vmms:
            beyond, ram = memory(vmm, cpus)
            memory_table.add(vmm, cpus, beyond // 1024, ram // 1024)

    text = TEXT.format(append=f"console=ttyS0 {QUIET}", memory=MEMORY, runs=args.runs, machine=about,
                       boots=boot_table, loads=load_table, parallel=parallel_table, memory_table=memory_table,
                       summary="\n".join(
                           "{}: median of ferry / QEMU without the vector-heavy row **{:.2f}**, worst row **{:.2f}** "
                           "({}).".format(what, statistics.median(r for r, _ in rs), *max(rs))
                           for what, rs in zip(("Elapsed time", "Host CPU time"), ratios) if rs))
    publish(text, args.output)


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(f"bench.py: {failure}")
