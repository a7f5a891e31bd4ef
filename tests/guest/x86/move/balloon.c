/*
 * A balloon. Pages from 16 MiB on (balloon=MiB of them) hold a word that says where and when they
 * were written; those that the host asks for are given up, and must be empty when they come back.
 */
#include "virtio.h"

enum { SLOT_BALLOON = 3, STEP = 256, STEPS = 8, NUM_PAGES = 0, ACTUAL = 4 };
#define FIRST (16ull << 20)
#define ODD   0x9e3779b97f4a7c15ull

static volatile struct vq_rings rings[2];
static struct vq inflate, deflate;
static struct vdev dev;
static u32 pages, given, probes;
static u32 pfn[STEP];
static u64 probe;

static volatile u64 *word(u32 page, u32 i)
{
	return (volatile u64 *)(FIRST + page * PAGE_SIZE) + i;
}

/* The last pages go first. */
static void fill(u32 page)
{
	for (u32 i = 0; i < PAGE_SIZE / 8; i += 64)
		*word(page, i) = ((u64)page << 32 | i) * ODD;
}

void balloon_init(void)
{
	pages = (u32)(argument("balloon", 0) << 20 >> 12);
	if (!pages)
		return;
	if (!virtio_find(&dev, SLOT_BALLOON))
		panic("no balloon");
	probes = (u32)argument("probes", 64);
	virtio_queue(&dev, &inflate, 0, &rings[0]);
	virtio_queue(&dev, &deflate, 1, &rings[1]);
	virtio_run(&dev);
	for (u32 page = 0; page < pages; page++)
		fill(page);
}

static void tell(struct vq *q, u32 first, u32 count)
{
	u32 len;

	for (u32 i = 0; i < count; i++)
		pfn[i] = (u32)(FIRST / PAGE_SIZE) + first + i;
	vq_describe(q, 0, pfn, count * 4, 0);
	vq_add(q, 0);
	vq_kick(q);
	vq_wait(q, &len, "balloon");
}

static u32 step_of(u32 count)
{
	return count < STEP ? count : STEP;
}

static void check_empty(u32 first, u32 count)
{
	for (u32 page = first; page < first + count; page++) {
		for (u32 i = 0; i < PAGE_SIZE / 8; i += 64)
			if (*word(page, i))
				wrong("page %u comes out of the balloon with 0x%lx in word %u",
				      page, *word(page, i), i);
		fill(page);
	}
}

void balloon_pass(void)
{
	u32 want, kept;

	if (!pages)
		return;
	want = *(volatile u32 *)(dev.device + NUM_PAGES);
	want = want < pages ? want : pages;
	for (u32 i = 0; i < STEPS && want > given; i++) {
		const u32 n = step_of(want - given);

		tell(&inflate, pages - given - n, n);
		given += n;
		*(volatile u32 *)(dev.device + ACTUAL) = given;
	}
	for (u32 i = 0; i < STEPS && want < given; i++) {
		const u32 n = step_of(given - want);

		tell(&deflate, pages - given, n);
		given -= n;
		*(volatile u32 *)(dev.device + ACTUAL) = given;
		check_empty(pages - given - n, n);
	}
	kept = pages - given;
	for (u32 i = 0; i < probes && kept; i++) {
		const u32 page = (u32)((probe = mix(probe + ODD)) % kept);

		if (*word(page, 64) != ((u64)page << 32 | 64) * ODD)
			wrong("page %u beside the balloon has 0x%lx", page, *word(page, 64));
	}
}
