#include "smp.h"

u32 rounds;
volatile u32 counters[MAX_CPUS], lost[MAX_CPUS];
volatile bool leave_idle;
u8 *arena;
volatile u64 *target;

void barrier(void)
{
	static volatile u32 arrived, generation;
	u32 g = generation;

	if (__atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST) == cpu_count) {
		arrived = 0;
		__atomic_store_n(&generation, g + 1, __ATOMIC_SEQ_CST);
		return;
	}
	while (generation == g)
		cpu_relax();
}

void test_main(void)
{
	rounds = (u32)argument("rounds", 100);
	smp_start();
	printf("%u processors\n", cpu_count);
	arena = alloc_pages(4);
	test_start();
	if (cpu_count < 2) {
		test_skip("smp: between processors", "one processor");
		return;
	}
	test_interrupts();
	test_atomics();
	test_order();
	test_shootdown();
	test_restart(); /* the last: one processor is another one afterwards */
}
