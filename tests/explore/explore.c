/* The scheduler: who goes on at each point, and the runs that try every choice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include "tests/explore/explore_internal.h"

enum {
	STACK = 256 << 10,
	DECISIONS = 16384,
	RUN_STEPS = 100000,
};

struct coroutine {
	ucontext_t context;
	unsigned behind; /* threads that come first: bits */
	char *stack;
};

struct explore_run current;

static struct coroutine threads[EXPLORE_THREADS + 1];
static unsigned preemptions;
static const struct explore_program *program;
static struct {
	uint16_t choices, chosen;
} decision[DECISIONS];
static unsigned nr_decisions, at_decision;
static uint64_t steps;
static jmp_buf failed;
static ucontext_t scheduler;
static bool abandoned;

unsigned explore_self(void)
{
	return current.self;
}

_Noreturn void explore_fail(const char *format, ...)
{
	va_list ap;

	fprintf(stderr, "%s thread %u: ", current.tracing ? "FAILED" : "failed", current.self);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
	if (current.self == EXPLORE_MAIN)
		longjmp(failed, 1);
	abandoned = true;
	setcontext(&scheduler);
	abort();
}

unsigned explore_choose(unsigned choices)
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
	unsigned from = current.self;

	if (next == from)
		return;
	current.self = next;
	swapcontext(&threads[from].context, &threads[next].context);
}

/* Others that can go on: not those that have yielded to somebody who has not come since. */
static unsigned runnable(unsigned *list)
{
	unsigned n = 0;

	for (unsigned i = 0; i < current.threads; i++) {
		if (i != current.self && !current.done[i] && !threads[i].behind)
			list[n++] = i;
	}
	return n;
}

static void came(unsigned who)
{
	for (unsigned i = 0; i < current.threads; i++)
		threads[i].behind &= ~(1u << who);
}

void explore_point(const char *what)
{
	unsigned list[EXPLORE_THREADS], n, pick;

	steps++;
	if (current.self == EXPLORE_MAIN)
		return;
	if (++current.steps > RUN_STEPS)
		explore_fail("nobody comes to an end");
	if (preemptions < current.config->preemptions) {
		n = runnable(list);
		pick = explore_choose(n + 1);
		if (pick) {
			preemptions++;
			go_to(list[pick - 1]);
		}
	}
	came(current.self);
	if (current.tracing)
		fprintf(stderr, "  thread %u: %s\n", current.self, what);
}

/* Waits until each of the others has done something, or cannot. */
void explore_yield(void)
{
	unsigned list[EXPLORE_THREADS], n;

	if (current.self == EXPLORE_MAIN)
		explore_fail("waits for nobody");
	if (++current.steps > RUN_STEPS)
		explore_fail("nobody goes on: deadlock");
	came(current.self);
	threads[current.self].behind = 0;
	for (unsigned i = 0; i < current.threads; i++) {
		if (i != current.self && !current.done[i])
			threads[current.self].behind |= 1u << i;
	}
	n = runnable(list);
	if (!n) {
		for (unsigned i = 0; i < current.threads; i++)
			threads[i].behind = 0;
		n = runnable(list);
	}
	if (n)
		go_to(list[explore_choose(n)]);
	threads[current.self].behind = 0;
}

static void start(void)
{
	unsigned list[EXPLORE_THREADS], n;

	program->thread[current.self](program->arg);
	current.done[current.self] = true;
	if (rcu_in_section())
		explore_fail("ends inside a read section");
	came(current.self);
	n = runnable(list);
	if (!n) {
		for (unsigned i = 0; i < current.threads; i++)
			threads[i].behind = 0;
		n = runnable(list);
	}
	if (n) {
		current.self = list[explore_choose(n)];
		setcontext(&threads[current.self].context);
	}
	setcontext(&scheduler);
}

/* false: it failed */
static bool run(void)
{
	static volatile bool first_time;

	current.self = EXPLORE_MAIN;
	at_decision = preemptions = current.steps = 0;
	memory_begins();
	rcu_begins();
	heap_begins();
	memset(current.done, 0, sizeof(current.done));
	abandoned = false;
	for (unsigned i = 0; i <= EXPLORE_MAIN; i++) {
		char *stack = threads[i].stack ? threads[i].stack : malloc(STACK);

		memset(&threads[i], 0, sizeof(threads[i]));
		threads[i].stack = stack;
	}
	if (setjmp(failed))
		return false;
	program->setup(program->arg);
	memory_starts_threads();
	for (unsigned i = 0; i < current.threads; i++) {
		getcontext(&threads[i].context);
		threads[i].context.uc_stack.ss_sp = threads[i].stack;
		threads[i].context.uc_stack.ss_size = STACK;
		makecontext(&threads[i].context, start, 0);
	}
	first_time = true;
	getcontext(&scheduler);
	if (first_time) {
		first_time = false;
		current.self = explore_choose(current.threads);
		setcontext(&threads[current.self].context);
	}
	if (abandoned)
		return false;
	current.self = EXPLORE_MAIN;
	memory_ends_threads();
	program->finish(program->arg);
	return true;
}

struct explore_result explore(const struct explore_program *p, const struct explore_config *c)
{
	struct explore_result result = {0};

	program = p;
	current.config = c;
	for (current.threads = 0; current.threads < EXPLORE_THREADS && p->thread[current.threads];)
		current.threads++;
	nr_decisions = 0;
	steps = 0;
	current.tracing = false;
	do {
		result.runs++;
		if (!run()) {
			/* The same decisions again, with what they lead to. */
			nr_decisions = at_decision;
			current.tracing = true;
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
	current.tracing = false;
	return result;
}
