/* What threads do: processors, range operations, migration, devices. */
#include "tests/explore/world.h"

/* access: one of S2_R, S2_W, S2_X */
static void access_as(unsigned page, uint32_t access)
{
	uint64_t gpa = format->base + page * K4;
	struct s2_registers regs;
	struct s2_xlat x;
	struct taken taken;

	for (;;) {
		enum s2_result r;

		acknowledge();
		busy++;
		r = s2_translate(me(), gpa, access, &x) ? S2_FIXED
							: s2_fault(me(), gpa, access, &x);
		busy--;
		if (r == S2_FIXED || r == S2_SPURIOUS)
			break;
		if (r == S2_EMULATE && (removing || given))
			return;
		acknowledge();
		if (r == S2_MISSING && scenario->state & AWAITED)
			wait_for_page(page);
		else if (r != S2_RETRY)
			explore_fail("result %d", r);
		else
			explore_yield();
	}
	taken = take(gpa, page);
	if (x.hpa != format->hpa + page * K4)
		explore_fail("page %u -> %llx", page, (unsigned long long)x.hpa);
	if (access & ~x.perm)
		explore_fail("page %u is given for %#x and grants %#x", page, access, x.perm);
	if (scenario->state & NX && x.perm & S2_X && x.level > 1)
		explore_fail("page %u is executed in a leaf of level %u", page, x.level);
	s2_registers(s2, 0, &regs);
	use(&taken, &regs, access == S2_W);
	acknowledge();
}

static void access_page(unsigned page, bool write)
{
	access_as(page, write ? S2_W : S2_R);
}

void executes(void *arg)
{
	(void)arg;
	access_as(0, S2_X);
	processor_ends();
}

/* A processor no more, it walks as devices do. */
void reads_then_looks(void *arg)
{
	struct s2_xlat x;

	(void)arg;
	access_page(0, false);
	processor_ends();
	if (s2_translate(me(), format->base, S2_R, &x) && x.hpa != format->hpa)
		explore_fail("page 0 -> %llx", (unsigned long long)x.hpa);
}

void reads(void *arg)
{
	(void)arg;
	access_page(0, false);
	processor_ends();
}

void writes(void *arg)
{
	(void)arg;
	access_page(0, true);
	processor_ends();
}

void writes_twice(void *arg)
{
	(void)arg;
	access_page(0, true);
	access_page(0, true);
	processor_ends();
}

void writes_neighbour(void *arg)
{
	(void)arg;
	access_page(1, true);
	processor_ends();
}

void writes_both(void *arg)
{
	(void)arg;
	access_page(0, true);
	access_page(1, true);
	processor_ends();
}

/* The first once more, after a while: what was given for it may have been taken since. */
void writes_both_and_again(void *arg)
{
	(void)arg;
	access_page(0, true);
	explore_yield();
	access_page(1, true);
	explore_yield();
	access_page(0, true);
	processor_ends();
}

void reads_twice(void *arg)
{
	(void)arg;
	access_page(0, false);
	access_page(0, false);
	processor_ends();
}

/* What it has dirtied and nobody has fetched stays known. */
void writes_then_leaves(void *arg)
{
	unsigned i = explore_self();

	(void)arg;
	access_page(0, true);
	processor_ends();
	s2_thread_exit(thread[i]);
	thread[i] = NULL;
}

static void change(uint64_t pages, bool protect)
{
	enum operation what = protect ? PROTECT : UNMAP;
	struct operating o = operation_begins(what, pages);
	uint64_t end = format->base + pages * K4;

	if (protect ? s2_write_protect(me(), format->base, end) : s2_unmap(me(), format->base, end))
		explore_fail("range refused");
	operation_ends(what, pages, &o);
}

void unmaps(void *arg)
{
	(void)arg;
	change(1, false);
}

/* A table as a whole. */
void unmaps_all(void *arg)
{
	(void)arg;
	change(format->large / K4, false);
}

void protects(void *arg)
{
	(void)arg;
	change(1, true);
}

void ages(void *arg)
{
	struct operating o = operation_begins(AGE, 1);

	(void)arg;
	ageing = true;
	seen_used[0] = false;
	ages_running++;
	if (s2_age(me(), format->base, format->base + K4, S2_AGE_FLUSH, NULL) < 0)
		explore_fail("age");
	ages_running--;
	operation_ends(AGE, 1, &o);
}

/* What is small for execution's sake goes, to be large again. */
void recovers(void *arg)
{
	(void)arg;
	if (s2_nx_recover(me(), 1) < 0)
		explore_fail("recover");
}

/* Nothing of it may come back. */
void removes(void *arg)
{
	(void)arg;
	removing = true;
	if (s2_slot_remove(me(), format->base))
		explore_fail("remove");
}

void splits(void *arg)
{
	(void)arg;
	busy++;
	if (s2_split(me(), format->base, format->base + format->large, 1))
		explore_fail("split");
	busy--;
}

/* Leaves that another changes meanwhile stay small. */
void collapses(void *arg)
{
	(void)arg;
	busy++;
	if (s2_collapse(me(), format->base, format->base + format->large) < 0)
		explore_fail("collapse");
	busy--;
}

/* Who changes sizes may hold back what another takes: it shows when somebody writes later. */
void splits_then_writes(void *arg)
{
	splits(arg);
	writes(arg);
}

void collapses_then_writes(void *arg)
{
	collapses(arg);
	writes(arg);
}

void harvests(void *arg)
{
	(void)arg;
	copy_dirty();
}

void harvests_rings(void *arg)
{
	(void)arg;
	copy_rings();
}

void starts_tracking(void *arg)
{
	(void)arg;
	track(me());
	for (unsigned i = 0; i < PAGES; i++)
		copy[i] = explore_read(&data[i]);
	tracking = true;
}

void stops_tracking(void *arg)
{
	(void)arg;
	tracking = false;
	if (s2_dirty_stop(me()))
		explore_fail("stop");
}

/* As a device writes: nobody waits for it, so it marks afterwards. */
void device(void *arg)
{
	struct s2_xlat x;
	enum s2_result r;

	(void)arg;
	while (!s2_translate(me(), format->base, S2_W, &x)) {
		r = s2_fault(me(), format->base, S2_W, &x);
		if (r == S2_FIXED || r == S2_SPURIOUS)
			break;
		if (r != S2_RETRY)
			explore_fail("result %d", r);
		explore_yield();
	}
	if (x.hpa != format->hpa)
		explore_fail("the device got %llx", (unsigned long long)x.hpa);
	explore_write(&data[0], ++written[0]);
	s2_dirty_mark(me(), format->base, 8);
}

void device_twice(void *arg)
{
	device(arg);
	device(arg);
}
