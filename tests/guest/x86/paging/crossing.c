/* Accesses and instructions over two pages; locked accesses. */
#include "paging.h"

SNIPPET(do_add, "add %rax, (%rsi)");
SNIPPET(do_xchg, "xchg %rax, (%rsi)");
SNIPPET(do_cmpxchg, "lock cmpxchg %rbx, (%rsi)");
SNIPPET(do_lock_add, "lock add %rax, (%rsi)");
SNIPPET(do_lock_bts, "lock btsl $3, (%rsi)");
SNIPPET(do_movups_load, "movups (%rsi), %xmm0");
SNIPPET(do_movups_store, "movups %xmm0, (%rsi)");
SNIPPET(do_fst, "fld1; fstpt (%rsi)");
SNIPPET(do_push, "push %rax");
SNIPPET(do_call, "call 1f; nop; 1: nop");
SNIPPET(do_pop_mem, "popq (%rsi)");
SNIPPET(do_write2, "mov %ax, (%rsi)");
SNIPPET(do_write4, "mov %eax, (%rsi)");

/* Two pages side by side, of which one, the other or both are missing. */
static u64 pair_va = TEST_HIGH + 0x01c00000;
static u64 *pair_pte[2];
static u8 *pair_page[2];

static void make_pair(void)
{
	for (int i = 0; i < 2; i++) {
		pair_page[i] = alloc_pages(1);
		pair_pte[i] = map_page(pair_va + PAGE_SIZE * (u64)i, (u64)pair_page[i],
				       PTE_P | PTE_W | PTE_U);
	}
	/* Not neighbours in physical memory: exchange them. */
	u8 *t = pair_page[0];

	pair_page[0] = pair_page[1];
	pair_page[1] = t;
	*pair_pte[0] = (u64)pair_page[0] | PTE_P | PTE_W | PTE_U;
	*pair_pte[1] = (u64)pair_page[1] | PTE_P | PTE_W | PTE_U;
}

static void pair_fill(void)
{
	for (u64 i = 0; i < PAGE_SIZE; i++) {
		pair_page[0][i] = (u8)(0x40 + i * 7);
		pair_page[1][i] = (u8)(0x80 + i * 5);
	}
}

static bool pair_unchanged(void)
{
	for (u64 i = 0; i < PAGE_SIZE; i++)
		if (pair_page[0][i] != (u8)(0x40 + i * 7) || pair_page[1][i] != (u8)(0x80 + i * 5))
			return false;
	return true;
}

static void pair_set(u64 bits0, u64 bits1)
{
	*pair_pte[0] = (u64)pair_page[0] | bits0;
	*pair_pte[1] = (u64)pair_page[1] | bits1;
	flush_tlb();
}

static const struct crossing {
	u8 *code;
	u32 size;
	bool write, read, stack;
	u32 before; /* bytes of the snippet before the instruction that accesses */
} crossings[] = {
	{do_read, 8, false, true, false, 0},
	{do_write, 8, true, false, false, 0},
	{do_write4, 4, true, false, false, 0},
	{do_write2, 2, true, false, false, 0},
	{do_add, 8, true, true, false, 0},
	{do_xchg, 8, true, true, false, 0},
	{do_cmpxchg, 8, true, true, false, 0},
	{do_movups_load, 16, false, true, false, 0},
	{do_movups_store, 16, true, false, false, 0},
	{do_fst, 10, true, false, false, 2},
	{do_push, 8, true, false, true, 0},
	{do_call, 8, true, false, true, 0},
	{do_pop_mem, 8, true, false, false, 0},
};

/*
 * CR2 is the address that faults: the access's own if it is its first page, otherwise the start of
 * the second page. An instruction that faults changes nothing (faults are restartable: SDM vol.
 * 3A 6.5), so the bytes on the first page are as before and so are the registers. Bit 0 of the
 * error code may not depend on the other page.
 */
static void test_two_pages(const char *name, bool wide)
{
	static const struct {
		const char *name;
		u64 bits[2];
		int fault_read, fault_write; /* page that faults, -1: none */
		u64 err;
	} layouts[] = {
		{"both there", {PTE_P | PTE_W | PTE_U, PTE_P | PTE_W | PTE_U}, -1, -1, 0},
		{"first missing", {0, PTE_P | PTE_W | PTE_U}, 0, 0, PF_U},
		{"second missing", {PTE_P | PTE_W | PTE_U, 0}, 1, 1, PF_U},
		{"both missing", {0, 0}, 0, 0, PF_U},
		{"second read-only", {PTE_P | PTE_W | PTE_U, PTE_P | PTE_U}, -1, 1, PF_U | PF_P},
		{"first read-only", {PTE_P | PTE_U, PTE_P | PTE_W | PTE_U}, -1, 0, PF_U | PF_P},
		{"second supervisor", {PTE_P | PTE_W | PTE_U, PTE_P | PTE_W}, 1, 1, PF_U | PF_P},
		{"first missing, second supervisor", {0, PTE_P | PTE_W}, 0, 0, PF_U},
	};

	test_begin(name);
	for (u32 i = 0; i < ARRAY_SIZE(crossings); i++) {
		const struct crossing *x = &crossings[i];

		/* Stores of more than 8 bytes, which an emulator makes of several. */
		if ((x->write && x->size > 8) != wide)
			continue;
		for (u32 j = 0; j < ARRAY_SIZE(layouts); j++) {
			for (u32 first = 1; first<x->size; first += x->size> 4 ? 3 : 1) {
				struct ctx c = ctx_user(x->code), before;
				u64 va = pair_va + PAGE_SIZE - first;
				int f = x->write ? layouts[j].fault_write : layouts[j].fault_read;

				pair_fill();
				pair_set(layouts[j].bits[0], layouts[j].bits[1]);
				c.gpr[RSI] = va;
				c.gpr[RAX] = 0x1122334455667788;
				c.gpr[RBX] = 0x99aabbccddeeff00;
				if (x->stack)
					c.gpr[RSP] = va + 8;
				if (x->code == do_cmpxchg) /* as in memory: it stores */
					for (u32 k = 0; k < 8; k++)
						((u8 *)&c.gpr[RAX])[k] =
							k < first ? pair_page[0]
									     [PAGE_SIZE - first + k]
								  : pair_page[1][k - first];
				before = c;
				asm volatile("movq %0, %%xmm0; punpcklqdq %%xmm0, %%xmm0" ::"r"(
					c.gpr[RAX]));
				exec(&c);
				test_context("crossing %u, %s, %u bytes on the first", i,
					     layouts[j].name, first);
				if (f < 0) {
					expect_done(&c);
					expect("memory written", x->write, !pair_unchanged());
					for (int k = 0; k < 2; k++)
						expect("accessed and dirty",
						       PTE_A | (x->write ? PTE_D : 0),
						       *pair_pte[k] & (PTE_A | PTE_D));
					continue;
				}
				/* Whether the read of a read-modify-write counts as a write already
				 * is not said for unlocked ones; test_locked() has the others. */
				if (x->read && x->write)
					c.error |= PF_W;
				expect_trap(&c, PF, layouts[j].err | (x->write ? PF_W : 0));
				expect("CR2", f ? pair_va + PAGE_SIZE : va, c.cr2);
				expect("RIP", before.rip + x->before, c.rip);
				expect("memory unchanged", true, pair_unchanged());
				/* Whether the page that is there has become dirty is left open
				 * by 4.8. */
				expect("faulting page not dirty", 0, *pair_pte[f] & PTE_D);
				expect("RAX", before.gpr[RAX], c.gpr[RAX]);
				expect("RSP", before.gpr[RSP], c.gpr[RSP]);
			}
		}
	}
	pair_set(PTE_P | PTE_W | PTE_U, PTE_P | PTE_W | PTE_U);
	test_context(NULL);
	test_end();
}

/* "The processor never produces a locked read without also producing a locked write" (SDM vol. 2
 * CMPXCHG): what faults is a write. */
static void test_locked(void)
{
	static u8 *const code[] = {do_xchg, do_cmpxchg, do_lock_add, do_lock_bts};

	test_begin("paging: locked accesses fault as writes");
	for (u32 i = 0; i < ARRAY_SIZE(code); i++) {
		for (u32 kind = 0; kind < 3; kind++) {
			struct ctx c = ctx_user(code[i]);

			pair_fill();
			pair_set(kind == 0 ? 0 : kind == 1 ? PTE_P | PTE_U : PTE_P | PTE_W, 0);
			c.gpr[RSI] = pair_va + 64;
			c.gpr[RAX] = 0;
			exec(&c);
			test_context("instruction %u, kind %u", i, kind);
			expect_trap(&c, PF, PF_U | PF_W | (kind ? PF_P : 0));
			expect("CR2", pair_va + 64, c.cr2);
			expect("memory unchanged", true, pair_unchanged());
		}
	}
	pair_set(PTE_P | PTE_W | PTE_U, PTE_P | PTE_W | PTE_U);
	test_context(NULL);
	test_end();
}

/* An instruction that begins on one page and ends on the next. */
static void test_fetch_crossing(void)
{
	/* movabs $0x8877665544332211, %rax; int 0x81 */
	static const u8 insn[] = {0x48, 0xb8, 0x11, 0x22, 0x33, 0x44,
				  0x55, 0x66, 0x77, 0x88, 0xcd, VEC_DONE};
	u64 nx = have_nx ? PTE_NX : 0, i_flag = have_nx ? PF_I : 0;

	test_begin("paging: instruction over two pages");
	for (u32 first = 1; first < 10; first++) {
		for (u32 kind = 0; kind < 4; kind++) {
			struct ctx c = ctx_user(insn);
			u64 va = pair_va + PAGE_SIZE - first;
			const u64 ok = PTE_P | PTE_U;

			pair_fill();
			memcpy(pair_page[0] + PAGE_SIZE - first, insn, first);
			memcpy(pair_page[1], insn + first, sizeof(insn) - first);
			pair_set(kind == 1 ? 0 : ok, kind == 2	       ? 0
						     : kind == 3 && nx ? ok | nx
								       : ok);
			c.rip = va;
			c.gpr[RAX] = 0;
			exec(&c);
			test_context("%u bytes on the first, kind %u", first, kind);
			if (kind == 0 || (kind == 3 && !nx)) {
				expect_done(&c);
				expect("RAX", 0x8877665544332211, c.gpr[RAX]);
				continue;
			}
			expect_trap(&c, PF, PF_U | i_flag | (kind == 3 ? PF_P : 0));
			expect("CR2", kind == 1 ? va : pair_va + PAGE_SIZE, c.cr2);
			expect("RIP", va, c.rip);
			expect("RAX", 0, c.gpr[RAX]);
		}
	}
	test_context(NULL);
	test_end();
	/* One that ends with the page does not touch the next. */
	test_begin("paging: instruction that ends with its page");
	for (u32 k = 0; k < 2; k++) {
		struct ctx c = ctx_user(insn);

		memcpy(pair_page[0] + PAGE_SIZE - 12, insn, 12);
		pair_set(PTE_P | PTE_U, 0);
		c.rip = pair_va + PAGE_SIZE - 12;
		if (k) { /* and execution that runs off the page faults at its first byte */
			pair_page[0][PAGE_SIZE - 2] = 0x90;
			pair_page[0][PAGE_SIZE - 1] = 0x90;
		}
		exec(&c);
		expect("RAX", 0x8877665544332211, c.gpr[RAX]);
		if (k) {
			expect_trap(&c, PF, PF_U | i_flag);
			expect("CR2", pair_va + PAGE_SIZE, c.cr2);
			expect("RIP", pair_va + PAGE_SIZE, c.rip);
		} else {
			expect_done(&c);
		}
	}
	test_end();
	pair_set(PTE_P | PTE_W | PTE_U, PTE_P | PTE_W | PTE_U);
}

/* The clobber: page-table entries must be read again afterwards, the processor may have changed
 * them. */

void test_crossing(void)
{
	make_pair();
	test_two_pages("paging: accesses over two pages", false);
	test_two_pages("paging: stores of 10 and 16 bytes over two pages", true);
	test_locked();
	test_fetch_crossing();
}
