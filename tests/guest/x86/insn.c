/* See insn.h. */
#include "insn.h"

u8 insn_data[INSN_DATA + 64] __attribute__((aligned(64)));

struct ctx insn_run(const struct insn *i)
{
	u8 *code = put_code(i->bytes, i->len);
	bool user = i->mode == U64 || i->mode == U32;
	struct ctx c = i->mode == K64	? ctx_kernel(code)
		       : i->mode == U64 ? ctx_user(code)
		       : i->mode == K32 ? ctx_kernel32(code)
					: ctx_user32(code);
	u64 data = (u64)(user ? user_alias(insn_data) : insn_data);
	struct ctx before;

	memset(insn_data, 0, sizeof(insn_data));
	for (u32 r = R8; r <= R15; r++)
		c.gpr[r] = i->mode == K64 || i->mode == U64 ? 0x0101010101010101ull * r : 0;
	c.gpr[RAX] = i->rax;
	c.gpr[RCX] = i->rcx;
	c.gpr[RDX] = i->rdx;
	c.gpr[RBX] = data;
	c.gpr[RBP] = data + INSN_DATA / 2;
	c.gpr[RSI] = i->rsi ? i->rsi : data;
	c.gpr[RDI] = data + 256;
	c.rflags |= i->rflags;
	before = c;
	exec(&c);
	expect_trap(&c, i->vector, i->error);
	if (c.vector != i->vector)
		return c;
	if (i->vector == BP || i->vector == OF || i->vector == DB) {
		expect("RIP behind the instruction", before.rip + i->len, c.rip);
	} else if (i->vector != VEC_DONE) {
		expect("RIP", before.rip, c.rip);
		for (u32 r = 0; r < 16; r++)
			if (before.gpr[r] != c.gpr[r]) {
				expect("number of a register unchanged by the fault", ~0ull, r);
				break;
			}
		expect("flags unchanged by the fault", before.rflags & FL_ARITH,
		       c.rflags & FL_ARITH);
	}
	return c;
}

void insn_table(const char *test, const struct insn *table, size_t n)
{
	static const char *const modes[] = {"CPL 0", "CPL 3", "CPL 0, 32-bit", "CPL 3, 32-bit"};

	test_begin(test);
	for (size_t i = 0; i < n; i++) {
		test_context("%s (%s)", table[i].name, modes[table[i].mode]);
		insn_run(&table[i]);
	}
	test_context(NULL);
	test_end();
}
