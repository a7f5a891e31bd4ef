/* TLB shootdown, accessed and dirty flags. */
#include "smp.h"

/* ---- TLB shootdown
 * ------------------------------------------------------------------------------------ */

#define SHOOT_VA (TEST_HIGH + 0x800000)
static volatile u32 acks, shoot_stop;
static volatile u64 published;

static void on_shoot(struct frame *f)
{
	(void)f;
	invlpg(SHOOT_VA);
	__atomic_add_fetch(&acks, 1, __ATOMIC_SEQ_CST);
	lapic_eoi();
}

/* Reads through the mapping all the time: after the acknowledgement of the flush no old value may
 * come. */
static void shoot_reader(void *arg)
{
	u32 me = this_cpu()->index;

	(void)arg;
	irq_enable();
	while (!shoot_stop) {
		u64 low = published, v;

		v = *(volatile u64 *)SHOOT_VA;
		lost[me] += v < low;
		counters[me]++;
	}
	irq_disable();
}

static void test_flush(void)
{
	u64 *page[2] = {alloc_pages(1), alloc_pages(1)}, *pte;

	test_begin("smp: TLB shootdown by interrupt");
	irq_handler(0x42, on_shoot);
	pte = map_page(SHOOT_VA, (u64)page[0], PTE_P | PTE_W);
	*page[0] = 0;
	published = 0;
	flush_tlb();
	shoot_stop = 0;
	for (u32 i = 1; i < cpu_count; i++) {
		lost[i] = counters[i] = 0;
		smp_run(i, shoot_reader, NULL);
		while (!counters[i])
			cpu_relax();
	}
	for (u64 n = 1; n <= rounds; n++) {
		*page[n & 1] = n;
		*(volatile u64 *)pte = (u64)page[n & 1] | PTE_P | PTE_W;
		invlpg(SHOOT_VA);
		acks = 0;
		lapic_ipi(0, ICR_FIXED | ICR_ASSERT | ICR_OTHERS | 0x42);
		while (acks != cpu_count - 1)
			cpu_relax();
		published = n;
		/* The page of before is poison from here on: a stale translation reads it. */
		*page[(n & 1) ^ 1] = 0;
	}
	shoot_stop = 1;
	for (u32 i = 1; i < cpu_count; i++) {
		smp_wait(i);
		expect("stale reads", 0, lost[i]);
		expect("has read", true, counters[i] > 0);
	}
	irq_handler(0x42, NULL);
	*pte = 0;
	test_end();
}

/* Accessed and dirty flags of one entry, set by all: none is lost, nothing else changes (4.8:
 * atomically). */
#define PAGES 16

static void touch_pages(void *arg)
{
	u32 me = this_cpu()->index;

	(void)arg;
	for (u32 i = 0; i < PAGES; i++) {
		u64 va = SHOOT_VA + PAGE_SIZE * i;

		barrier();
		invlpg(va);
		if ((me + i) & 1)
			(void)*(volatile u64 *)(va + 8 * me);
		else
			*(volatile u64 *)(va + 8 * me) = i;
	}
}

static void test_accessed_dirty(void)
{
	u64 *pte[PAGES];
	u8 *pages = alloc_pages(PAGES);

	test_begin("smp: accessed and dirty flags set by several processors");
	for (u32 i = 0; i < PAGES; i++)
		pte[i] = map_page(SHOOT_VA + PAGE_SIZE * i, (u64)pages + PAGE_SIZE * i,
				  PTE_P | PTE_W | BIT(9) | BIT(52));
	flush_tlb();
	smp_run_all(touch_pages, NULL);
	for (u32 i = 0; i < PAGES; i++)
		expect("entry",
		       ((u64)pages + PAGE_SIZE * i) | PTE_P | PTE_W | BIT(9) | BIT(52) | PTE_A |
			       PTE_D,
		       *(volatile u64 *)pte[i]);
	test_end();
}

/* The page-table entries are changed by LOCK while the others' processors set A and D in them. */
static volatile u32 cleared;

static void write_page(void *arg)
{
	(void)arg;
	while (!shoot_stop) {
		*(volatile u64 *)SHOOT_VA += 1;
		invlpg(SHOOT_VA);
	}
}

static void test_dirty_race(void)
{
	u64 *pte = entry_of(SHOOT_VA, 1);
	u32 bad = 0;

	test_begin("smp: dirty flag against LOCK of software");
	shoot_stop = 0;
	cleared = 0;
	smp_run(1, write_page, NULL);
	u64 t0 = rdtsc(), limit = 10 * tsc_hz();

	for (u32 i = 0; i < rounds * 20 || (cleared < 2 && rdtsc() - t0 < limit); i++) {
		/* Clear D; software bit 10 toggles in the same word and must survive. */
		u64 v = __atomic_fetch_and(pte, ~PTE_D, __ATOMIC_SEQ_CST);

		cleared += !!(v & PTE_D);
		v = __atomic_xor_fetch(pte, BIT(10), __ATOMIC_SEQ_CST);
		bad += !!(v & BIT(10)) != !(i & 1);
		bad += (v & PTE_ADDR) == 0 || !(v & PTE_P);
	}
	shoot_stop = 1;
	smp_wait(1);
	expect("lost software bits", 0, bad);
	expect("D was set again and again", true, cleared > 1);
	test_end();
}

void test_shootdown(void)
{
	test_flush();
	test_accessed_dirty();
	test_dirty_race();
}
