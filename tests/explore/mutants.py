#!/usr/bin/env python3
"""Plants mistakes into copies of mmu/ and demands that the exploration finds each: mutants.py [-j N] [NAME]...

A mutant is a file, what stands there, and what stands there instead; the scenario that must fail is found by
running all of them. One that survives, or whose text is not there any more, fails the run.
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(TOP, os.environ.get("BUILD", "build"), "explore")

SET_BIT = """	if (slot->bitmap && access & S2_W)
		dirty_note(t, slot, gpa & ~(geometry_size(&g, goal) - 1), geometry_size(&g, goal));
"""
SWITCH_BASE = "	if (f->break_before_make && split && goal < from && !brk->old) {\n"
MUTANTS = {
    # what an entry points to is not seen by whoever sees the entry
    "publish-relaxed": ("entry.h", "old, value, false, __ATOMIC_ACQ_REL,\n\t\t\t\t\t   __ATOMIC_ACQUIRE);",
                        "old, value, false, __ATOMIC_ACQUIRE,\n\t\t\t\t\t   __ATOMIC_ACQUIRE);"),
    "load-relaxed": ("entry.h", "return __atomic_load_n((const uint64_t *)entry, __ATOMIC_ACQUIRE);",
                     "return __atomic_load_n((const uint64_t *)entry, __ATOMIC_RELAXED);"),
    # the protocol of dirty bits
    "bit-before-write": ("stage2_fault.h", SWITCH_BASE, SET_BIT + SWITCH_BASE, SET_BIT, ""),
    "no-bit": ("stage2_fault.h", SET_BIT, ""),
    "harvest-without-flush": ("dirty_harvest.c", "	if (h->clear && h->count)\n		range_flush(",
                              "	if (0)\n		range_flush("),
    "harvest-keeps-w": ("stage2_range.h", "		stage2_protect_entry(f, t, page, &w, true);\n	}\n	rcu_exit();",
                        "	}\n	rcu_exit();"),
    "mark-does-nothing": ("dirty_log.c", "		if (slot->bitmap)\n			dirty_wrote(",
                          "		if (0)\n			dirty_wrote("),
    # flushes
    "unmap-does-not-wait": ("range.c", "	tlb_wait(&t->s2->tlb, generation);\n	/* Tables that", "	/* Tables that"),
    "protect-without-flush": ("range.c", "if (!err && t->ops->protect(t, &start, &end, false))\n		range_flush(t, start, end);",
                              "if (!err)\n		t->ops->protect(t, &start, &end, false);"),
    "protected-already-is-not-flushed": ("stage2_range.h", "		met = true;\n		if (it.at.kind == ENTRY_FROZEN)\n",
                                         "		met |= it.at.kind == ENTRY_LEAF && f->perm(it.at.value) & S2_W;\n"
                                         "		if (it.at.kind == ENTRY_FROZEN)\n"),
    "frozen-already-is-not-flushed": ("stage2_range.h", "				met = true; /* another's work",
                                      "				(void)0; /* another's work"),
    # frozen entries and the life of tables
    "thaw-of-others": ("stage2_range.h", "if (it.at.kind != ENTRY_FROZEN || format_frozen_owner(f, it.at.value) != t->owner)",
                       "if (it.at.kind != ENTRY_FROZEN)"),
    "no-grace-period": ("range.c", "	if (tables)\n		rcu_synchronize();", ""),
    "collapse-without-grace-period": ("stage2_collapse.h", "		rcu_synchronize();\n		for", "		for"),
    "fault-maps-over-frozen": ("stage2_fault.h", "	} else if (w->kind == ENTRY_FROZEN) {\n		return S2_RETRY;\n",
                               "	} else if (0) {\n		return S2_RETRY;\n"),
    "unmap-without-freezing": ("walker.h", "	return walk_replace(f, pt, w, format_freeze(f, &g, w->value, w->level, owner));",
                               "	(void)g;\n	(void)owner;\n	return walk_replace(f, pt, w, 0);"),
    "exchange-without-compare": ("entry.h", "	return __atomic_compare_exchange_n((uint64_t *)entry, old, value,",
                                 "	*old = __atomic_load_n((uint64_t *)entry, __ATOMIC_ACQUIRE);\n"
                                 "	return __atomic_compare_exchange_n((uint64_t *)entry, old, value,"),
    # break-before-make
    "comes-back-after-unmap": ("stage2_break.h", "		walk_replace(f, pt, w, format_frozen_gone(f, w->value));",
                               "		break;"),
    "break-is-not-undone": ("stage2_fault.h", "		stage2_break_undo(f, t, gpa, &brk);", "		(void)0;"),
}


def build(source, changed):
    """The exploration with what `changed` (a file of mmu/) goes into compiled anew from `source`."""
    flags = "-std=gnu17 -O1 -w -D_GNU_SOURCE -pthread".split()
    objects = []
    for folder, _, files in os.walk(BUILD):
        for name in sorted(files):
            if not name.endswith(".o"):
                continue
            path = os.path.join(folder, name)
            unit = os.path.relpath(path, BUILD)[:-2]
            with open(path[:-2] + ".d") as f:
                needs = f.read().split()
            if "mmu/" + changed in needs:
                path = os.path.join(source, unit.replace("/", "_") + ".o")
                subprocess.run(["gcc", *flags, f"-I{source}", "-I.", "-include", "tests/explore/instrument.h", "-c",
                                "-o", path, os.path.join(source, "mmu", unit + ".c")], check=True, cwd=TOP)
            objects.append(path)
    program = os.path.join(source, "explore")
    subprocess.run(["gcc", *flags, f"-I{source}", "-I.", "-o", program, "tests/explore/explore.c",
                    "tests/explore/scenarios.c", *objects], check=True, cwd=TOP)
    return program


def try_mutant(name, file, *texts):
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        shutil.copytree(os.path.join(TOP, "mmu"), os.path.join(folder, "mmu"))
        path = os.path.join(folder, "mmu", file)
        with open(path) as f:
            text = f.read()
        for old, new in zip(texts[0::2], texts[1::2]):
            # The text may have moved, but is there once; what a mutant moves may be there twice for a moment.
            if old not in text:
                return f"FAILED {name}: mmu/{file} has changed, the mutant must, too"
            at = text.rfind(old) if new == "" else text.find(old)
            text = text[:at] + new + text[at + len(old):]
        with open(path, "w") as f:
            f.write(text)
        program = build(folder, file)
        # The bounds of make test find most; the larger ones follow.
        for bounds in ("-p 1 -s 1", "-p 2 -s 0", "-p 2 -s 1"):
            done = subprocess.run([program, *bounds.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                  errors="replace", timeout=600)
            if done.returncode:
                break
    if done.returncode == 0:
        return f"FAILED {name}: survives"
    why = [line for line in done.stderr.splitlines() if line.startswith("failed ")]
    where = done.stdout.strip().replace("FAILED ", "") or f"signal {-done.returncode}"
    return f"{name}: found with {bounds} in {where}" + (f" ({why[0][7:]})" if why else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*")
    args = parser.parse_args()
    bad = 0
    for name, mutant in MUTANTS.items():
        if args.name and name not in args.name:
            continue
        verdict = try_mutant(name, *mutant)
        bad += verdict.startswith("FAILED")
        print(verdict, flush=True)
    print(f"{len(MUTANTS)} mutants, {bad} not found")
    sys.exit(bad != 0)


if __name__ == "__main__":
    main()
