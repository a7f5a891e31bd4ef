#include "tests/explore/explore.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

enum {
	MAIN = EXPLORE_THREADS,
	STACK = 256 << 10,
	BLOCKS = 64,  /* of 4096 bytes */
	PLACES = 255, /* atomic locations */
	VALUES = 48,  /* of one of them, in a run */
	DECISIONS = 16384,
	RUN_STEPS = 100000,
	SECTIONS = EXPLORE_THREADS + 1,
	WATCHES = 16,
};

/* The oldest value of each place that may still be seen, and the blocks whose filling was. */
struct view {
	uint64_t blocks;
	uint8_t oldest[PLACES];
};

struct value {
	uint64_t value;
	bool released;
	struct view view;
};

struct place {
	const volatile void *at;
	unsigned values; /* 0: only sequentially consistent or a lock: view */
	struct value value[VALUES];
	struct view view;
	struct view before; /* what those had done who read it, not knowing of a later store */
	unsigned owner;	    /* of a lock, + 1 */
};

struct coroutine {
	ucontext_t context;
	bool done;
	unsigned behind;  /* threads that come first: bits */
	unsigned section; /* of read-copy-update: odd inside */
	unsigned nesting, spins;
	const volatile void *spinning;
	struct view view;
	struct view before;  /* its last sequentially consistent store */
	struct view ordered; /* seen after its next sequentially consistent load */
	char *stack;
};

static struct coroutine threads[EXPLORE_THREADS + 1];
static unsigned self, nr_threads, preemptions, stale, run_steps;
static const struct explore_program *program;
static const struct explore_config *config;
static struct place places[PLACES];
static unsigned nr_places;
static struct view grace; /* before the grace periods so far */
static _Alignas(16384) char blocks[BLOCKS][4096];
static unsigned nr_blocks;
static bool freed[BLOCKS];
static long live;
static struct {
	const char *at;
	size_t bytes;
} watched[WATCHES];
static unsigned nr_watched;
static struct {
	uint16_t choices, chosen;
} decision[DECISIONS];
static unsigned nr_decisions, at_decision;
static uint64_t steps;
static bool tracing;
static jmp_buf failed;
static ucontext_t scheduler;
static bool abandoned;

unsigned explore_self(void)
{
	return self;
}

_Noreturn void explore_fail(const char *format, ...)
{
	va_list ap;

	fprintf(stderr, "%s thread %u: ", tracing ? "FAILED" : "failed", self);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
	if (self == MAIN)
		longjmp(failed, 1);
	abandoned = true;
	setcontext(&scheduler);
	abort();
}

static unsigned choose(unsigned choices)
{
	if (choices < 2)
		return 0;
	if (at_decision == nr_decisions) {
		if (nr_decisions == DECISIONS)
			explore_fail("more decisions than room");
		decision[nr_decisions].choices = (uint16_t)choices;
		decision[nr_decisions++].chosen = 0;
	}
	if (decision[at_decision].choices != choices)
		explore_fail("a run does not repeat itself");
	return decision[at_decision++].chosen;
}

static void go_to(unsigned next)
{
	unsigned from = self;

	if (next == from)
		return;
	self = next;
	swapcontext(&threads[from].context, &threads[next].context);
}

/* Others that can go on: not those that have yielded to somebody who has not come since. */
static unsigned runnable(unsigned *list)
{
	unsigned n = 0;

	for (unsigned i = 0; i < nr_threads; i++) {
		if (i != self && !threads[i].done && !threads[i].behind)
			list[n++] = i;
	}
	return n;
}

static void came(unsigned who)
{
	for (unsigned i = 0; i < nr_threads; i++)
		threads[i].behind &= ~(1u << who);
}

void explore_point(const char *what)
{
	unsigned list[EXPLORE_THREADS], n, pick;

	steps++;
	if (self == MAIN)
		return;
	if (++run_steps > RUN_STEPS)
		explore_fail("nobody comes to an end");
	if (preemptions < config->preemptions) {
		n = runnable(list);
		pick = choose(n + 1);
		if (pick) {
			preemptions++;
			go_to(list[pick - 1]);
		}
	}
	came(self);
	if (tracing)
		fprintf(stderr, "  thread %u: %s\n", self, what);
}

/* Waits until each of the others has done something, or cannot. */
void explore_yield(void)
{
	unsigned list[EXPLORE_THREADS], n;

	if (self == MAIN)
		explore_fail("waits for nobody");
	if (++run_steps > RUN_STEPS)
		explore_fail("nobody goes on: deadlock");
	came(self);
	threads[self].behind = 0;
	for (unsigned i = 0; i < nr_threads; i++) {
		if (i != self && !threads[i].done)
			threads[self].behind |= 1u << i;
	}
	n = runnable(list);
	if (!n) {
		for (unsigned i = 0; i < nr_threads; i++)
			threads[i].behind = 0;
		n = runnable(list);
	}
	if (n)
		go_to(list[choose(n)]);
	threads[self].behind = 0;
}

/* ---- memory ---- */

static struct view *my_view(void)
{
	return &threads[self].view;
}

static void join(struct view *to, const struct view *from)
{
	to->blocks |= from->blocks;
	for (unsigned i = 0; i < nr_places; i++) {
		if (from->oldest[i] > to->oldest[i])
			to->oldest[i] = from->oldest[i];
	}
}

static struct place *place_of(const volatile void *at, bool make)
{
	for (unsigned i = 0; i < nr_places; i++) {
		if (places[i].at == at)
			return &places[i];
	}
	if (!make)
		return NULL;
	if (nr_places == PLACES)
		explore_fail("more atomic places than room");
	places[nr_places].at = at;
	places[nr_places].values = 0;
	places[nr_places].owner = 0;
	memset(&places[nr_places].view, 0, sizeof(struct view));
	memset(&places[nr_places].before, 0, sizeof(struct view));
	return &places[nr_places++];
}

static int block_of(const volatile void *at)
{
	const char *p = (const char *)at;

	return p >= blocks[0] && p < blocks[BLOCKS] ? (int)((p - blocks[0]) / 4096) : -1;
}

static void check_block(const volatile void *at)
{
	int block = block_of(at);

	if (block >= 0 && freed[block])
		explore_fail("a freed table is used: block %d", block);
}

/* What is not of interest is done at once, in the order of its program. */
static bool beyond_window(const volatile void *at)
{
	int block = block_of(at);

	return block >= 0 && (const char *)at >= blocks[block] + config->window;
}

static bool is_watched(const volatile void *at)
{
	for (unsigned i = 0; i < nr_watched; i++) {
		if ((size_t)((const char *)at - watched[i].at) < watched[i].bytes)
			return true;
	}
	return false;
}

static uint64_t peek(const volatile void *at, unsigned bytes)
{
	uint64_t value = 0;

	memcpy(&value, (const void *)at, bytes);
	return value;
}

static bool acquires(int order)
{
	return order == __ATOMIC_ACQUIRE || order == __ATOMIC_ACQ_REL || order == __ATOMIC_SEQ_CST;
}

static bool releases(int order)
{
	return order == __ATOMIC_RELEASE || order == __ATOMIC_ACQ_REL || order == __ATOMIC_SEQ_CST;
}

static void trace(const char *what, const volatile void *at, uint64_t value)
{
	int block = block_of(at);

	if (!tracing)
		return;
	if (block >= 0)
		fprintf(stderr, "  thread %u: %s block %d + %#lx: %#llx\n", self, what, block,
			(unsigned long)((const char *)at - blocks[block]),
			(unsigned long long)value);
	else
		fprintf(stderr, "  thread %u: %s %p: %#llx\n", self, what, (void *)at,
			(unsigned long long)value);
}

uint64_t explore_load(const void *at, unsigned bytes, int order);
void explore_store(void *at, unsigned bytes, uint64_t value, int order);
bool explore_cas(void *at, unsigned bytes, uint64_t *old, uint64_t value, int order);
uint64_t explore_or(void *at, uint64_t bits, int order);
uint64_t explore_and(void *at, uint64_t bits, int order);
void explore_sync(const volatile void *at, unsigned how);
void explore_lock(const void *mutex);
void explore_unlock(const void *mutex);
long explore_membarrier(void);
int rcu_init(void);
void rcu_enter(void);
void rcu_exit(void);
void rcu_synchronize(void);

uint64_t explore_load(const void *at, unsigned bytes, int order)
{
	int block = block_of(at);
	struct place *place;
	uint64_t value;

	check_block(at);
	if (beyond_window(at)) {
		run_steps++;
		return peek(at, bytes);
	}
	explore_point("load");
	check_block(at);
	value = peek(at, bytes);
	/* What was there before the owner filled it, in an earlier life of the memory: in every
	 * format a leaf that grants much and has been used. */
	if (block >= 0 && !(my_view()->blocks >> block & 1) && stale < config->stale && choose(2)) {
		stale++;
		value = UINT64_C(0xe7e7e7e7e7e7e7e7) >> (64 - 8 * bytes);
		trace("loads garbage", at, value);
		return value;
	}
	place = place_of(at, false);
	if (place && place->values) {
		unsigned i = (unsigned)(place - places), newest = place->values - 1;
		unsigned oldest = my_view()->oldest[i], back = 0;

		if (stale < config->stale && newest > oldest && order != __ATOMIC_SEQ_CST)
			back = choose(newest - oldest + 1);
		stale += back != 0;
		value = place->value[newest - back].value;
		my_view()->oldest[i] = (uint8_t)(newest - back);
		if (acquires(order) && place->value[newest - back].released)
			join(my_view(), &place->value[newest - back].view);
		if (back)
			trace("loads an older value", at, value);
	}
	trace("loads", at, value);
	return value;
}

/* What was there first is no change of this thread's. */
static struct place *history(const volatile void *at, unsigned bytes)
{
	struct place *place = place_of(at, true);

	if (!place->values) {
		place->value[0].value = peek(at, bytes);
		place->value[0].released = false;
		place->values = 1;
	}
	if (place->values == VALUES)
		explore_fail("more values than room");
	return place;
}

static void append(struct place *place, void *at, unsigned bytes, uint64_t value, int order,
		   bool rmw)
{
	struct value *v = &place->value[place->values], *before = v - 1;
	unsigned i = (unsigned)(place - places);

	my_view()->oldest[i] = (uint8_t)place->values++;
	v->value = value;
	v->released = releases(order);
	if (v->released)
		v->view = *my_view();
	else if (rmw)
		memset(&v->view, 0, sizeof(v->view));
	/* A read-modify-write goes on with the release that it has read. */
	if (rmw && before->released) {
		join(&v->view, &before->view);
		v->released = true;
	}
	memcpy(at, &value, bytes);
}

/* A table that nobody else sees yet has no history. */
void explore_store(void *at, unsigned bytes, uint64_t value, int order)
{
	struct place *place;

	check_block(at);
	if (beyond_window(at)) {
		memcpy(at, &value, bytes);
		return;
	}
	if (is_watched(at))
		explore_point("store");
	place = is_watched(at) ? history(at, bytes) : place_of(at, false);
	if (place && place->values)
		append(place, at, bytes, value, order, false);
	else
		memcpy(at, &value, bytes);
	trace("stores", at, value);
}

static uint64_t newest(struct place *place, int order)
{
	struct value *v = &place->value[place->values - 1];

	my_view()->oldest[place - places] = (uint8_t)(place->values - 1);
	if (acquires(order) && v->released)
		join(my_view(), &v->view);
	return v->value;
}

bool explore_cas(void *at, unsigned bytes, uint64_t *old, uint64_t value, int order)
{
	struct place *place;
	uint64_t now;

	check_block(at);
	if (beyond_window(at)) {
		bool same = peek(at, bytes) == *old;

		if (same)
			memcpy(at, &value, bytes);
		else
			*old = peek(at, bytes);
		return same;
	}
	explore_point("compare-and-exchange");
	check_block(at);
	place = history(at, bytes);
	now = newest(place, order);
	if (now != *old) {
		trace("fails to exchange, finds", at, now);
		*old = now;
		return false;
	}
	append(place, at, bytes, value, order, true);
	trace("exchanges, now", at, value);
	return true;
}

static uint64_t fetch(void *at, uint64_t keep, uint64_t bits, int order)
{
	struct place *place;
	uint64_t now;

	explore_point("fetch");
	check_block(at);
	place = history(at, 8);
	now = newest(place, order);
	append(place, at, 8, (now & keep) | bits, order, true);
	trace("fetches, now", at, (now & keep) | bits);
	return now;
}

uint64_t explore_or(void *at, uint64_t bits, int order)
{
	return fetch(at, UINT64_MAX, bits, order);
}

uint64_t explore_and(void *at, uint64_t bits, int order)
{
	return fetch(at, bits, 0, order);
}

uint64_t explore_read(const uint64_t *at)
{
	history(at, 8);
	return explore_load(at, 8, __ATOMIC_RELAXED);
}

void explore_write(uint64_t *at, uint64_t value)
{
	explore_point("write");
	append(history(at, 8), at, 8, value, __ATOMIC_RELAXED, false);
	trace("writes", at, value);
}

/* No point of its own, unless it is watched: the entries around it have theirs. Whoever looks at
 * the same again and again waits. */
void explore_sync(const volatile void *at, unsigned how)
{
	bool write = how & 1, consistent = how & 2;
	struct coroutine *t = &threads[self];
	struct place *place;

	check_block(at);
	if (beyond_window(at))
		return;
	if (nr_watched && is_watched(at))
		explore_point(write ? "changes a watched place" : "reads a watched place");
	place = place_of(at, true);
	check_block(at);
	if (!write && t->spinning == at && t->spins++ > 2)
		explore_yield();
	if (write || t->spinning != at)
		t->spins = 0;
	t->spinning = write ? NULL : at;
	join(my_view(), &place->view);
	/* Store, load; another: store, load, of the same two. One of the loads sees the other's
	 * store; or else what came before the first store is seen after the second load. */
	if (consistent && write) {
		join(&t->ordered, &place->before);
		t->before = *my_view();
	} else if (consistent) {
		join(&place->before, &t->before);
		join(my_view(), &t->ordered);
	}
	if (write)
		join(&place->view, my_view());
}

void explore_lock(const void *mutex)
{
	struct place *place = place_of(mutex, true);

	if (nr_watched && is_watched(mutex))
		explore_point("locks");
	while (place->owner)
		explore_yield();
	place->owner = self + 1;
	join(my_view(), &place->view);
}

void explore_unlock(const void *mutex)
{
	struct place *place = place_of(mutex, true);

	if (place->owner != self + 1)
		explore_fail("unlocks what it does not hold");
	place->owner = 0;
	join(&place->view, my_view());
}

long explore_membarrier(void)
{
	for (unsigned i = 0; i < nr_threads; i++)
		join(my_view(), &threads[i].view);
	for (unsigned i = 0; i < nr_threads; i++)
		join(&threads[i].view, my_view());
	return 0;
}

int rcu_init(void)
{
	return 0;
}

/* Who is not waited for begins after the grace period has, and sees all that was before it. */
void rcu_enter(void)
{
	if (threads[self].nesting++)
		return;
	threads[self].section++;
	join(my_view(), &grace);
}

void rcu_exit(void)
{
	if (!--threads[self].nesting)
		threads[self].section++;
}

void rcu_synchronize(void)
{
	unsigned seen[SECTIONS];

	if (threads[self].nesting)
		explore_fail("waits for a grace period inside a read section");
	explore_point("grace period");
	join(&grace, my_view());
	for (unsigned i = 0; i < nr_threads; i++)
		seen[i] = threads[i].section;
	for (unsigned i = 0; i < nr_threads; i++) {
		while (i != self && seen[i] & 1 && threads[i].section == seen[i] &&
		       !threads[i].done)
			explore_yield();
		join(my_view(), &threads[i].view);
	}
}

void *explore_alloc(size_t bytes)
{
	unsigned n = (unsigned)(bytes / 4096), first = (nr_blocks + n - 1) & ~(n - 1);

	if (bytes % 4096 || n & (n - 1) || first + n > BLOCKS)
		explore_fail("no block of %zu bytes", bytes);
	live++;
	for (unsigned i = first; i < first + n; i++) {
		my_view()->blocks |= UINT64_C(1) << i;
		freed[i] = false;
	}
	nr_blocks = first + n;
	return memset(blocks[first], 0, bytes);
}

void explore_free(void *memory, size_t bytes)
{
	int block = block_of(memory);

	if (block < 0 || freed[block])
		explore_fail("freed twice, or never allocated");
	for (size_t i = 0; i < bytes / 4096; i++)
		freed[(size_t)block + i] = true;
	memset(memory, 0xa7, bytes);
	live--;
}

long explore_live(void)
{
	return live;
}

uint64_t explore_address(const void *memory)
{
	return (uint64_t)((const char *)memory - blocks[0]);
}

void *explore_memory(uint64_t address)
{
	if (address >= sizeof(blocks))
		explore_fail("an address that no table has: %#llx", (unsigned long long)address);
	return blocks[0] + address;
}

void explore_watch(const volatile void *at, size_t bytes)
{
	if (nr_watched == WATCHES)
		explore_fail("more to watch than room");
	watched[nr_watched].at = (const char *)at;
	watched[nr_watched++].bytes = bytes;
}

/* ---- runs ---- */

static void start(void)
{
	unsigned list[EXPLORE_THREADS], n;

	program->thread[self](program->arg);
	threads[self].done = true;
	if (threads[self].nesting)
		explore_fail("ends inside a read section");
	came(self);
	n = runnable(list);
	if (!n) {
		for (unsigned i = 0; i < nr_threads; i++)
			threads[i].behind = 0;
		n = runnable(list);
	}
	if (n) {
		self = list[choose(n)];
		setcontext(&threads[self].context);
	}
	setcontext(&scheduler);
}

/* false: it failed */
static bool run(void)
{
	static volatile bool first_time;

	self = MAIN;
	at_decision = preemptions = stale = run_steps = nr_places = nr_blocks = nr_watched = 0;
	memset(&grace, 0, sizeof(grace));
	live = 0;
	abandoned = false;
	for (unsigned i = 0; i <= MAIN; i++) {
		char *stack = threads[i].stack ? threads[i].stack : malloc(STACK);

		memset(&threads[i], 0, sizeof(threads[i]));
		threads[i].stack = stack;
	}
	if (setjmp(failed))
		return false;
	program->setup(program->arg);
	for (unsigned i = 0; i < nr_threads; i++) {
		join(&threads[i].view, &threads[MAIN].view);
		getcontext(&threads[i].context);
		threads[i].context.uc_stack.ss_sp = threads[i].stack;
		threads[i].context.uc_stack.ss_size = STACK;
		makecontext(&threads[i].context, start, 0);
	}
	first_time = true;
	getcontext(&scheduler);
	if (first_time) {
		first_time = false;
		self = choose(nr_threads);
		setcontext(&threads[self].context);
	}
	if (abandoned)
		return false;
	self = MAIN;
	for (unsigned i = 0; i < nr_threads; i++)
		join(&threads[MAIN].view, &threads[i].view);
	program->finish(program->arg);
	return true;
}

struct explore_result explore(const struct explore_program *p, const struct explore_config *c)
{
	struct explore_result result = {0};

	program = p;
	config = c;
	for (nr_threads = 0; nr_threads < EXPLORE_THREADS && p->thread[nr_threads];)
		nr_threads++;
	nr_decisions = 0;
	steps = 0;
	tracing = false;
	do {
		result.runs++;
		if (!run()) {
			/* The same decisions again, with what they lead to. */
			nr_decisions = at_decision;
			tracing = true;
			run();
			result.failed = true;
			break;
		}
		nr_decisions = at_decision;
		while (nr_decisions &&
		       decision[nr_decisions - 1].chosen + 1 == decision[nr_decisions - 1].choices)
			nr_decisions--;
		if (!nr_decisions) {
			result.complete = true;
			break;
		}
		decision[nr_decisions - 1].chosen++;
	} while (!c->max_runs || result.runs < c->max_runs);
	result.steps = steps;
	tracing = false;
	return result;
}
