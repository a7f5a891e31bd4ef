#!/usr/bin/env python3
"""Plants mistakes into copies of mmu/ and demands that each is found, by the exploration or by unit tests:
mutants.py [--again] [NAME]...

A mutant is a file, what stands there, and what stands there instead. One that survives, or whose text is not there any
more, fails the run. What was found is kept in the build folder, and is not tried again while mmu/ and the exploration
are the same. About ten seconds of one processor each, where the hint is right.
--texts only looks if the texts are there.
"""
import argparse
import glob
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(TOP, os.environ.get("BUILD", "build"), "explore")

SET_BIT = """	if (slot->bitmap && access & S2_W)
		stage2_dirtied(f, &g, t, slot, gpa, goal, page);
"""
SET_NEW_BIT = """	if (access & S2_W && slot->bitmap)
		stage2_dirtied(f, &g, t, slot, gpa, 1, true);
"""
NEW_PAGE = "	if (__builtin_expect(!walk_replace(f, pt, &w, made.entry), 0)) {\n"
USUAL = "(SLOT_STATES | SLOT_DYING | SLOT_RINGS | S2_SLOT_READONLY)"
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
    "new-page-bit-before-write": ("stage2_usual.h", NEW_PAGE, SET_NEW_BIT + NEW_PAGE, SET_NEW_BIT, ""),
    "new-page-no-bit": ("stage2_usual.h", SET_NEW_BIT, ""),
    "new-page-of-the-last-tracking": ("dirty_log.c", "	s2_make_fresh(s2);\n	atomic_store(", "	atomic_store(",
                                      "		s2_make_fresh(s2);\n", ""),
    "harvest-without-flush": ("dirty_harvest.c", "	if (h->flush.first <= h->flush.last)\n		range_flush(",
                              "	if (0)\n		range_flush("),
    "harvest-keeps-w": ("stage2_range.h", "		stage2_protect_page(f, &g, t, page,\n"
                        "				    entry_at(&g, w.entry, (page >> shift) - (gpa >> shift)), dbit);\n"
                        "	}\n	rcu_exit();",
                        "	}\n	rcu_exit();"),
    "mark-does-nothing": ("dirty_log.c", "		if (slot->bitmap)\n			dirty_wrote(",
                          "		if (0)\n			dirty_wrote("),
    # dirty bits of hardware
    "unmap-loses-d": ("stage2_range.h", "			if (stage2_dbit(f, t->s2))\n				stage2_gather_leaf(f, t, &it);\n", ""),
    "d-goes-with-its-table": ("stage2_range.h", "	return stage2_dbit(f, s2) ? 0 : g->index_bits", "	(void)s2;\n	return g->index_bits"),
    "w-without-d": ("walker.h", "perm & ~(uint32_t)FORMAT_W", "perm"),
    "harvest-leaves-d": ("stage2_range.h", "	return dbit ? f->dirty : format_write_bits(f);", "	return format_write_bits(f);"),
    "harvest-does-not-read-d": ("dirty_harvest.c", "		h->t->ops->gather(h->t, gpa, h->last + 1);", "		(void)0;"),
    "d-is-gathered-after-the-bits": ("dirty_harvest.c", "	if (h->flush.first <= h->flush.last)\n		range_flush(",
                                     "	if (pages && h->bitmap && stage2_dbit(s2->ops->format, s2))\n"
                                     "		h->t->ops->gather(h->t, h->gpa, h->last + 1);\n"
                                     "	if (h->flush.first <= h->flush.last)\n		range_flush(",
                                     "		h->t->ops->gather(h->t, gpa, h->last + 1);\n", "		(void)0;\n"),
    # bits by hand, and at once
    "reprotect-flushes-its-own": ("dirty_harvest.c", "	if (h->chosen)\n		flush_chosen", "	if (0)\n		flush_chosen"),
    "reprotect-clears-all": ("dirty_harvest.c", "		mask &= h->chosen[at];", "		(void)at;"),
    "reprotect-only-clears": ("dirty_harvest.c", "	if (h->clear)\n		dirty_protect(", "	if (h->clear && !h->chosen)\n		dirty_protect("),
    "tracking-takes-nothing-back": ("dirty_log.c", "	if (t->ops->protect(t, &first, &end, true))\n		range_flush(t, first, end);\n",
                                    "	(void)first, (void)end;\n"),
    # large leaves that are not executable
    "large-leaf-is-executable": ("stage2_fault.h", "			grant &= ~(uint32_t)S2_X;", "			(void)0;"),
    "execution-maps-large": ("stage2_fault.h", "		if (access & S2_X)\n			goal = 1;\n		else\n", ""),
    "collapse-of-what-is-executed": ("stage2_collapse.h", " &&\n		    !(t->s2->nx_huge && rx & S2_X)", ""),
    # clients' walks
    "client-no-more-walks-as-one": ("second_stage.c", "	if (client->thread)\n		client->thread->translate = "
                                    "client->thread->translate_shadow;\n", ""),
    # flushes
    "unmap-does-not-wait": ("range.c", "	tlb_wait(&t->s2->tlb, generation);\n	/* Tables that", "	/* Tables that"),
    "protect-without-flush": ("range.c", "if (!err && t->ops->protect(t, &start, &end, false))\n		range_flush(t, start, end);",
                              "if (!err)\n		t->ops->protect(t, &start, &end, false);"),
    "protected-already-is-not-flushed": ("stage2_range.h", "		if (other == value)\n			return true;\n",
                                         "		if (other == value)\n			return false;\n"),
    "frozen-already-is-not-flushed": ("stage2_range.h", "				met = true; /* another's work",
                                      "				(void)0; /* another's work"),
    # ageing
    "age-without-flush": ("age.c", "	if (age.met && (flush", "	if (0 && (flush"),
    "aged-already-is-not-flushed": ("stage2_age.h", "		if (it.at.kind == ENTRY_LEAF || it.at.kind == ENTRY_FROZEN) {",
                                    "		if (used) {"),
    # frozen entries and the life of tables
    "thaw-of-others": ("stage2_range.h", "if (it.at.kind != ENTRY_FROZEN || format_frozen_owner(f, it.at.value) != t->owner)",
                       "if (it.at.kind != ENTRY_FROZEN)"),
    "no-grace-period": ("range.c", "	if (tables)\n		s2_synchronize(t->s2);", ""),
    "grace-period-without-the-lock": ("internal.h", "	brlock_synchronize(&s2->lock);\n", ""),
    "grace-period-without-rcu": ("internal.h", "	rcu_synchronize();\n", ""),
    "collapse-without-grace-period": ("stage2_collapse.h", "		s2_synchronize(t->s2);\n		for", "		for"),
    "freed-under-the-lock": ("stage2_range.h", "		stage2_exit(&loop);\n		stage2_free(",
                             "		stage2_free("),
    "filled-under-the-lock": ("stage2_fault.h",
                              "	if (t->pool.count < pt->geo.levels - 1u)\n		table_pool_fill(", "	(void)(",
                              "	brlock_read_lock(&s2->lock, &t->reader);\n	slot",
                              "	brlock_read_lock(&s2->lock, &t->reader);\n"
                              "	table_pool_fill(&t->pool, pt->geo.levels - 1u);\n	slot"),
    "fault-maps-over-frozen": ("stage2_fault.h", "	} else if (w->kind == ENTRY_FROZEN) {\n		return S2_RETRY;\n",
                               "	} else if (0) {\n		return S2_RETRY;\n"),
    "unmap-without-freezing": ("walker.h", "	return walk_replace(f, pt, w, format_freeze(f, &g, w->value, w->level, owner));",
                               "	(void)g;\n	(void)owner;\n	return walk_replace(f, pt, w, 0);"),
    "exchange-without-compare": ("entry.h", "	return __atomic_compare_exchange_n((uint64_t *)entry, old, value,",
                                 "	*old = __atomic_load_n((uint64_t *)entry, __ATOMIC_ACQUIRE);\n"
                                 "	return __atomic_compare_exchange_n((uint64_t *)entry, old, value,"),
    # the lock, and the short way of a fault
    "synchronize-does-not-wait": ("brlock.c", "where there is no membarrier */\n	wait_readers(lock);\n",
                                  "where there is no membarrier */\n"),
    "writer-does-not-wait": ("brlock.c", "BRLOCK_WRITER);\n	wait_readers(lock);\n", "BRLOCK_WRITER);\n"),
    "reader-does-not-look": ("brlock.h", "!atomic_load_explicit(&lock->state, memory_order_acquire)",
                             "!(atomic_load_explicit(&lock->state, memory_order_acquire) & 0)"),
    "short-fault-in-a-dying-slot": ("slots.h", USUAL, USUAL.replace("SLOT_DYING | ", "")),
    "fault-in-a-dying-slot": ("stage2_fault.h", "	} else if (slot && !(slot->s.flags & SLOT_DYING)) {",
                              "	} else if (slot) {"),
    "short-fault-past-the-ring": ("slots.h", USUAL, USUAL.replace("SLOT_RINGS | ", "")),
    "short-fault-of-a-missing-page": ("slots.h", USUAL, USUAL.replace("SLOT_STATES", "SLOT_SHARING")),
    "short-fault-of-another's-page": ("slots.h", USUAL, USUAL.replace("SLOT_STATES", "SLOT_MISSING")),
    "short-fault-writes-what-is-read-only": ("slots.h", USUAL, USUAL.replace(" | S2_SLOT_READONLY", "")),
    "slot-dies-without-waiting": ("second_stage.c", "	brlock_write_lock(&s2->lock);\n"
                                  "	slot->s.flags |= SLOT_DYING;\n	brlock_write_unlock(&s2->lock);\n",
                                  "	slot->s.flags |= SLOT_DYING;\n"),
    # break-before-make
    "comes-back-after-unmap": ("stage2_break.h", "		walk_replace(f, pt, w, format_frozen_gone(f, w->value));",
                               "		break;"),
    "break-is-not-undone": ("stage2_fault.h", "		stage2_break_undo(f, t, gpa, &brk);", "		(void)0;"),
    "broken-comes-back-with-w": ("stage2_range.h", "		stage2_gone(f, &t->s2->pt, w);\n	}\n}", "	}\n}"),
    "fault-keeps-what-it-flushed": ("stage2_fault.h", "		goto again;\n	}\n	if (f->break",
                                    "		if (!brk.made)\n			goto again;\n	}\n	if (f->break"),
    # entries of 4 bytes
    "publish-relaxed-32": ("entry.h", "false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);",
                           "false, __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE);"),
    "load-relaxed-32": ("entry.h", "return __atomic_load_n((const uint32_t *)entry, __ATOMIC_ACQUIRE);",
                        "return __atomic_load_n((const uint32_t *)entry, __ATOMIC_RELAXED);"),
    # missing pages
    "received-before-it-is-filled": ("missing.c", "		ret = fill(opaque,",
                                     "		states_change(&slot->missing, &missing_rules, page, S2_PAGE_RECEIVED, "
                                     "NULL);\n		ret = fill(opaque,"),
    "fill-without-bucket": ("missing.c", "	pthread_mutex_lock(&bucket->mutex);\n	if (S2_PAGES", "	if (S2_PAGES",
                            "	pthread_mutex_unlock(&bucket->mutex);\n	if (ret > 0)", "	if (ret > 0)"),
    "fill-marked-too-early": ("missing.c", "		ret = fill(opaque,",
                              "		if (slot->bitmap)\n			dirty_wrote(t, slot, gpa, size);\n"
                              "		ret = fill(opaque,",
                              "			if (slot->bitmap)\n				dirty_wrote(t, slot, gpa, size);\n"
                              "			states", "			states"),
    "asked-for-by-everybody": ("missing.c", "		return was == S2_PAGE_REQUESTED;\n",
                               "		if (was != S2_PAGE_REQUESTED)\n			return false;\n"),
    "marked-while-faults-map": ("missing_walk.c",
                                "	brlock_synchronize(&s2->lock);\n", ""),
    "marked-and-mapped": ("missing_walk.c", "	range_unmap(t, gpa + (m.first", "	(void)(gpa + (m.first",
                          "(m.first << missing_shift(s2)),", "(m.first << missing_shift(s2))),"
                          " (void)("),
    "waits-for-what-has-come": ("missing_wait.c", "		pthread_mutex_lock(&bucket->mutex);\n		/* Whoever receives",
                                "		unsigned was = states_get(&slot->missing, page);\n\n"
                                "		pthread_mutex_lock(&bucket->mutex);\n		/* Whoever receives",
                                "S2_PAGES_AWAITED >> states_get(&slot->missing, page)", "S2_PAGES_AWAITED >> was"),
    "waits-for-a-slot-that-goes": ("second_stage.c", "	missing_slot_dying(t, &gone);\n", ""),
    # owners of pages
    "given-while-it-is-mapped": ("sharing.c", "	settle(first, pages);\n	lock_both(a, b, true);", "	lock_both(a, b, true);"),
    "given-while-faults-map": ("sharing.c", "	brlock_synchronize(&t->s2->lock);\n	range_unmap(", "	range_unmap("),
    "given-by-whom-it-was-not": ("sharing.c", "		if (err || other)\n			return -EPERM;\n", ""),
    "given-and-not-taken": ("sharing.c", "		put(second, pages);\n	else", "		(void)0;\n	else"),
    "given-by-two": ("sharing.c", "	lock_both(a, b, true);\n	err = check(first, second, pages);\n	if (!err)\n		put(first, pages);\n"
                     "	lock_both(a, b, false);\n",
                     "	err = check(first, second, pages);\n	if (!err)\n		put(first, pages);\n"),
    # dirty rings
    "ring-head-first": ("dirty_ring.c",
                        "	__atomic_store_n(&ring->entry[head & (ring->entries - 1)], page, __ATOMIC_RELAXED);\n"
                        "	atomic_store_explicit(&ring->head, head + 1, memory_order_release);\n",
                        "	atomic_store_explicit(&ring->head, head + 1, memory_order_release);\n"
                        "	__atomic_store_n(&ring->entry[head & (ring->entries - 1)], page, __ATOMIC_RELAXED);\n"),
    "ring-head-relaxed": ("dirty_ring.c", "&ring->head, head + 1, memory_order_release",
                          "&ring->head, head + 1, memory_order_relaxed"),
    "ring-freed-before-it-is-protected": ("dirty_ring.c",
                                          "		brlock_read_lock(&t->s2->lock, &t->reader);\n		while (i != stop) {",
                                          "		atomic_store_explicit(&ring->tail, stop, memory_order_release);\n"
                                          "		brlock_read_lock(&t->s2->lock, &t->reader);\n"
                                          "		while (i != stop) {"),
    "ring-reset-without-flush": ("dirty_ring.c", "	if (n)\n		s2->ring_generation", "	if (0)\n		s2->ring_generation"),
    "ring-reset-waits-for-its-own": ("dirty_ring.c", "	tlb_wait(&s2->tlb, generation);", "	if (n)\n		tlb_wait(&s2->tlb, generation);"),
    "ring-again-after-harvest": ("dirty_ring.c", "atomic_fetch_add(&ring->harvested, 0) < head;", "true;"),
    "ring-lost-with-its-thread": ("thread.c", "	dirty_ring_spill(t);\n", ""),
    "ring-full-loses": ("dirty_ring.c", "if (!t->ring.entry || size != geometry_size(&t->s2->pt.geo, 1) || !ring_put(&t->ring, gpa))",
                        "if (!t->ring.entry || size != geometry_size(&t->s2->pt.geo, 1))\n		(void)0;\n	else\n		ring_put(&t->ring, gpa);\n	if (!t->ring.entry)"),
    # shadows
    "shadow-is-not-rechecked": ("shadow_fault.c", "	if (atomic_load(&set->seq) == seq)\n", "	if (seq + 1)\n"),
    "shadow-is-sampled-late": ("shadow_fault.c", "	/* Best effort: most faults need fewer tables, or none. */\n",
                               "	seq = atomic_load(&set->seq);\n"),
    "follow-is-not-counted": ("shadow_change.c", "			if (!c.set)\n				atomic_fetch_add(&set->seq, 1);\n", ""),
    "forget-is-not-counted": ("shadow_change.c", "		atomic_fetch_add(&c->set->seq, 1);\n		more = ctx->made",
                              "		more = ctx->made"),
    "follow-says-nothing": ("shadow_change.c", "			say(&c);\n			if (!more) {", "			if (!more) {"),
    "follow-says-it-late": ("shadow_change.c", "			say(&c);\n			if (!more) {", "			if (!more) {",
                            "		brlock_write_unlock(&s2->lock);\n	} while (more);\n}\n\n/* Unlinks",
                            "		brlock_write_unlock(&s2->lock);\n		if (set)\n			say(&c);\n	} while (more);\n}\n\n"
                            "/* Unlinks"),
    "follow-leaves-w": ("shadow_change.c", "		if (!(had & ~may)) {\n", "		if (1) {\n"),
    "follow-trusts-w": ("shadow_change.c", "			if (had & S2_W)\n				flush_leaf(c, n);\n", ""),
    "forget-does-not-wait": ("shadow_change.c", "	if (c->generation)\n		tlb_wait_tag(&c->set",
                             "	if (0)\n		tlb_wait_tag(&c->set"),
    "empty-without-grace-period": ("shadow_change.c", "		if (trees)\n			rcu_synchronize();\n", ""),
    "range-does-not-look-for-shadows": ("range.c", "		shadow_follow(t, start, end);", "		(void)0;"),
}

BY_UNIT = "unit tests"

# Where a mutant is looked for first, with two preemptions and a stale load: a format, the beginning of a scenario; or
# one of the unit tests.
HINTS = {
    "ring-reset-waits-for-its-own": (BY_UNIT, "test_mmu_dirty"),
    "reprotect-flushes-its-own": (BY_UNIT, "test_mmu_dirty"),
    "publish-relaxed": ("ept4", "read, read"),
    "load-relaxed": ("ept4", "read, read"),
    "bit-before-write": ("ept4", "write, harvest"),
    "no-bit": ("ept4", "write, harvest"),
    "new-page-bit-before-write": ("ept4", "new page: write twice, harvest"),
    "new-page-no-bit": ("ept4", "new page: write, harvest"),
    "new-page-of-the-last-tracking": (BY_UNIT, "test_mmu_dirty"),
    "harvest-without-flush": ("ept4", "write, harvest"),
    "harvest-keeps-w": ("ept4", "write twice, harvest"),
    "mark-does-nothing": ("ept4", "device, harvest"),
    "unmap-does-not-wait": ("ept4", "read, unmap"),
    "unmap-loses-d": ("ept4", "D: write, unmap"),
    "d-goes-with-its-table": ("ept4", "D: write, unmap the table"),
    "w-without-d": ("ept4", "D: write twice"),
    "harvest-leaves-d": ("ept4", "D: write twice"),
    "harvest-does-not-read-d": ("ept4", "D: write, harvest"),
    "d-is-gathered-after-the-bits": ("ept4", "D: write, harvest"),
    "reprotect-clears-all": ("ept4", "by hand: "),
    "reprotect-only-clears": ("ept4", "by hand: "),
    "tracking-takes-nothing-back": ("ept4", "at once: "),
    "large-leaf-is-executable": ("ept4", "NX: "),
    "execution-maps-large": ("ept4", "NX: "),
    "collapse-of-what-is-executed": (BY_UNIT, "test_mmu_huge"),
    "client-no-more-walks-as-one": ("ept4", "read and look"),
    "protect-without-flush": ("ept4", "write, protect"),
    "protected-already-is-not-flushed": ("ept4", "write, protect, protect"),
    "frozen-already-is-not-flushed": ("ept4", "read, unmap, unmap"),
    "thaw-of-others": ("ept4", "unmap the table, twice"),
    "no-grace-period": ("ept4", "read, unmap the table"),
    "grace-period-without-the-lock": ("ept4", "device, unmap"),
    "grace-period-without-rcu": ("ept4", "device, unmap"),
    "synchronize-does-not-wait": ("ept4", "read, unmap the table"),
    "writer-does-not-wait": ("ept4", "read, remove the slot"),
    "reader-does-not-look": ("ept4", "read, remove the slot"),
    "short-fault-in-a-dying-slot": (BY_UNIT, "test_mmu_slots"),
    "fault-in-a-dying-slot": ("ept4", "write, remove the slot"),
    "short-fault-past-the-ring": (BY_UNIT, "test_mmu_dirty"),
    "short-fault-of-a-missing-page": ("ept4", "missing: read, receive"),
    "short-fault-of-another's-page": (BY_UNIT, "test_mmu_sharing"),
    "short-fault-writes-what-is-read-only": (BY_UNIT, "test_mmu_slots"),
    "slot-dies-without-waiting": ("ept4", "read, remove the slot"),
    "collapse-without-grace-period": ("ept4", "collapse, "),
    "freed-under-the-lock": ("ept4", "read, unmap the table"),
    "filled-under-the-lock": ("ept4", "read, unmap a large leaf"),
    "fault-maps-over-frozen": ("ept4", "read, unmap"),
    "unmap-without-freezing": ("ept4", "read, unmap the table"),
    "exchange-without-compare": ("ept4", "write, protect"),
    "comes-back-after-unmap": ("ept4", "collapse, remove the slot"),
    "break-is-not-undone": ("arm64, frozen", "split, unmap"),
    "broken-comes-back-with-w": ("arm64, frozen", "start, split and write"),
    "fault-keeps-what-it-flushed": ("arm64, in place", "split, unmap"),
    "publish-relaxed-32": ("sv32x4", "read, read"),
    "load-relaxed-32": ("sv32x4", "read, read"),
    "age-without-flush": ("ept4", "age, read"),
    "received-before-it-is-filled": ("ept4", "missing: read, receive"),
    "fill-without-bucket": ("ept4", "missing: receive, receive"),
    "fill-marked-too-early": ("ept4", "missing: receive, harvest"),
    "asked-for-by-everybody": ("ept4", "missing: read, write"),
    "marked-while-faults-map": ("ept4", "missing: go, come, read"),
    "marked-and-mapped": ("ept4", "missing: read, go"),
    "waits-for-what-has-come": ("ept4", "missing: read, receive"),
    "waits-for-a-slot-that-goes": ("ept4", "missing: read, remove"),
    "given-while-it-is-mapped": ("ept4", "owners: "),
    "given-while-faults-map": ("ept4", "owners: "),
    "given-by-whom-it-was-not": ("ept4", "owners: "),
    "given-and-not-taken": ("ept4", "owners: "),
    "given-by-two": ("ept4", "owners: "),
    "ring-head-first": ("ept4", "ring: write, harvest"),
    "ring-head-relaxed": ("ept4", "ring: write, harvest"),
    "ring-freed-before-it-is-protected": ("ept4", "ring of one: write both and"),
    "ring-reset-without-flush": ("ept4", "ring: write, harvest"),
    "ring-again-after-harvest": ("ept4", "ring: device twice"),
    "ring-lost-with-its-thread": ("ept4", "ring: write and leave"),
    "ring-full-loses": ("ept4", "ring of one: write both"),
    "shadow-is-not-rechecked": ("ept4", "nested: first read"),
    "shadow-is-sampled-late": ("ept4", "nested: first read"),
    "follow-is-not-counted": ("ept4", "nested: first hold"),
    "forget-is-not-counted": ("ept4", "nested: first write"),
    "follow-says-nothing": ("ept4", "nested: hold, unmap"),
    "follow-says-it-late": ("ept4", "nested: first hold"),
    "follow-leaves-w": ("ept4", "nested: write, "),
    "follow-trusts-w": ("ept4", "nested: hold written"),
    "forget-does-not-wait": ("ept4", "nested: hold, guest"),
    "empty-without-grace-period": ("ept4", "nested: look, drop"),
    "range-does-not-look-for-shadows": ("ept4", "nested: hold, unmap"),
}

# Found by unit tests that have delays compiled in, or by none of the scenarios: these are tried next.
UNIT = ["test_mmu_slots", "test_mmu_sharing", "test_mmu_dirty", "test_mmu_huge", "test_mmu_range", "test_mmu_missing",
        "test_mmu_shadow_ops", "test_mmu_shadow_walk", "test_mmu_stress", "test_mmu_shadow_stress",
        "test_mmu_postcopy"]


def build(source, changed, formats):
    """The exploration with what `changed` (a file of mmu/) goes into compiled anew from `source`; formats: None, or
    those of whose files alone matter."""
    flags = "-std=gnu17 -O0 -w -D_GNU_SOURCE -pthread".split()
    objects = []
    for folder, _, files in os.walk(BUILD):
        for name in sorted(files):
            if not name.endswith(".o"):
                continue
            path = os.path.join(folder, name)
            unit = os.path.relpath(path, BUILD)[:-2]
            if not os.path.exists(os.path.join(TOP, "mmu", unit + ".c")):
                continue  # of a file that is no more
            with open(path[:-2] + ".d") as f:
                needs = f.read().split()
            if "mmu/" + changed in needs and unit not in ("stage2_npt", *(f"stage2_{n}" for n in formats)):
                path = os.path.join(source, unit.replace("/", "_") + ".o")
                subprocess.run(["gcc", *flags, f"-I{source}", "-I.", "-include", "tests/explore/instrument.h", "-c",
                                "-o", path, os.path.join(source, "mmu", unit + ".c")], check=True, cwd=TOP)
            objects.append(path)
    program = os.path.join(source, "explore")
    subprocess.run(["gcc", *flags, f"-I{source}", "-I.", "-o", program,
                    *sorted(glob.glob(os.path.join(TOP, "tests", "explore", "*.c"))), *objects], check=True, cwd=TOP)
    return program


def explored(program, *options):
    """What it says of the first failure, or None."""
    done = subprocess.run([program, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          errors="replace", timeout=1800)
    if not done.returncode:
        return None
    if -done.returncode in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL) or done.returncode > 1:
        raise SystemExit(f"the exploration was ended ({done.returncode}): {done.stderr[-300:]}")
    why = [line for line in done.stderr.splitlines() if line.startswith("failed ")]
    where = done.stdout.strip().replace("FAILED ", "") or f"signal {-done.returncode}"
    return where + (f" ({why[0][7:]})" if why else "")


def unit_tests(source, tests):
    flags = "-std=gnu17 -O0 -w -D_GNU_SOURCE -pthread".split()
    units = [p for pattern in ("*.c", "format/*.c", "guest/*.c")
             for p in sorted(glob.glob(os.path.join(source, "mmu", pattern)))]
    subprocess.run(["gcc", *flags, f"-I{source}", "-c", *units], check=True, cwd=source)
    # A library: some tests bring their own of some of it.
    subprocess.run(["ar", "qcs", "mutant.a", *glob.glob(os.path.join(source, "*.o"))], check=True, cwd=source)
    libs = subprocess.run(["pkg-config", "--libs", "liburcu-memb"], check=True, stdout=subprocess.PIPE, text=True)
    for test in tests:
        program = os.path.join(source, test)
        subprocess.run(["gcc", *flags, f"-I{source}", "-I.", "-o", program, f"tests/unit/{test}.c",
                        os.path.join(source, "mutant.a"), *libs.stdout.split()], check=True, cwd=TOP)
        try:
            done = subprocess.run([program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=300)
        except subprocess.TimeoutExpired:
            return f"{test}: does not end"
        if done.returncode:
            return test
    return None


def plant(folder, file, texts):
    """False: the texts are not there."""
    path = os.path.join(folder, file)
    with open(path) as f:
        text = f.read()
    for old, new in zip(texts[0::2], texts[1::2]):
        # The text may have moved, but is there once; what a mutant moves may be there twice for a moment.
        if old not in text:
            return False
        at = text.rfind(old) if new == "" else text.find(old)
        text = text[:at] + new + text[at + len(old):]
    with open(path, "w") as f:
        f.write(text)
    return True


def try_mutant(hint, file, texts):
    """How it was found: {"found", "bounds"}; {}: it survives; None: its texts are not there."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        shutil.copytree(os.path.join(TOP, "mmu"), os.path.join(folder, "mmu"))
        if not plant(os.path.join(folder, "mmu"), file, texts):
            return None
        if hint and hint[0] == BY_UNIT:
            if found := unit_tests(folder, hint[1:]):
                return {"found": found, "bounds": BY_UNIT}
        elif hint:
            others = {"ept4": ("arm", "riscv"), "sv32x4": ("ept", "arm")}.get(hint[0], ("ept", "riscv"))
            program = build(folder, file, others)
            for bounds in ("-p 1 -s 1", "-p 2 -s 1"):
                if found := explored(program, *bounds.split(), "-f", *hint):
                    return {"found": found, "bounds": bounds}
        program = build(folder, file, ())
        # The bounds of make test find most; the larger ones follow.
        for bounds in ("-p 1 -s 1", "-p 2 -s 0", "-p 2 -s 1"):
            if found := explored(program, *bounds.split()):
                return {"found": found, "bounds": bounds}
        found = unit_tests(folder, UNIT)
        return {"found": found, "bounds": BY_UNIT} if found else {}


def fingerprint(mutant, units):
    """Of all that a verdict depends on; units: it was the unit tests'."""
    digest = hashlib.sha256(repr(mutant).encode())
    patterns = ["mmu/**/*.[ch]", "tests/explore/*.[ch]", "tests/unit/*decoder.h"]
    if units:
        patterns += ["tests/unit/test_mmu_*.h", *(f"tests/unit/{test}.c" for test in UNIT)]
    for pattern in patterns:
        for path in sorted(glob.glob(os.path.join(TOP, pattern), recursive=True)):
            with open(path, "rb") as f:
                digest.update(f.read())
    return digest.hexdigest()


def texts_only():
    bad = 0
    for name, (file, *texts) in MUTANTS.items():
        with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
            shutil.copytree(os.path.join(TOP, "mmu"), os.path.join(folder, "mmu"))
            if not plant(os.path.join(folder, "mmu"), file, texts):
                print(f"{name}: mmu/{file} has changed, the mutant must, too")
                bad += 1
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", action="store_true", help="also those that were found")
    parser.add_argument("--texts", action="store_true")
    parser.add_argument("name", nargs="*")
    args = parser.parse_args()
    if args.texts:
        sys.exit(texts_only() != 0)
    store = os.path.join(BUILD, "mutants.json")
    known = {}
    if os.path.exists(store):
        with open(store) as f:
            known = json.load(f)
    bad, start = 0, time.monotonic()
    names = args.name or list(MUTANTS)
    for name in names:
        file, *texts = MUTANTS[name]
        last = known.get(name)
        if args.again or not last or last["of"] != fingerprint(MUTANTS[name], last["bounds"] == BY_UNIT):
            verdict = try_mutant(HINTS.get(name), file, texts)
            if not verdict:
                bad += 1
                why = "survives" if verdict == {} else f"mmu/{file} has changed, the mutant must, too"
                print(f"FAILED {name}: {why}", flush=True)
                continue
            last = known[name] = {**verdict, "of": fingerprint(MUTANTS[name], verdict["bounds"] == BY_UNIT)}
            with open(store, "w") as f:
                json.dump(known, f, indent=1)
        print(f"{name:36} {last['bounds']:10} {last['found']}", flush=True)
    print(f"{len(names)} mutants, {bad} not found; {time.monotonic() - start:.0f} s")
    sys.exit(bad != 0)


if __name__ == "__main__":
    main()
