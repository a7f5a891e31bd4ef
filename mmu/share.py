#!/usr/bin/env python3
"""How much of the MMU core is common: for each format f, common / (common + f) in lines of code (no
blank lines, no comments). Every file that knows f's bits counts as f: stage2_f.c, what it includes from
mmu/format/, and what reads a guest's tables of that format (mmu/guest). Fails if a format is more than a
tenth, or has more than 200 lines."""

import glob
import os
import re
import sys


def code_lines(path):
    with open(path, encoding="utf-8") as file:
        text = re.sub(r"/\*.*?\*/|//[^\n]*", "", file.read(), flags=re.S)
    return sum(1 for line in text.split("\n") if line.strip())


def format_files(path, found):
    """path and the headers of formats below it."""
    found.add(path)
    with open(path, encoding="utf-8") as file:
        for header in re.findall(r'#include "(mmu/format/[^"]*)"', file.read()):
            if header not in found:
                format_files(header, found)
    return found


def main():
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    formats = {}
    for path in sorted(glob.glob("mmu/stage2_*.c")):
        formats[path[len("mmu/stage2_"):-2]] = format_files(path, set())
    for path in sorted(glob.glob("mmu/guest/*.c")):
        known = format_files(path, set()) - {path}
        for files in formats.values():
            if any(header in files for header in known if header != "mmu/format/x86.h"):
                files.add(path)
    special = set().union(*formats.values())
    common = sum(code_lines(path) for path in sorted(glob.glob("mmu/*.[ch]") + glob.glob("mmu/guest/*.[ch]"))
                 if path not in special)
    stray = set(glob.glob("mmu/format/*")) - special
    bad = bool(stray)
    print(f"{'common':8} {common:5} lines")
    for name, files in formats.items():
        own = sum(code_lines(path) for path in files)
        share = 100 * common / (common + own)
        good = share >= 90 and own <= 200
        bad |= not good
        print(f"{name:8} {own:5} lines  {share:5.1f} % common{'' if good else '  TOO MUCH'}  "
              + " ".join(sorted(files)))
    for path in sorted(stray):
        print(f"{path}: of no format")
    return bad


if __name__ == "__main__":
    sys.exit(main())
