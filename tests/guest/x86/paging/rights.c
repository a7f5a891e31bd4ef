/* Rights and reserved bits in every combination. */
#include "paging.h"

SNIPPET(do_read, "mov (%rsi), %rax");
SNIPPET(do_write, "mov %rax, (%rsi)");
SNIPPET(do_fetch, "jmp *%rsi");

static u8 *const snippets[] = {do_read, do_write, do_fetch};

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

static struct walk walk_of(const struct page *p)
{
	struct walk w = {0};

	for (int l = 4; l >= p->leaf; l--, w.n++) {
		w.entry[w.n] = *p->entry[l];
		w.rsvd[w.n] = p->rsvd[l];
	}
	return w;
}

static void check_access(const struct page *p, const struct mode *m, enum access a, bool user)
{
	const struct walk walk = walk_of(p);
	u64 want = oracle(&walk, m, a, user), va = p->va + (a == FETCH ? CODE_OFFSET : DATA_OFFSET);
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
static bool is_reserved_defect(const struct mode *m, u32 defects)
{
	return (defects & 16) || ((defects & 8) && !m->nxe);
}

/* Reserved bits are a case of their own: so much is wrong elsewhere that it would hide the rest. */
static void test_page(struct page *p, const char *name, bool reserved)
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

void test_rights(void)
{
	make_pages();
	test_page(&pages[0], "paging: rights and error codes, 4 KiB page", false);
	test_page(&pages[0], "paging: reserved bits and rights, 4 KiB page", true);
	test_page(&pages[1], "paging: rights and error codes, 2 MiB page", false);
	test_page(&pages[1], "paging: reserved bits and rights, 2 MiB page", true);
	if (have_1g) {
		test_page(&pages[2], "paging: rights and error codes, 1 GiB page", false);
		test_page(&pages[2], "paging: reserved bits and rights, 1 GiB page", true);
	} else {
		test_skip("paging: rights, 1 GiB page", "no 1 GiB pages");
	}
	test_reserved_bits();
}
