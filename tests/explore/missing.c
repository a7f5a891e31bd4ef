/* Page 0 is not here, or goes: faults that wait for it, and who brings it. */
#include "mmu/missing_wait.h"
#include "tests/explore/world.h"

/* What the page was before it went missing, and what comes. */
enum { OLD = 500, COME = 1000 };

static struct {
	unsigned episodes, requests, filled;
	bool filling, missed;
	uint64_t gone;
} page;

struct waiting {
	struct s2_page_waiter waiter;
	uint64_t woken;
};

static void request(void *opaque, struct s2_thread *t, uint64_t gpa)
{
	(void)opaque;
	(void)t;
	explore_point("asks for the page");
	if (gpa != format->base)
		explore_fail("asked for %llx", (unsigned long long)gpa);
	page.requests++;
}

/* What was there is elsewhere when nobody can use it any more. */
static void page_goes(void)
{
	struct operating o = operation_begins(UNMAP, 1);

	page.episodes++;
	if (s2_missing_mark(me(), format->base, 1, NULL) != 1)
		explore_fail("it does not go");
	operation_ends(UNMAP, 1, &o);
	written[0] = 0;
	explore_write(&data[0], 0);
}

void missing_setup(void)
{
	const struct s2_missing_ops ops = {.request = request};
	size_t hint = 0;
	const struct slot *slot;

	page = (__typeof__(page)){0};
	explore_write(&data[0], OLD);
	explore_write(&data[1], OLD);
	if (s2_missing_start(main_thread, &ops))
		explore_fail("setup: missing");
	if (!(scenario->state & HERE))
		page_goes();
	slot = slots_find(&s2->slots, format->base, &hint);
	explore_watch((const void *)(uintptr_t)slot->missing.words, sizeof(uint64_t));
	explore_watch(missing_bucket(s2->missing, format->base), 1); /* its mutex */
}

static void wake(struct s2_page_waiter *waiter)
{
	struct waiting *w = (struct waiting *)waiter;

	explore_sync(&w->woken, true);
	w->woken = true;
}

void wait_for_page(unsigned number)
{
	struct waiting w = {.waiter = {.wake = wake}};

	page.missed = true;
	if (s2_page_wait(me(), format->base + number * K4, &w.waiter)) {
		for (;;) {
			explore_sync(&w.woken, false);
			if (w.woken)
				break;
			acknowledge();
			explore_yield();
		}
	}
	s2_page_wait_end(me(), &w.waiter);
}

static int fill(void *opaque, uint64_t gpa, uint64_t hpa, uint64_t bytes)
{
	(void)opaque;
	if (gpa != format->base || hpa != format->hpa || bytes != K4)
		explore_fail("fills %llx", (unsigned long long)gpa);
	if (page.filling)
		explore_fail("two fill the page");
	page.filling = true;
	explore_write(&data[0], COME);
	page.filling = false;
	page.filled++;
	return 0;
}

void receives(void *arg)
{
	int64_t n = s2_receive(me(), format->base, 1, fill, NULL);

	(void)arg;
	if (n < 0 && !removing)
		explore_fail("receive: %lld", (long long)n);
}

/* What is not here, or has come, does not go. */
void marks_again(void *arg)
{
	if (s2_missing_mark(me(), format->base, 1, NULL))
		explore_fail("it goes twice");
	receives(arg);
}

/* Another brings it. */
void goes(void *arg)
{
	(void)arg;
	page_goes();
	explore_sync(&page.gone, true);
	page.gone = true;
}

/* Nobody brings what has not gone: the old would overwrite it. */
void comes(void *arg)
{
	for (;;) {
		explore_sync(&page.gone, false);
		if (page.gone)
			break;
		explore_yield();
	}
	receives(arg);
}

void goes_and_comes(void *arg)
{
	goes(arg);
	receives(arg);
}

/* Nothing is missing at the end. */
void stops_missing(void *arg)
{
	int err;

	receives(arg);
	while ((err = s2_missing_stop(me())) == -EBUSY)
		explore_yield();
	if (err && err != -ENOENT)
		explore_fail("stop: %d", err);
}

void asks(void *arg)
{
	struct s2_missing_stats stats;
	uint64_t bits;

	(void)arg;
	s2_missing_stats(me(), &stats);
	if (stats.awaited > 1)
		explore_fail("%lld pages awaited", (long long)stats.awaited);
	s2_missing_export(me(), format->base, 1, S2_PAGES_AWAITED, &bits);
	if (!bits && s2_page_state(me(), format->base) == S2_PAGE_MISSING)
		explore_fail("it went again");
}

void missing_finish(void)
{
	struct s2_missing_stats stats;

	s2_missing_stats(main_thread, &stats);
	if (page.filled > page.episodes)
		explore_fail("filled %u times", page.filled);
	if (page.requests > page.episodes || (page.missed && !page.requests))
		explore_fail("asked for %u times", page.requests);
	if (page.filled && stats.awaited)
		explore_fail("it is awaited still");
	if (page.filled && written[0] && data[0] == COME)
		explore_fail("a late copy has overwritten what the guest wrote");
}
