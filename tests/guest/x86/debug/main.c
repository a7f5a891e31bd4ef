#include "debug.h"

void clear_debug(void)
{
	write_dr7(DR7_1);
	write_dr6(0xffff0ff0);
	/* DR6 may report breakpoints that are not enabled (18.2.3): leave no address behind. */
	write_dr0(0);
	write_dr1(0);
	write_dr2(0);
	write_dr3(0);
}

u64 dr7_bits(u32 n, u32 type, u32 len)
{
	u64 l = len == 1 ? 0 : len == 2 ? 1 : len == 8 ? 2 : 3;

	return BIT(2 * n + (n & 1)) | (u64)type << (16 + 4 * n) | l << (18 + 4 * n);
}

void set_address(u32 n, u64 va)
{
	switch (n) {
	case 0: write_dr0(va); break;
	case 1: write_dr1(va); break;
	case 2: write_dr2(va); break;
	default: write_dr3(va);
	}
}

u64 data[16] __attribute__((aligned(64)));

struct ctx context(u8 *code, bool user)
{
	struct ctx c = user ? ctx_user(code) : ctx_kernel(code);

	c.gpr[RSI] = c.gpr[RDI] = (u64)(user ? user_alias(data) : data);
	return c;
}

u64 at(u8 *label, bool user)
{
	return (u64)(user ? user_alias(label) : label);
}

void expect_db(const struct ctx *c, u64 rip, u64 bits)
{
	expect_trap(c, DB, NO_ERROR);
	expect("RIP", rip, c->rip);
	expect("DR6", bits, c->dr6 & DR6_LOW);
}

void test_main(void)
{
	test_registers();
	test_watch();
	test_step();
}
