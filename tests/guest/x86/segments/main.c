#include "segments.h"

void test_main(void)
{
	test_limits();
	test_verify();
	test_iret();
	test_far();
	test_syscall();
	test_stacks();
	test_programs();
}
