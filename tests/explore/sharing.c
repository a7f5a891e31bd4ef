/* Another instance over the same memory, which page 0 is lent or given to. */
#include <errno.h>
#include <string.h>

#include "mmu/sharing.h"
#include "tests/explore/world.h"

static struct s2 *other;
static struct s2_thread *other_main, *other_thread[EXPLORE_THREADS];
static struct cpu cpus[EXPLORE_THREADS];

static struct s2_thread *my_other(void)
{
	return explore_self() == EXPLORE_THREADS ? other_main : other_thread[explore_self()];
}

/* ---- those who use it there ---- */

/* A processor of the other instance: reads page 0, if it has it. */
void borrows(void *arg)
{
	struct cpu *c = &cpus[explore_self()];
	enum s2_result r;
	struct taken taken;
	struct s2_xlat x;

	(void)arg;
	do {
		cpu_acknowledge(c);
		r = s2_translate(my_other(), format->base, S2_R, &x)
			    ? S2_FIXED
			    : s2_fault(my_other(), format->base, S2_R, &x);
		if (r == S2_RETRY) {
			cpu_acknowledge(c);
			explore_yield();
		}
	} while (r == S2_RETRY);
	if (r == S2_FIXED || r == S2_SPURIOUS) {
		taken = take(format->base, 0);
		if (x.hpa != format->hpa)
			explore_fail("borrowed page 0 -> %llx", (unsigned long long)x.hpa);
		explore_point("uses what it was given");
		if (done[INVALIDATE][0] > taken.begun[INVALIDATE])
			explore_fail("page 0 is used after it was taken back");
	} else if (r != S2_EMULATE) {
		explore_fail("borrow: result %d", r);
	}
	cpu_ends(c);
}

/* ---- those who change whose it is ---- */

typedef int change_fn(struct s2_thread *from, uint64_t from_gpa, struct s2_thread *to,
		      uint64_t to_gpa, uint64_t pages);

/* kind: who loses it: UNMAP here, INVALIDATE there, OPERATIONS nobody. */
static void change(change_fn *fn, enum operation kind)
{
	struct operating o = {{0}};
	int err;

	if (kind != OPERATIONS)
		o = operation_begins(kind, 1);
	given |= kind == UNMAP;
	err = fn(me(), format->base, my_other(), format->base, 1);
	if (err && err != -EPERM)
		explore_fail("a change of owners: %d", err);
	if (!err && kind != OPERATIONS)
		operation_ends(kind, 1, &o);
}

void shares(void *arg)
{
	(void)arg;
	change(s2_share, OPERATIONS);
}

void unshares(void *arg)
{
	(void)arg;
	change(s2_unshare, INVALIDATE);
}

void shares_and_back(void *arg)
{
	shares(arg);
	unshares(arg);
}

void donates(void *arg)
{
	(void)arg;
	change(s2_donate, UNMAP);
}

void reclaims(void *arg)
{
	(void)arg;
	change(s2_reclaim, INVALIDATE);
}

void donates_and_back(void *arg)
{
	donates(arg);
	reclaims(arg);
}

/* ---- beginning and end ---- */

void sharing_setup(void)
{
	const struct s2_slot slot = {.gpa = format->base,
				     .size = 2 * format->large,
				     .hpa = format->hpa,
				     .page_size = K4};
	struct s2_config c = format->c;
	size_t hint = 0;

	memset(cpus, 0, sizeof(cpus));
	c.env = world_env();
	if (s2_create(&other, &c, NULL) || s2_thread_init(&other_main, other, "main") ||
	    s2_slot_add(other_main, &slot) || s2_sharing_start(other_main, S2_NONE) ||
	    s2_sharing_start(main_thread, S2_OWNED))
		explore_fail("setup: no other instance");
	if (scenario->state & SHARED &&
	    s2_share(main_thread, format->base, other_main, format->base, 1))
		explore_fail("setup: share");
	explore_watch(
		(const void *)(uintptr_t)slots_find(&s2->slots, format->base, &hint)->sharing.words,
		8);
	hint = 0;
	explore_watch((const void *)(uintptr_t)slots_find(&other->slots, format->base, &hint)
			      ->sharing.words,
		      8);
	for (unsigned i = 0; i < EXPLORE_THREADS && scenario->thread[i]; i++) {
		if (s2_thread_init(&other_thread[i], other, "thread"))
			explore_fail("no thread");
		if (scenario->thread[i] == borrows)
			cpu_begins(&cpus[i], other_thread[i]);
	}
}

/* Whose tables have the page, and whose it is. */
static bool mapped(struct s2 *which)
{
	struct s2_registers regs;
	struct dec_memory mem;

	s2_registers(which, 0, &regs);
	mem = memory_of(&regs);
	return dec_walk(&mem, format->base).outcome == DEC_TRANSLATED;
}

void sharing_finish(void)
{
	static const bool legal[4][4] = {[S2_OWNED][S2_NONE] = true,
					 [S2_SHARED][S2_BORROWED] = true,
					 [S2_NONE][S2_OWNED] = true};
	const enum s2_share_state here = s2_sharing_state(main_thread, format->base),
				  there = s2_sharing_state(other_main, format->base);

	if (!legal[here][there])
		explore_fail("the page is in state %d here and %d there", here, there);
	if ((here == S2_NONE && mapped(s2)) || (there == S2_NONE && mapped(other)))
		explore_fail("the page is mapped where it is not");
	for (unsigned i = 0; i < EXPLORE_THREADS && scenario->thread[i]; i++)
		s2_thread_exit(other_thread[i]);
	s2_thread_exit(other_main);
	s2_destroy(other);
}
