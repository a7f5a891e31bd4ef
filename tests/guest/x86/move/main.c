#include "move.h"

struct worker workers[MAX_CPUS];
static volatile u32 printing, stopped;

static void rest(void) __attribute__((noreturn));
static void rest(void)
{
	for (;;)
		asm volatile("cli; hlt");
}

static void take_line(void)
{
	while (__atomic_exchange_n(&printing, 1, __ATOMIC_ACQUIRE))
		cpu_relax();
}

void wrong(const char *fmt, ...)
{
	char text[200];
	va_list ap;

	irq_disable();
	stopped = 1;
	/* Nobody gets it again; who is interrupted in the middle of a line has it himself. */
	for (u32 i = 0; i < 1000000 && __atomic_exchange_n(&printing, 1, __ATOMIC_ACQUIRE); i++)
		cpu_relax();
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	printf("\nmove: WRONG cpu %u %s\n", this_cpu()->index, text);
	rest();
}

static void say(void)
{
	static u64 next;
	static u32 tick;
	u32 pass = workers[0].pass, ipi = 0;
	char more[80];
	const u64 now = rdtsc();

	if (now < next)
		return;
	next = now + tsc_hz() / 1000 * argument("every", 100);
	for (u32 i = 0; i < cpu_count; i++) {
		pass = workers[i].pass < pass ? workers[i].pass : pass;
		ipi += workers[i].answered;
	}
	devices_say(more, sizeof(more));
	take_line();
	printf("move: tick %u pass %u ipi %u%s\n", tick++, pass, ipi, more);
	__atomic_store_n(&printing, 0, __ATOMIC_RELEASE);
}

static void work(void *arg)
{
	struct worker *w = &workers[this_cpu()->index];

	(void)arg;
	w->index = this_cpu()->index;
	w->random = w->index + 1;
	registers_init(w);
	clocks_start(w);
	irq_enable();
	while (!stopped) {
		registers_load(w);
		pages_pass(w);
		registers_check(w);
		clocks_check(w);
		if (w->index)
			continue;
		devices_pass();
		balloon_pass();
		say();
	}
	rest();
}

void test_main(void)
{
	smp_start();
	pages_init(argument("last", 16) << 20);
	clocks_init();
	registers_begin();
	devices_init();
	balloon_init();
	smp_run_all(work, NULL);
}
