#!/usr/bin/env python3
"""How much of the MMU core is common: for each format f, common / (common + f) in lines of code (no
blank lines, no comments). Every file that knows f's bits counts as f, in one of three columns: the
format itself (stage2_f.c and what it includes from mmu/format/); the guest's own second stage of that
architecture (mmu/guest/nested_ARCH.c: registers, entries that the manual forbids, what invalidations
mean; and ARCH.h); its first stage (mmu/guest/stage1_ARCH.c). The share counts all three. Fails if a
format with all of them is more than a tenth, if a column has more than 200 lines, or if another file
includes mmu/format/."""

import glob
import os
import re
import sys

# which formats are those of an architecture of mmu/guest
GUESTS = {"arm": ("arm",), "riscv": ("riscv",), "x86": ("ept", "npt")}
COLUMNS = ("format", "guest's second", "guest's first")
MOST_LINES = 200


def code_lines(path):
    with open(path, encoding="utf-8") as file:
        text = re.sub(r"/\*.*?\*/|//[^\n]*", "", file.read(), flags=re.S)
    return sum(1 for line in text.split("\n") if line.strip())


def format_headers(path):
    with open(path, encoding="utf-8") as file:
        return re.findall(r'#include "(mmu/format/[^"]*)"', file.read())


def format_files(path, found):
    """path and the headers of formats below it."""
    found.add(path)
    for header in format_headers(path):
        if header not in found:
            format_files(header, found)
    return found


def main():
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    formats = {}
    for path in sorted(glob.glob("mmu/stage2_*.c")):
        formats[path[len("mmu/stage2_"):-2]] = [format_files(path, set()), set(), set()]
    for arch, names in GUESTS.items():
        for name in names:
            formats[name][1] = {f"mmu/guest/nested_{arch}.c", f"mmu/guest/{arch}.h"}
            formats[name][2] = {f"mmu/guest/stage1_{arch}.c"}
    special = set().union(*(files for columns in formats.values() for files in columns))
    everything = set(glob.glob("mmu/*.[ch]") + glob.glob("mmu/guest/*.[ch]") + glob.glob("mmu/format/*"))
    common = sum(code_lines(path) for path in everything - special)
    # a header of a format that is of none, and a common file that looks into one
    stray = {path for path in everything - special if path.startswith("mmu/format/") or format_headers(path)}
    bad = bool(stray)
    print(f"common {common} lines\n\n{'':8}" + "".join(f"{title:>16}" for title in COLUMNS) +
          f"{'all':>8}{'common':>12}")
    for name, columns in formats.items():
        own = [sum(code_lines(path) for path in files) for files in columns]
        share = 100 * common / (common + sum(own))
        good = share >= 90 and max(own) <= MOST_LINES
        bad |= not good
        print(f"{name:8}" + "".join(f"{lines:16}" for lines in own) +
              f"{sum(own):8}{share:10.1f} %{'' if good else '  TOO MUCH'}")
    print()
    for name, columns in formats.items():
        print(f"{name:8}" + " ".join(path for files in columns for path in sorted(files)))
    for path in sorted(stray):
        print(f"{path}: of no format")
    return bad


if __name__ == "__main__":
    sys.exit(main())
