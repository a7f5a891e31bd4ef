/*
 * 32-bit paging (4 KiB, 4 MiB) and PAE paging (4 KiB, 2 MiB) outside of long mode: SDM vol.
 * 3A 4.3, 4.4, with the same oracle for rights and error codes as in long mode (4.6, 4.7).
 */
#include "legacy.h"
#include "paging.h"

SNIPPET32(legacy_read, "mov (%esi), %eax");
SNIPPET32(legacy_write, "mov %eax, (%esi)");
SNIPPET32(legacy_fetch, "jmp *%esi");
SNIPPET32(legacy_cr3, "mov %eax, %cr3");

static u8 *const snippets[] = {legacy_read, legacy_write, legacy_fetch};

extern u64 legacy_idt[];
extern const u8 legacy_stubs[];

static u32 tss32[26]; /* SDM vol. 3A figure 8-2 */
static u8 *target;

#define SEL_TSS32 0x60

struct tables {
	bool pae;
	u32 cr3;
};

struct page {
	const struct tables *t;
	u32 va;
	int leaf;
	void *entry[3]; /* by level: 1 PTE, 2 PDE */
	u64 good[3], rsvd[3];
};

static u64 get(const struct page *p, int level)
{
	return p->t->pae ? *(volatile u64 *)p->entry[level] : *(volatile u32 *)p->entry[level];
}

static void put(const struct page *p, int level, u64 v)
{
	if (p->t->pae)
		*(volatile u64 *)p->entry[level] = v;
	else
		*(volatile u32 *)p->entry[level] = (u32)v;
}

static void restore(const struct page *p)
{
	for (int l = 2; l >= p->leaf; l--)
		put(p, l, p->good[l]);
}

static void setup(void)
{
	struct cpu *cpu = this_cpu();

	for (u32 v = 0; v < 256; v++) {
		u32 a = (u32)(u64)legacy_stubs + 16 * v;
		u64 dpl = v == VEC_DONE ? 3 : 0;

		legacy_idt[v] = (a & 0xffff) | (u64)SEL_KCODE32 << 16 | (0x8eull | dpl << 5) << 40 |
				(u64)(a >> 16) << 48;
	}
	tss32[1] = (u32)(u64)cpu + STACK_IST1;
	tss32[2] = SEL_KDATA;
	tss32[25] = sizeof(tss32) << 16;
	target = alloc_aligned(0x400000, 0x400000);
	target[CODE_OFFSET] = 0xcd;
	target[CODE_OFFSET + 1] = VEC_DONE;
}

static void run(struct legacy *l)
{
	struct cpu *cpu = this_cpu();

	cpu->gdt[SEL_TSS32 / 8] = descriptor((u32)(u64)tss32, sizeof(tss32) - 1, 0x89, 0);
	legacy_run(l);
	struct table_ptr idtr = {sizeof(idt) - 1, (u64)idt};

	asm volatile("lidt %0" ::"m"(idtr) : "memory");
	set_tss_descriptor(cpu);
	asm volatile("ltr %w0" ::"r"(SEL_TSS) : "memory");
}

/* Levels 3 to 1 of PAE: a PDPT of four entries without rights of their own (table 4-8). */
static void make_pae(struct tables *t, struct page *small, struct page *large)
{
	u64 *pdpt = alloc_pages(1), *pd = alloc_pages(4), *pt = alloc_pages(1);

	t->pae = true;
	t->cr3 = (u32)(u64)pdpt;
	for (u32 i = 0; i < 3; i++)
		pdpt[i] = ((u64)pd + i * PAGE_SIZE) | PTE_P;
	for (u64 i = 0; i < 512; i++) {
		pd[i] = i << 21 | PTE_PS | PTE_P | PTE_W;
		pd[512 + i] = i << 21 | PTE_PS | PTE_P | PTE_W | PTE_U;
	}
	*small = (struct page){
		.t = t,
		.va = TEST_LOW + 0x57000,
		.leaf = 1,
		.entry = {0, &pt[0x57], &pd[1024]},
		.good = {0, (u64)target | PTE_P | PTE_W | PTE_U, (u64)pt | PTE_P | PTE_W | PTE_U},
		/* Bits 62:52 are reserved here, unlike in long mode (tables 4-9 to 4-11). */
		.rsvd = {0, BIT(62), BIT(52)},
	};
	*large = (struct page){
		.t = t,
		.va = TEST_LOW + 0x200000,
		.leaf = 2,
		.entry = {0, 0, &pd[1025]},
		.good = {0, 0, (u64)target | PTE_P | PTE_W | PTE_U | PTE_PS},
		.rsvd = {0, 0, BIT(14)},
	};
}

static void make_32(struct tables *t, struct page *small, struct page *large)
{
	u32 *pd = alloc_pages(1), *pt = alloc_pages(1);

	t->pae = false;
	t->cr3 = (u32)(u64)pd;
	for (u32 i = 0; i < 256; i++) {
		pd[i] = (u32)(i << 22 | PTE_PS | PTE_P | PTE_W);
		pd[256 + i] = (u32)(i << 22 | PTE_PS | PTE_P | PTE_W | PTE_U);
	}
	*small = (struct page){
		.t = t,
		.va = TEST_LOW + 0x57000,
		.leaf = 1,
		.entry = {0, &pt[0x57], &pd[512]},
		.good = {0, (u64)target | PTE_P | PTE_W | PTE_U, (u64)pt | PTE_P | PTE_W | PTE_U},
	};
	*large = (struct page){
		.t = t,
		.va = TEST_LOW + 0x400000,
		.leaf = 2,
		.entry = {0, 0, &pd[513]},
		.good = {0, 0, (u64)target | PTE_P | PTE_W | PTE_U | PTE_PS},
		/* Bit 21 is reserved with PSE-36 of at most 40 bits, and without (table 4-4). */
		.rsvd = {0, 0, BIT(21)},
	};
}

static struct walk walk_of(const struct page *p)
{
	struct walk w = {0};

	for (int l = 2; l >= p->leaf; l--, w.n++) {
		w.entry[w.n] = get(p, l);
		w.rsvd[w.n] = p->rsvd[l];
	}
	return w;
}

static struct legacy context(const struct tables *t, const struct mode *m, const u8 *code,
			     bool user)
{
	struct legacy l = {
		.cr0 = (u32)(CR0_PE | CR0_NE | BIT(4) | CR0_PG | (m->wp ? CR0_WP : 0)),
		.cr3 = t->cr3,
		.cr4 = (u32)(CR4_PSE | (t->pae ? CR4_PAE : 0) | (m->smep ? CR4_SMEP : 0) |
			     (m->smap ? CR4_SMAP : 0)),
		.efer_nxe = m->nxe,
		.cs = user ? SEL_UCODE32 : SEL_KCODE32,
		.ss = user ? SEL_UDATA : SEL_KDATA,
		.eip = (u32)(u64)(user ? user_alias(code) : code),
		.esp = (u32)(u64)this_cpu() + STACK_USER + (u32)USER_ALIAS,
		.eflags = (u32)(FL_FIXED | (m->ac ? FL_AC : 0)),
	};

	return l;
}

static void check_access(const struct page *p, const struct mode *m, enum access a, bool user)
{
	struct legacy l = context(p->t, m, snippets[a], user);
	const struct walk walk = walk_of(p);
	u64 want = oracle(&walk, m, a, user);
	u32 start = l.eip;

	l.esi = p->va + (a == FETCH ? CODE_OFFSET : DATA_OFFSET);
	run(&l);
	if (want == NO_ERROR) {
		expect("vector", VEC_DONE, l.vector);
		if (p->leaf == 1)
			expect("accessed flag of the PDE", PTE_A, get(p, 2) & PTE_A);
		expect("accessed and dirty flags", PTE_A | (a == WRITE ? PTE_D : 0),
		       get(p, p->leaf) & (PTE_A | PTE_D));
		return;
	}
	expect("vector", PF, l.vector);
	expect("error code", want, l.error);
	expect("CR2", l.esi, l.cr2);
	expect("EIP", a == FETCH ? l.esi : start, l.eip);
	expect("dirty flag after a fault", 0, get(p, p->leaf) & PTE_D);
}

static void all_accesses(const struct page *p, const struct mode *m)
{
	u64 saved[3] = {0, p->leaf == 1 ? get(p, 1) : 0, get(p, 2)};

	for (int a = READ; a <= FETCH; a++) {
		for (int user = 0; user < 2; user++) {
			test_context("%s %s, wp%d nxe%d smep%d smap%d ac%d, PDE %lx PTE %lx",
				     user ? "user" : "supervisor", access_name[a], m->wp, m->nxe,
				     m->smep, m->smap, m->ac, saved[2], saved[1]);
			check_access(p, m, (enum access)a, user);
			for (int l = 2; l >= p->leaf; l--)
				put(p, l, saved[l]);
		}
	}
}

/* defects: which of the defects to combine in the leaf and to try in the PDE. */
static void test_page(const struct page *p, const char *name, u32 from, u32 to)
{
	test_begin(name);
	for (u32 mask = 0; mask < 32; mask++) {
		struct mode m = {mask & 1, mask & 2, mask & 4, mask & 8, mask & 16};

		if (!mode_possible(&m) || (m.nxe && !p->t->pae))
			continue;
		for (u32 d = from; d < to; d++) {
			if ((d & 8) && (!p->t->pae || (from == 0 && !m.nxe)))
				continue; /* no such bit; or a reserved one */
			restore(p);
			put(p, p->leaf, defective(p->good[p->leaf], p->rsvd[p->leaf], d));
			if (!(d & 16) || p->rsvd[p->leaf])
				all_accesses(p, &m);
			if (p->leaf == 2 || (d & (d - 1)) || ((d & 16) && !p->rsvd[2]))
				continue;
			restore(p);
			put(p, 2, defective(p->good[2], p->rsvd[2], d));
			all_accesses(p, &m);
		}
	}
	restore(p);
	test_context(NULL);
	test_end();
}

/* MOV to CR3 loads the PDPTEs and checks them (SDM vol. 3A 4.4.1). */
static void test_pdpte(const struct tables *t)
{
	const struct mode m = {.wp = true};
	u64 *old = (u64 *)(u64)t->cr3, *pdpt = alloc_pages(1);

	test_begin("paging: PAE, reserved bits of a PDPTE are #GP at MOV CR3");
	for (int bit = 1; bit < 64; bit++) {
		bool rsvd = bit <= 2 || (bit >= 5 && bit <= 8) || bit >= (int)phys_bits;
		struct legacy l = context(t, &m, legacy_cr3, false);

		if (bit >= 12 && bit < (int)phys_bits)
			continue;
		for (int present = 0; present < 2; present++) {
			memcpy(pdpt, old, 32);
			pdpt[3] = present ? (u64)alloc_pages(0) | PTE_P | BIT(bit) : BIT(bit);
			l = context(t, &m, legacy_cr3, false);
			l.eax = (u32)(u64)pdpt;
			run(&l);
			test_context("bit %d, present %d", bit, present);
			if (rsvd && present) {
				expect("vector", GP, l.vector);
				expect("error code", 0, l.error);
				expect("EIP", (u32)(u64)legacy_cr3, l.eip);
			} else {
				expect("vector", VEC_DONE, l.vector);
			}
		}
	}
	test_context(NULL);
	test_end();
	test_begin("paging: PAE, PDPTE not present");
	struct legacy l = context(t, &m, legacy_read, true);

	l.esi = 0xc0001230;
	run(&l);
	expect("vector", PF, l.vector);
	expect("error code", PF_U, l.error);
	expect("CR2", 0xc0001230, l.cr2);
	test_end();
}

void test_legacy(void)
{
	static struct tables pae, two;
	static struct page small, large;

	setup();
	make_pae(&pae, &small, &large);
	test_page(&small, "paging: PAE, rights and error codes, 4 KiB page", 0, 16);
	test_page(&large, "paging: PAE, rights and error codes, 2 MiB page", 0, 16);
	test_page(&small, "paging: PAE, reserved bits, 4 KiB page", 8, 32);
	test_page(&large, "paging: PAE, reserved bits, 2 MiB page", 8, 32);
	test_pdpte(&pae);
	make_32(&two, &small, &large);
	test_page(&small, "paging: 32-bit, rights and error codes, 4 KiB page", 0, 16);
	test_page(&large, "paging: 32-bit, rights and error codes, 4 MiB page", 0, 16);
	test_page(&large, "paging: 32-bit, reserved bits, 4 MiB page", 16, 32);
}
