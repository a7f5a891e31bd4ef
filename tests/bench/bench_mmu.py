#!/usr/bin/env python3
"""Costs of the MMU core, for every format and on one and two threads, next to a hand-written floor, to one exclusive
lock and to Linux's older locking: by turns, medians. Prints the tables and, with --output, writes them.

    bench_mmu.py [--runs N] [--rounds N] [--json FILE] [--output docs/benchmarks-mmu.md]
                 --programs PARALLEL EXCLUSIVE OLDER PAIRS
"""
import argparse
import collections
import json
import os
import statistics
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from bench import Table, machine, median, progress, publish  # noqa: E402

FORMATS = ["ept4", "ept5", "npt4", "npt5", "arm64-4k", "arm64-16k", "arm64-64k", "sv32x4", "sv39x4", "sv48x4", "sv57x4"]
ROWS = [("hit", "translate, hit (64 pages)"), ("map", "fault that maps a page"),
        ("permission-fault", "permission fault, marks dirty"), ("write-protect", "write-protect, per page"),
        ("harvest", "harvest and protect, per dirty page"), ("map-block", "fault that maps a block"),
        ("eager-split", "eager split, per page"), ("collapse", "collapse, per page"), ("unmap", "unmap, per page"),
        ("first-write-born", "first write, born with pages"), ("first-write-eager", "first write after eager split"),
        ("first-write-lazy", "first write, lazy split"),
        ("sparse-write-eager", "first write, one page of each block, eager split"),
        ("sparse-write-lazy", "the same, lazy split")]
NESTED = [("nested-map", "nested fault that makes a leaf of the shadow"), ("nested-hit", "nested translate, hit"),
          ("unmap-one-page", "unmap of one page, without shadows"),
          ("unmap-one-page-empty-shadows", "the same, shadows exist, nobody uses them"),
          ("unmap-one-page-shadowed", "the same, and the one leaf of 32,768 in the shadow that uses it"),
          ("drop-context", "dropping a context, per leaf")]
APART = "-apart"  # two threads, with an instance each
FLOORS = ["hit", "map", "permission-fault", "write-protect", "unmap"]


class Figures:
    """Medians by scheme, format, threads, name."""

    def __init__(self):
        self.all = collections.defaultdict(list)
        self.units = {}

    def add(self, line):
        scheme, fmt, threads, name, value, unit = line.split()
        self.all[scheme, fmt, int(threads), name].append(float(value))
        self.units[name] = unit

    def get(self, scheme, fmt, threads, name):
        return median(self.all.get((scheme, fmt, threads, name), []))

    def ratio(self, fmt, threads, name, under="floor"):
        """The median of the ratios of neighbours: pieces that were measured one after the other."""
        return self.per_run(fmt, threads, name, name, under)

    def per_run(self, fmt, threads, over, under, under_scheme="parallel"):
        return median(self.ratios(fmt, threads, over, under, under_scheme))

    def ratios(self, fmt, threads, over, under, under_scheme):
        pairs = zip(self.all.get(("parallel", fmt, threads, over), []),
                    self.all.get((under_scheme, fmt, threads, under), []))
        return [a / b for a, b in pairs if b]

    def scaling(self, fmt, name, how=""):
        """How much more the core gains from a second thread than the floor does: as (what it costs next to the floor
        on one thread) / (the same on two). how: APART for two with an instance each."""
        return self.ratio(fmt, 1, name) / self.ratio(fmt, 2, name + how)

    def gain(self, scheme, fmt, name, how=""):
        """How much faster two threads are than one: 2 is perfect."""
        return 2 * self.get(scheme, fmt, 1, name) / self.get(scheme, fmt, 2, name + how)

    def spread(self, fmt, threads, name):
        """The quartiles of what ratio() is the median of."""
        ratios = self.ratios(fmt, threads, name, name, "floor")
        return "" if len(ratios) < 4 else "{0:.2f} to {2:.2f}".format(*statistics.quantiles(ratios))

    def together(self, scheme, fmt):
        """What all that pairs/ does to a page costs on one thread, one after the other."""
        return sum(self.get(scheme, fmt, 1, name) for name in
                   ("map", "permission-fault", "harvest", "permission-fault", "write-protect", "unmap"))

    def names(self, prefix):
        return [n for n in dict.fromkeys(k[3] for k in self.all) if n.startswith(prefix)]


def number(value):
    return "" if value != value else f"{value:.1f}" if value < 100 else f"{value:.0f}"


class Others:
    """What took the processors beside this and its children, since it was made: percent of all there is."""

    def __init__(self):
        self.start = self.now()

    @staticmethod
    def now():
        with open("/proc/stat") as file:
            user, nice, system, idle, wait, irq, softirq, steal = map(int, file.readline().split()[1:9])
        per_second = os.sysconf("SC_CLK_TCK")
        used, stolen, free = user + nice + system + irq + softirq, steal, idle + wait
        return [used / per_second - sum(os.times()[:4]), stolen / per_second, (used + stolen + free) / per_second]

    def percent(self):
        others, stolen, all_of_it = (b - a for a, b in zip(self.start, self.now()))
        return 100 * max(others, 0) / all_of_it, 100 * stolen / all_of_it


def measure(programs, runs, rounds, figures):
    def run(*argv):
        progress(" ".join([os.path.basename(argv[0]), *argv[1:]]))
        out = subprocess.run(argv, check=True, timeout=600, stdout=subprocess.PIPE, text=True)
        for line in out.stdout.splitlines():
            figures.add(line)

    *schemes, pairs = programs
    run(pairs, str(rounds))
    for part in ([], ["linux"]):
        for _ in range(runs):
            for program in schemes:
                run(program, *part)


def goals(f):
    """(goal, limit, measured, met) of each: None if it was not measured."""
    def under(limit, value):
        return None if value != value else value <= limit

    def over(limit, value):
        return None if value != value else value >= limit

    found = []

    def add(what, limit, value, text, met):
        found.append((what, limit, "not measured" if value != value else text.format(value),
                      "" if met is None else "yes" if met else "**no**"))

    for name, how in (("hit", "by a TLB client's thread: next to the hand-written walk"),
                      ("hit-section", "by another: next to the hand-written walk in the same read section")):
        value = f.ratio("ept4", 1, name)
        add(f"translate, ept4, {how}", "1.05", value, "{:.2f}", under(1.05, value))
    value = f.ratio("ept4", 1, "map")
    add("fault that maps, ept4: next to the floor", "2", value, "{:.2f}", under(2, value))
    for name in ("map", "permission-fault", "write-protect"):
        value = f.scaling("ept4", name)
        add(f"two threads, {name}, ept4: the floor's own gain is {f.gain('floor', 'ept4', name):.2f}, the core's of it",
            "0.95", value, "{:.2f}", over(0.95, value))
    for name in ("map", "permission-fault", "write-protect", "harvest", "eager-split", "collapse", "unmap", "hit"):
        values = [(f.ratio(fmt, 1, name, "older"), fmt) for fmt in FORMATS]
        values = [v for v in values if v[0] == v[0]] or [(float("nan"), "")]
        value, fmt = median([v[0] for v in values]), max(values)
        add(f"one thread, {dict(ROWS)[name]}: next to the older scheme, median of the formats (worst: {fmt[1]} "
            f"{fmt[0]:.2f})",
            "1.05", value, "{:.2f}", under(1.05, value))
    values = [(f.together("parallel", fmt) / f.together("older", fmt), fmt) for fmt in FORMATS]
    values = [v for v in values if v[0] == v[0]] or [(float("nan"), "")]
    value, fmt = median([v[0] for v in values]), max(values)
    add("one thread, a page's life (mapped, written, harvested, written, protected, unmapped): next to the older "
        f"scheme, median of the formats (worst: {fmt[1]} {fmt[0]:.2f})", "1.05", value, "{:.2f}", under(1.05, value))
    values = [(f.get("parallel", fmt, 1, "clean-harvest-1T"), fmt) for fmt in FORMATS]
    value = max([v for v in values if v[0] == v[0]] or [(float("nan"), "")])
    add(f"harvest of 1 TiB that is clean, ms ({value[1]})", "20", value[0], "{:.1f}", under(20, value[0]))
    values = [(f.per_run(fmt, 1, "first-write-eager", "first-write-born"), fmt) for fmt in FORMATS]
    values = [v for v in values if v[0] == v[0]] or [(float("nan"), "")]
    value, fmt = median([v[0] for v in values]), max(values)
    add(f"first write after an eager split: next to a table born with pages, median (worst: {fmt[1]} {fmt[0]:.2f})",
        "1.10", value, "{:.2f}", under(1.10, value))
    values = [(f.get("parallel", fmt, 1, "table-share"), fmt) for fmt in FORMATS]
    value = max([v for v in values if v[0] == v[0]] or [(float("nan"), "")])
    add(f"tables of a guest that is mapped by smallest pages, % of its memory (most: {value[1]})", "0.25", value[0],
        "{:.3f}", under(0.25, value[0]))
    return found


def operations_table(f, threads):
    table = Table("ns, " + ("one thread" if threads == 1 else "two threads"), "floor", *FORMATS)
    for name, what in ROWS:
        values = [f.get("parallel", fmt, threads, name) for fmt in FORMATS]
        if any(v == v for v in values):
            table.add(what, number(f.get("floor", "ept4", threads, name)), *map(number, values))
    return table


def nested_table(f):
    table = Table("ns per operation, one thread", *FORMATS)
    for name, what in NESTED:
        table.add(what, *[number(f.get("parallel", fmt, 1, name)) for fmt in FORMATS])
    return table


def schemes_table(f):
    table = Table("ns per operation, ept4", "threads", "floor", "parallel", "exclusive", "older")
    for name, what in ROWS:
        for threads in (1, 2):
            values = [f.get(s, "ept4", threads, name) for s in ("parallel", "exclusive", "older")]
            if values[0] == values[0]:
                table.add(what, threads, *map(number, [f.get("floor", "ept4", threads, name), *values]))
    return table


def ratio_table(f, under, what, rows):
    table = Table(what, "threads", *FORMATS)
    for name, row in ROWS:
        for threads in (1, 2):
            if name in rows:
                table.add(row, threads, *[f"{f.ratio(fmt, threads, name, under):.2f}" for fmt in FORMATS])
    return table


def gains_table(f):
    table = Table("what a second thread gains, ept4", "floor", "core", "the core's of the floor's",
                  "apart: floor", "core", "of it", "next to the floor, 1 thread: quartiles", "2 threads", "2 apart")
    for name, what in ROWS:
        if name not in FLOORS or name == "hit":
            continue
        table.add(what, *[f"{v:.2f}" for how in ("", APART)
                          for v in (f.gain("floor", "ept4", name, how), f.gain("parallel", "ept4", name, how),
                                    f.scaling("ept4", name, how))],
                  f.spread("ept4", 1, name), f.spread("ept4", 2, name), f.spread("ept4", 2, name + APART))
    return table


def format_table(f):
    table = Table("format", "tables, % of memory", "flushes per block split by a write",
                  "flushes of an eager start",
                  "first write: eager / born", "one page of each block: lazy / eager")
    for fmt in FORMATS:
        table.add(fmt, f"{f.get('parallel', fmt, 1, 'table-share'):.4f}",
                  number(f.get("parallel", fmt, 1, "flushes-per-lazy-split")),
                  number(f.get("parallel", fmt, 1, "flushes-at-eager-start")),
                  f"{f.per_run(fmt, 1, 'first-write-eager', 'first-write-born'):.2f}",
                  number(f.per_run(fmt, 1, "sparse-write-lazy", "sparse-write-eager")))
    return table


def scenarios_table(f):
    names = [n for p in ("demand-paging", "dirty-log", "access-tracking", "page-table", "memslots") for n in f.names(p)]
    table = Table("scenario", "unit", *[f"{s}, {t}" for s in ("parallel", "exclusive", "older") for t in (1, 2)])
    for name in names:
        table.add(name, f.units[name], *[number(f.get(s, "ept4", t, name))
                                         for s in ("parallel", "exclusive", "older") for t in (1, 2)])
    return table


TEXT = """# Benchmarks of the MMU core

`make bench-mmu` measures this anew; `make bench-mmu ARGS="--output docs/benchmarks-mmu.md"` writes it here, `ARGS="--json
FILE"` keeps every figure. {machine}
{busy}

Schemes: *parallel* is the core as it is. *exclusive* is the same core under one mutex, without RCU. *older* is what Linux
did before its parallel faults: a read-write lock whose read side serves permission faults only, without RCU. *floor* is
written by hand for EPT with four levels, without formats, slots, lock, RCU or counters: a walk and one
compare-and-exchange per page (tests/bench/mmu/pairs/floor.c). Each thread has 32,768 pages of its own.

How: all but the fault that maps a block and the first writes is measured in one process that holds all four
(tests/bench/mmu/pairs/). They take turns operation by operation, 32,768 pages each (a millisecond or less), {rounds}
rounds, forth and back, beginning with another one; so what disturbs the machine disturbs all alike. A ratio is the median of
the ratios of neighbours, not the ratio of medians. What two threads gain next to the floor's gain is the ratio to the
floor on one thread over that on two. All other figures are medians of {runs} runs of a programme for each scheme, by turns.
One thread: its processor time; two threads, which begin together without sleeping: the time of the slower.

## Goals

{goals}

What is dearer on one thread than in the older scheme pays for what others may do meanwhile: who unmaps tables waits for a
grace period before they are freed, some microseconds for a whole call, here of 32,768 pages. One for several calls
was tried (tables kept until there were 0.5 or 2 MiB of them): the tables had left the caches by then, and to count and
free what was in them cost more than was saved (1.3 and 1.5 of the older scheme). Translations are those of a thread that
fills a TLB and acknowledges flushes: whoever unlinks a table waits for that. Other threads (devices) enter and leave a
read section for each, which costs them two stores more.

The header of a table page has **0 bytes**: nothing but entries is kept per table, canonical or not.

What the core does in a fault on a small page and the floor does not: it enters and leaves the lock (two stores, a look
for a writer), compares the address with the thread's last slot, looks whether that slot is of the usual kind (one word of
flags), takes the number of levels, the host address and what a new leaf is made of from where they were configured, counts
(leaf and outcome are one count), and tells the caller what is there (three stores). Stepped through, that is 100
instructions and 9 stores (x86-64, ept4; the floor: 73 and 9). None of it is shared with another thread.

## Operations

{one}

{two}

{schemes}

{floors}

{exclusive}

{older}

{gains}

*apart*: each thread with an instance of its own, so that the two share nothing but the machine. Where the core gains as
little there, it is no line of its memory that they fight for. Fetching dirty bits is one thread's at a time, and who unmaps
waits for a grace period.

Flushes are asserted by the benchmark: a write that splits a block makes one flush on arm64 (break-before-make) and none
elsewhere, and writes to pages that are small already make none.

{formats}

## Nested guests

The guest's second stage is of the host's format, in leaves of the smallest size. Without shadows, range operations test
one pointer per flush; translation and faults test nothing.

{nested}

## What Linux's selftests measure

Their words, ept4, 128 MiB per vCPU touched page by page: populate, enable, pass, get, clear and disable of
dirty_log_perf_test (-eager: blocks are split when it begins; -manual: get and clear apart; -collapse: blocks again when it
ends); create, update, adjust of kvm_page_table_test; memslot_modification_stress_test (faults while a
thread adds and removes a slot each 100 microseconds); demand_paging_test (each page comes through a server thread of its
vCPU's own).{ageing}

{scenarios}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--json")
    parser.add_argument("--output")
    parser.add_argument("--programs", nargs=4, required=True)
    args = parser.parse_args()
    figures = Figures()
    others = Others()
    measure(args.programs, args.runs, args.rounds, figures)
    taken = others.percent()
    if args.json:
        with open(args.json, "w") as file:
            json.dump([{"scheme": s, "format": f, "threads": t, "name": n, "unit": figures.units[n], "values": v}
                       for (s, f, t, n), v in figures.all.items()], file, indent=1)
    table = Table("goal", "limit", "measured", "met")
    for row in goals(figures):
        table.add(*row)
    busy = "Meanwhile other programmes took {:.0f} % of the processors, and the host {:.0f} %.".format(*taken)
    if sum(taken) > 5:
        busy += ("\n\n**The machine was busy: two threads, and ratios, mean little here; to be measured again on a "
                 "quiet one.**")
    publish(TEXT.format(runs=args.runs, rounds=args.rounds,
                        machine=machine().split("; QEMU")[0] + ".",
                        busy=busy, goals=table, one=operations_table(figures, 1),
                        two=operations_table(figures, 2), schemes=schemes_table(figures), floors=ratio_table(figures, "floor", "next to the floor", FLOORS),
                        exclusive=ratio_table(figures, "exclusive", "next to one exclusive lock", dict(ROWS)),
                        older=ratio_table(figures, "older", "next to the older scheme", dict(ROWS)),
                        gains=gains_table(figures),
                        formats=format_table(figures), nested=nested_table(figures),
                        scenarios=scenarios_table(figures),
                        ageing="" if figures.names("access-tracking") else
                        " access_tracking_perf_test is missing: the core has no ageing yet."), args.output)


if __name__ == "__main__":
    main()
