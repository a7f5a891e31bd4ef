#include "exceptions.h"

void test_main(void)
{
	test_opcodes();
	test_fpu();
	test_delivery();
	test_noncanonical();
	test_privilege();
	test_registers();
}
