#include "smc.h"

void test_main(void)
{
	u32 rounds = (u32)argument("rounds", 80);

	test_own();
	smp_start();
	printf("%u processors\n", cpu_count);
	if (cpu_count < 2) {
		test_skip("smc: between processors", "one processor");
		return;
	}
	test_cross(rounds);
}
