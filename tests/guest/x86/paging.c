/*
 * Paging: access rights, error codes, CR2, accessed and dirty flags, invalidation (SDM vol. 3A
 * chapter 4). What an access must do is computed by an oracle written from sections 4.6 and 4.7
 * alone, and compared with what the processor does for every combination.
 */
#include "guest.h"
#include "legacy.h"

enum access { READ, WRITE, FETCH };
static const char *const access_name[] = {"read", "write", "fetch"};

SNIPPET(do_read, "mov (%rsi), %rax");
SNIPPET(do_write, "mov %rax, (%rsi)");
SNIPPET(do_fetch, "jmp *%rsi");
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
SNIPPET(do_invlpg, "invlpg (%rsi)");
SNIPPET(do_mov_ds, "mov %eax, %ds");

static u8 *const snippets[] = {do_read, do_write, do_fetch};

/* The processor's mode, beside the tables. */
struct mode {
	bool wp, nxe, smep, smap, ac;
};

static bool have_nx, have_1g, have_smep, have_smap;
static u32 phys_bits;
static u64 kernel_cr4, kernel_efer;

static void detect(void)
{
	struct cpuid ext = cpuid(0x80000001, 0);

	have_nx = ext.d & BIT(20);
	have_1g = ext.d & BIT(26);
	if (cpuid(0, 0).a >= 7) {
		have_smep = cpuid(7, 0).b & BIT(7);
		have_smap = cpuid(7, 0).b & BIT(20);
	}
	phys_bits = 36;
	if (cpuid(0x80000000, 0).a >= 0x80000008)
		phys_bits = cpuid(0x80000008, 0).a & 0xff;
	kernel_cr4 = read_cr4();
	kernel_efer = rdmsr(MSR_EFER);
}

static bool mode_possible(const struct mode *m)
{
	return (have_nx || !m->nxe) && (have_smep || !m->smep) && (have_smap || !m->smap);
}

static void mode_set(const struct mode *m)
{
	write_cr0(m->wp ? read_cr0() | CR0_WP : read_cr0() & ~CR0_WP);
	write_cr4(kernel_cr4 | (m->smep ? CR4_SMEP : 0) | (m->smap ? CR4_SMAP : 0));
	if (have_nx)
		wrmsr(MSR_EFER, m->nxe ? kernel_efer | EFER_NXE : kernel_efer & ~EFER_NXE);
}

static void mode_reset(void)
{
	mode_set(&(struct mode){.wp = true, .nxe = have_nx});
}

/* One test page, mapped by a leaf at a given level (1: 4 KiB, 2: 2 MiB, 3: 1 GiB). */
struct page {
	u64 va;
	int leaf;
	u64 *entry[5]; /* by level */
	u64 good[5];   /* present, all rights */
	u64 rsvd[5];   /* a reserved bit of that entry, 0 if it has none */
};

static struct page pages[3];
static u8 *target; /* 2 MiB of physical memory behind all of them */
#define DATA_OFFSET 0x108
#define CODE_OFFSET 0x200

static void make_page(struct page *p, u64 va, int leaf)
{
	p->va = va;
	p->leaf = leaf;
	for (int l = 4; l >= leaf; l--) {
		p->entry[l] = entry_of(va, l);
		if (l > leaf)
			(void)entry_of(va, l - 1);
		p->good[l] = *p->entry[l];
		p->rsvd[l] = phys_bits < 52 ? BIT(51) : 0;
	}
	p->good[leaf] = PTE_P | PTE_W | PTE_U | (leaf > 1 ? PTE_PS : 0) |
			((u64)target & ~((1ull << (12 + 9 * (leaf - 1))) - 1));
	if (leaf > 1)
		p->rsvd[leaf] = BIT(13);
	p->rsvd[4] = PTE_PS; /* "reserved (must be 0)", table 4-15 */
}

static void make_pages(void)
{
	target = alloc_aligned(0x200000, 0x200000);
	target[CODE_OFFSET] = 0xcd;
	target[CODE_OFFSET + 1] = VEC_DONE;
	make_page(&pages[0], TEST_HIGH + 0x01a57000, 1);
	make_page(&pages[1], TEST_HIGH + 0x4b600000, 2);
	make_page(&pages[2], TEST_HIGH + 0x80000000 + (u64)target, 3);
}

static void restore(struct page *p)
{
	for (int l = 4; l >= p->leaf; l--)
		*p->entry[l] = p->good[l];
}

/* SDM vol. 3A 4.6.1 (rights) and 4.7 (error code). Returns the error code, or NO_ERROR: no fault.
 */
static u64 oracle(const struct page *p, const struct mode *m, enum access a, bool user)
{
	u64 err = (a == WRITE ? PF_W : 0) | (user ? PF_U : 0) |
		  (a == FETCH && (m->nxe || m->smep) ? PF_I : 0);
	bool w = true, u = true, nx = false;

	for (int l = 4; l >= p->leaf; l--) {
		u64 e = *p->entry[l];

		if (!(e & PTE_P))
			return err;
		if ((e & p->rsvd[l]) || ((e & PTE_NX) && !m->nxe))
			return err | PF_P | PF_RSVD;
		w &= !!(e & PTE_W);
		u &= !!(e & PTE_U);
		nx |= !!(e & PTE_NX);
	}
	err |= PF_P;
	if (user && !u)
		return err;
	if (a == WRITE && !w && (user || m->wp))
		return err;
	if (a == FETCH && nx)
		return err;
	if (!user && u) {
		if (a == FETCH ? m->smep : m->smap && !m->ac)
			return err;
	}
	return NO_ERROR;
}

static void check_access(const struct page *p, const struct mode *m, enum access a, bool user)
{
	u64 want = oracle(p, m, a, user), va = p->va + (a == FETCH ? CODE_OFFSET : DATA_OFFSET);
	struct ctx c = user ? ctx_user(snippets[a]) : ctx_kernel(snippets[a]);
	u64 start = c.rip;

	c.gpr[RSI] = va;
	if (m->ac)
		c.rflags |= FL_AC;
	flush_tlb();
	exec(&c);
	if (want == NO_ERROR) {
		expect_done(&c);
		for (int l = 4; l > p->leaf; l--)
			expect("accessed flag of a table entry", PTE_A, *p->entry[l] & PTE_A);
		expect("accessed and dirty flags", PTE_A | (a == WRITE ? PTE_D : 0),
		       *p->entry[p->leaf] & (PTE_A | PTE_D));
	} else {
		expect_trap(&c, PF, want);
		expect("CR2", va, c.cr2);
		expect("RIP", a == FETCH ? va : start, c.rip);
		/* Only a write that happens makes a page dirty (4.8). */
		expect("dirty flag after a fault", 0, *p->entry[p->leaf] & PTE_D);
	}
}

static const char *describe(const struct page *p)
{
	static char text[64];
	char *t = text;

	for (int l = 4; l >= p->leaf; l--) {
		u64 e = *p->entry[l];

		t += snprintf(t, 16, "%s%s%s%s%s%s", l == 4 ? "" : "/", e & PTE_P ? "P" : "-",
			      e & PTE_W ? "W" : "-", e & PTE_U ? "U" : "-", e & PTE_NX ? "N" : "",
			      e & p->rsvd[l] ? "R" : "");
	}
	return text;
}

static void all_accesses(const struct page *p, const struct mode *m)
{
	u64 saved[5];

	for (int l = 4; l >= p->leaf; l--)
		saved[l] = *p->entry[l];
	for (int a = READ; a <= FETCH; a++) {
		for (int user = 0; user < 2; user++) {
			test_context("%s %s, wp%d nxe%d smep%d smap%d ac%d, %s",
				     user ? "user" : "supervisor", access_name[a], m->wp, m->nxe,
				     m->smep, m->smap, m->ac, describe(p));
			check_access(p, m, (enum access)a, user);
			for (int l = 4; l >= p->leaf; l--)
				*p->entry[l] = saved[l];
		}
	}
}

/* Clear or set the right that bit i of defects names. */
static u64 defective(u64 good, u64 rsvd, u32 defects)
{
	if (defects & 1)
		good &= ~PTE_P;
	if (defects & 2)
		good &= ~PTE_W;
	if (defects & 4)
		good &= ~PTE_U;
	if (defects & 8)
		good |= PTE_NX;
	if (defects & 16)
		good |= rsvd;
	return good;
}

static bool is_reserved_defect(const struct mode *m, u32 defects)
{
	return (defects & 16) || ((defects & 8) && !m->nxe);
}

/* Reserved bits are a case of their own: so much is wrong elsewhere that it would hide the rest. */
static void test_rights(struct page *p, const char *name, bool reserved)
{
	test_begin(name);
	for (u32 mask = 0; mask < 32; mask++) {
		struct mode m = {mask & 1, mask & 2, mask & 4, mask & 8, mask & 16};

		if (!mode_possible(&m))
			continue;
		mode_set(&m);
		for (u32 defects = 0; defects < 32; defects++) {
			if (is_reserved_defect(&m, defects) != reserved)
				continue;
			restore(p);
			*p->entry[p->leaf] = defective(p->good[p->leaf], p->rsvd[p->leaf], defects);
			all_accesses(p, &m);
		}
		/* One entry above the leaf, and a pair of restrictions on different levels. */
		for (int l = p->leaf + 1; l <= 4; l++) {
			for (u32 d = 1; d < 32; d <<= 1) {
				if (is_reserved_defect(&m, d) != reserved)
					continue;
				restore(p);
				*p->entry[l] = defective(p->good[l], p->rsvd[l], d);
				all_accesses(p, &m);
				*p->entry[p->leaf] = defective(p->good[p->leaf], p->rsvd[p->leaf],
							       d == 2 ? 4 : 2);
				all_accesses(p, &m);
			}
		}
	}
	restore(p);
	mode_reset();
	test_context(NULL);
	test_end();
}

/* Which bits of an entry are reserved: tables 4-15 to 4-20. */
static bool is_reserved(const struct page *p, int level, int bit, bool nxe)
{
	bool leaf = level == p->leaf;

	if (bit == 63)
		return !nxe;
	if (bit >= 52)
		return false; /* ignored; 62:59 are a protection key only with CR4.PKE */
	if (bit >= (int)phys_bits)
		return true;
	if (leaf && level > 1 && bit > 12 && bit < 12 + 9 * (level - 1))
		return true;
	if (level == 4 && bit == 7)
		return true;
	return false;
}

static void test_reserved_bits(void)
{
	test_begin("paging: every reserved bit of every level");
	for (u32 i = 0; i < ARRAY_SIZE(pages); i++) {
		struct page *p = &pages[i];

		if (p->leaf == 3 && !have_1g)
			continue;
		for (int nxe = 0; nxe <= have_nx; nxe++) {
			struct mode m = {.wp = true, .nxe = nxe};

			mode_set(&m);
			for (int l = 4; l >= p->leaf; l--) {
				for (int bit = 3; bit < 64; bit++) {
					struct ctx c = ctx_user(do_write);
					bool rsvd = is_reserved(p, l, bit, nxe);

					/* An address bit that is not reserved leads elsewhere;
					 * bit 7 makes a leaf of a table; caching is no matter. */
					if (!rsvd && ((bit >= 12 && bit < 52) || bit == 7 ||
						      bit == 3 || bit == 4))
						continue;
					restore(p);
					*p->entry[l] |= BIT(bit);
					flush_tlb();
					c.gpr[RSI] = p->va + DATA_OFFSET;
					exec(&c);
					test_context("level %d of a level %d page, bit %d, nxe %d",
						     l, p->leaf, bit, nxe);
					if (rsvd)
						expect_trap(&c, PF, PF_P | PF_W | PF_U | PF_RSVD);
					else
						expect_done(&c);
				}
			}
			restore(p);
		}
		/* In an entry that is not present no bit means anything. */
		for (int l = 4; l >= p->leaf; l--) {
			struct ctx c = ctx_user(do_read);

			restore(p);
			*p->entry[l] = ~PTE_P;
			flush_tlb();
			c.gpr[RSI] = p->va;
			exec(&c);
			test_context("level %d of a level %d page, all but P", l, p->leaf);
			expect_trap(&c, PF, PF_U);
			restore(p);
		}
	}
	if (!have_1g) {
		/* PS of a PDPTE is reserved without 1 GiB pages (table 4-17). */
		struct ctx c = ctx_user(do_read);
		struct page *p = &pages[0];

		*p->entry[3] |= PTE_PS;
		flush_tlb();
		c.gpr[RSI] = p->va;
		exec(&c);
		test_context("PDPTE.PS without 1 GiB pages");
		expect_trap(&c, PF, PF_P | PF_U | PF_RSVD);
		restore(p);
	}
	mode_reset();
	test_context(NULL);
	test_end();
}

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
static void test_crossing(const char *name, bool wide)
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
static u64 peek(u64 va)
{
	u64 v;

	asm volatile("mov (%1), %0" : "=r"(v) : "r"(va) : "memory");
	return v;
}

/* A user-mode read, for its fault. */
static struct ctx user_read(u64 va)
{
	struct ctx c = ctx_user(do_read);

	c.gpr[RSI] = va;
	exec(&c);
	return c;
}

static struct ctx user_write(u64 va, u64 v)
{
	struct ctx c = ctx_user(do_write);

	c.gpr[RSI] = va;
	c.gpr[RAX] = v;
	exec(&c);
	return c;
}

/*
 * What must be seen after which invalidation (SDM vol. 3A 4.10.4). That an old translation lives on
 * without one is allowed and never asserted.
 */
static void test_invalidation(void)
{
	u64 va = TEST_HIGH + 0x01e00000, *pte, *pde = entry_of(va, 2);
	u64 *a = alloc_pages(1), *b = alloc_pages(1), old;
	const u64 rw = PTE_P | PTE_W | PTE_U;
	struct ctx c;

	*a = 0xaaaa;
	*b = 0xbbbb;
	pte = map_page(va, (u64)a, rw);

	test_begin("paging: not present to present needs no invalidation");
	*pte = 0;
	flush_tlb();
	c = user_read(va);
	expect_trap(&c, PF, PF_U);
	*pte = (u64)a | rw; /* no entry may be cached of what was not present (4.10.2.3) */
	c = user_read(va);
	expect_done(&c);
	expect("data", 0xaaaa, c.gpr[RAX]);
	test_end();

	test_begin("paging: INVLPG after unmap, remap, protect");
	*pte = (u64)b | rw;
	invlpg(va);
	expect("remapped", 0xbbbb, peek(va));
	*pte = 0;
	invlpg(va + 0xfff); /* any address of the page */
	c = user_read(va);
	expect_trap(&c, PF, PF_U);
	*pte = (u64)a | rw;
	c = user_write(va, 1);
	expect_done(&c);
	*pte = (u64)a | PTE_P | PTE_U | PTE_A | PTE_D;
	invlpg(va);
	c = user_write(va, 2);
	expect_trap(&c, PF, PF_P | PF_W | PF_U);
	expect("old data", 1, *a);
	*pte = (u64)a | PTE_P | PTE_W | PTE_A | PTE_D;
	invlpg(va);
	c = user_read(va);
	expect_trap(&c, PF, PF_P | PF_U);
	test_end();

	/* After a fault for its rights no stale entry is left (4.10.4.1): at most one spurious
	 * fault. */
	test_begin("paging: more rights without invalidation, at most one spurious fault");
	*pte = (u64)a | PTE_P | PTE_U | PTE_A;
	flush_tlb();
	(void)peek(va);
	*pte = (u64)a | rw | PTE_A | PTE_D;
	c = user_write(va, 3);
	if (c.vector == PF)
		c = user_write(va, 3);
	expect_done(&c);
	expect("written", 3, *a);
	test_end();

	test_begin("paging: CR3 load invalidates");
	*a = 0xaaaa;
	*pte = (u64)a | rw;
	flush_tlb();
	expect("first", 0xaaaa, peek(va));
	*pte = (u64)b | rw;
	flush_tlb();
	expect("second", 0xbbbb, peek(va));
	*pte = 0;
	flush_tlb();
	c = user_read(va);
	expect_trap(&c, PF, PF_U);
	test_end();

	test_begin("paging: global pages: INVLPG and CR4.PGE invalidate");
	write_cr4(kernel_cr4 | CR4_PGE);
	*pte = (u64)a | rw | PTE_G;
	invlpg(va);
	expect("first", 0xaaaa, peek(va));
	*pte = (u64)b | rw | PTE_G;
	invlpg(va);
	expect("after INVLPG", 0xbbbb, peek(va));
	*pte = (u64)a | rw | PTE_G;
	write_cr4(kernel_cr4);
	expect("after clearing PGE", 0xaaaa, peek(va));
	*pte = (u64)b | rw | PTE_G;
	write_cr4(kernel_cr4 | CR4_PGE); /* 4.10.4.1: any change of PGE */
	expect("after setting PGE", 0xbbbb, peek(va));
	write_cr4(kernel_cr4);
	/* Without PGE the G bit means nothing and CR3 flushes. */
	*pte = (u64)a | rw | PTE_G;
	flush_tlb();
	expect("G without PGE", 0xaaaa, peek(va));
	test_end();

	test_begin("paging: INVLPG drops paging-structure caches");
	/* The PDE itself is changed: INVLPG of one page is enough for its other pages (4.10.4.1).
	 */
	map_page(va + PAGE_SIZE, (u64)a, rw);
	(void)peek(va);
	(void)peek(va + PAGE_SIZE);
	old = *pde;
	u64 *other = alloc_pages(1);

	other[(va >> 12) & 511] = (u64)b | rw;
	other[((va >> 12) & 511) + 1] = (u64)b | rw;
	*pde = (u64)other | rw;
	invlpg(va);
	expect("same page", 0xbbbb, peek(va));
	invlpg(va + PAGE_SIZE);
	expect("next page", 0xbbbb, peek(va + PAGE_SIZE));
	*pde = old;
	flush_tlb();
	test_end();

	test_begin("paging: accessed and dirty flags are set again after INVLPG");
	*pte = (u64)a | rw;
	invlpg(va);
	(void)peek(va);
	expect("A", PTE_A, *pte & (PTE_A | PTE_D));
	c = user_write(va, 9); /* the TLB entry exists and is clean: D must come nevertheless */
	expect_done(&c);
	expect("D", PTE_A | PTE_D, *pte & (PTE_A | PTE_D));
	*pte &= ~PTE_D;
	invlpg(va);
	(void)peek(va);
	expect("no D by reading", 0, *pte & PTE_D);
	c = user_write(va, 9);
	expect_done(&c);
	expect("D again", PTE_D, *pte & PTE_D);
	*pte &= ~(PTE_A | PTE_D);
	invlpg(va);
	(void)peek(va);
	expect("A again", PTE_A, *pte & (PTE_A | PTE_D));
	/* LOCK CMPXCHG that fails still writes (SDM vol. 2 CMPXCHG: "always writes"). */
	*pte = (u64)a | rw;
	invlpg(va);
	c = ctx_user(do_cmpxchg);
	c.gpr[RSI] = va;
	c.gpr[RAX] = ~*a;
	exec(&c);
	expect_done(&c);
	expect("D by a failed LOCK CMPXCHG", PTE_A | PTE_D, *pte & (PTE_A | PTE_D));
	/* A read-only page written by the supervisor with WP = 0 becomes dirty too. */
	*pte = (u64)a | PTE_P | PTE_U;
	invlpg(va);
	write_cr0(read_cr0() & ~CR0_WP);
	*(volatile u64 *)va = 5;
	write_cr0(read_cr0() | CR0_WP);
	expect("D with WP = 0", PTE_A | PTE_D, *pte & (PTE_A | PTE_D));
	/* ... and setting WP again must be seen at once (4.10.4.1: software need not invalidate for
	 * CR0.WP, 4.6 checks it per access). */
	c = ctx_kernel(do_write);
	c.gpr[RSI] = va;
	exec(&c);
	expect_trap(&c, PF, PF_P | PF_W);
	test_end();

	test_begin("paging: INVLPG itself");
	c = ctx_kernel(do_invlpg);
	c.gpr[RSI] = 0x0000800000000000; /* non-canonical: nothing happens (vol. 2 INVLPG) */
	exec(&c);
	expect_done(&c);
	c = ctx_kernel(do_invlpg);
	c.gpr[RSI] = TEST_HIGH + 0x123450000; /* not mapped */
	exec(&c);
	expect_done(&c);
	c = ctx_user(do_invlpg);
	c.gpr[RSI] = va;
	exec(&c);
	expect_trap(&c, GP, 0);
	test_end();
}

/* CR2 and the error code of accesses that the processor makes for itself. */
static void test_implicit(void)
{
	struct cpu *cpu = this_cpu();
	u64 va = TEST_HIGH + 0x02000000, *pte;
	u64 *ldt = alloc_pages(1);
	struct ctx c;

	/* An LDT with one data descriptor for ring 3, in its page at offset 8. */
	ldt[1] = descriptor(0, 0xfffff, 0xf3, 0xc);
	pte = map_page(va, (u64)ldt, PTE_P | PTE_W);
	cpu->gdt[SEL_TEST / 8] = descriptor((u32)va, 0xfff, 0x82, 0);
	cpu->gdt[SEL_TEST / 8 + 1] = va >> 32;
	asm volatile("lldt %w0" ::"r"(SEL_TEST));

	test_begin("paging: descriptor loads are supervisor accesses");
	c = ctx_user(do_mov_ds);
	c.gpr[RAX] = 8 | 4 | 3;
	exec(&c);
	expect_done(&c); /* though the page is a supervisor one */
	expect("DS", 8 | 4 | 3, c.ds);
	*pte = 0;
	invlpg(va);
	c = ctx_user(do_mov_ds);
	c.gpr[RAX] = 8 | 4 | 3;
	exec(&c);
	expect_trap(&c, PF, 0); /* U = 0 at CPL 3 */
	expect("CR2", va + 8, c.cr2);
	expect("RIP", (u64)user_alias(do_mov_ds), c.rip);
	expect("DS", SEL_UDATA, c.ds);
	test_end();

	test_begin("paging: the accessed bit of a descriptor is written by the supervisor");
	ldt[1] = descriptor(0, 0xfffff, 0xf2, 0xc);
	*pte = (u64)ldt | PTE_P; /* read-only, WP = 1 */
	invlpg(va);
	c = ctx_user(do_mov_ds);
	c.gpr[RAX] = 8 | 4 | 3;
	exec(&c);
	expect_trap(&c, PF, PF_P | PF_W);
	expect("CR2 in the descriptor", va + 8, c.cr2 & ~7ull);
	expect("descriptor", 0xf2, ldt[1] >> 40 & 0xff);
	*pte |= PTE_W;
	invlpg(va);
	c = ctx_user(do_mov_ds);
	c.gpr[RAX] = 8 | 4 | 3;
	exec(&c);
	expect_done(&c);
	expect("descriptor accessed", 0xf3, ldt[1] >> 40 & 0xff);
	expect("page dirty", PTE_D, *pte & PTE_D);
	test_end();

	if (have_smap) {
		/* 4.6.1: EFLAGS.AC has no say in implicit supervisor accesses. */
		test_begin("paging: SMAP, implicit access at CPL 3 with AC");
		*pte = (u64)ldt | PTE_P | PTE_W | PTE_U;
		write_cr4(kernel_cr4 | CR4_SMAP);
		invlpg(va);
		c = ctx_user(do_mov_ds);
		c.gpr[RAX] = 8 | 4 | 3;
		c.rflags |= FL_AC;
		exec(&c);
		expect_trap(&c, PF, PF_P);
		write_cr4(kernel_cr4);
		test_end();
		test_begin("paging: SMAP, implicit access at CPL 0 with AC");
		write_cr4(kernel_cr4 | CR4_SMAP);
		invlpg(va);
		c = ctx_kernel(do_mov_ds);
		c.gpr[RAX] = 8 | 4 | 3;
		c.rflags |= FL_AC;
		exec(&c);
		expect_trap(&c, PF, PF_P);
		write_cr4(kernel_cr4);
		test_end();
	} else {
		test_skip("paging: SMAP, implicit accesses", "no SMAP");
	}
	asm volatile("lldt %w0" ::"r"(0));
}

/* 4.6.1: the mode is looked at in each access, also for what is in the TLB already. */
static void test_mode_switch(void)
{
	u64 va = TEST_HIGH + 0x02200000, *pte;
	u64 *page = alloc_pages(1);
	struct ctx c;

	pte = map_page(va, (u64)page, PTE_P | PTE_W | PTE_U | PTE_A | PTE_D);
	((u8 *)page)[CODE_OFFSET] = 0xcd;
	((u8 *)page)[CODE_OFFSET + 1] = VEC_DONE;
	if (have_smap) {
		test_begin("paging: STAC and CLAC act at once");
		write_cr4(kernel_cr4 | CR4_SMAP);
		for (int i = 0; i < 4; i++) {
			u64 t;

			asm volatile("stac; mov (%1), %0; clac" : "=r"(t) : "r"(va) : "memory");
			c = ctx_kernel(do_read);
			c.gpr[RSI] = va;
			exec(&c);
			expect_trap(&c, PF, PF_P);
			c = ctx_user(do_read);
			c.gpr[RSI] = va;
			exec(&c);
			expect_done(&c);
		}
		write_cr4(kernel_cr4);
		c = ctx_kernel(do_read);
		c.gpr[RSI] = va;
		exec(&c);
		expect_done(&c);
		test_end();
	} else {
		test_skip("paging: STAC and CLAC act at once", "no SMAP");
	}
	if (have_smep) {
		test_begin("paging: SMEP toggles at once");
		for (int i = 0; i < 4; i++) {
			write_cr4(kernel_cr4 | (i & 1 ? CR4_SMEP : 0));
			c = ctx_kernel(do_fetch);
			c.gpr[RSI] = va + CODE_OFFSET;
			exec(&c);
			if (i & 1)
				expect_trap(&c, PF, PF_P | PF_I);
			else
				expect_done(&c);
			c = ctx_user(do_fetch);
			c.gpr[RSI] = va + CODE_OFFSET;
			exec(&c);
			expect_done(&c);
		}
		write_cr4(kernel_cr4);
		test_end();
	} else {
		test_skip("paging: SMEP toggles at once", "no SMEP");
	}
	test_begin("paging: user and supervisor share no rights in the TLB");
	*pte &= ~PTE_U;
	invlpg(va);
	for (int i = 0; i < 4; i++) {
		c = ctx_kernel(do_read);
		c.gpr[RSI] = va;
		exec(&c);
		expect_done(&c);
		c = ctx_user(do_read);
		c.gpr[RSI] = va;
		exec(&c);
		expect_trap(&c, PF, PF_P | PF_U);
	}
	test_end();
}

void test_main(void)
{
	detect();
	make_pages();
	make_pair();
	test_rights(&pages[0], "paging: rights and error codes, 4 KiB page", false);
	test_rights(&pages[0], "paging: reserved bits and rights, 4 KiB page", true);
	test_rights(&pages[1], "paging: rights and error codes, 2 MiB page", false);
	test_rights(&pages[1], "paging: reserved bits and rights, 2 MiB page", true);
	if (have_1g) {
		test_rights(&pages[2], "paging: rights and error codes, 1 GiB page", false);
		test_rights(&pages[2], "paging: reserved bits and rights, 1 GiB page", true);
	} else {
		test_skip("paging: rights, 1 GiB page", "no 1 GiB pages");
	}
	test_reserved_bits();
	test_crossing("paging: accesses over two pages", false);
	test_crossing("paging: stores of 10 and 16 bytes over two pages", true);
	test_locked();
	test_fetch_crossing();
	test_invalidation();
	test_implicit();
	test_mode_switch();
	test_legacy_paging();
}
