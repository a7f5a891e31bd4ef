/*
 * What devices write into memory: sectors of a disk whose contents follow from their numbers,
 * random numbers, packets. Each lies in the middle of a page of which the processor writes the
 * rest, and is looked at when it comes and again some passes later: by then only the device has
 * written it.
 */
#include "virtio.h"

/* vmm/board/pc.h */
enum { SLOT_RNG = 1, SLOT_DISK = 8, SLOT_CARD = 24 };
enum { FRESH = 4 /* times, until the rest is written again */ };
enum { PAGES = 96, PIECE = 2048, AT = 1024, SECTOR = 512, BATCH = 12 };
#define ODD 0x9e3779b97f4a7c15ull

/* A page that a device writes to: what must be in the middle, and around it. */
struct place {
	u8 byte[PAGE_SIZE];
} __attribute__((aligned(4096)));
struct known {
	u64 sum, around;
	u32 len; /* 0: nothing yet */
	u32 times;
};
struct store {
	const char *name;
	struct place *place;
	struct known *known;
	u32 next, count;
};

static struct place disk_place[PAGES], rng_place[PAGES], net_place[VQ_MAX];
static struct known disk_known[PAGES], rng_known[PAGES], net_known[VQ_MAX];
static struct store disk_store = {"disk", disk_place, disk_known, 0, 0},
		    rng_store = {"rng", rng_place, rng_known, 0, 0},
		    net_store = {"card", net_place, net_known, 0, 0};
static volatile struct vq_rings rings[4];
static struct vq disk, rng, rx, tx;
static struct vdev disk_dev, rng_dev, card;
static bool has_disk, has_rng, has_card;
static u64 sectors;

static struct {
	u32 type, reserved;
	u64 sector;
} header[BATCH];
static volatile u8 status[BATCH];

static u64 sum_of(const u8 *data, u32 len)
{
	u64 sum = len;

	for (u32 i = 0; i < len; i++)
		sum = (sum ^ data[i]) * ODD + 1;
	return sum;
}

static void check(struct store *s, u32 n)
{
	const struct known *k = &s->known[n];
	const u8 *byte = s->place[n].byte;

	if (!k->len)
		return;
	if (sum_of(byte + AT, k->len) != k->sum)
		wrong("%u bytes of the %s in page %u are others now", k->len, s->name, n);
	for (u32 i = 0; i < PAGE_SIZE / 8; i++) {
		const bool inside = i >= AT / 8 && i < (AT + PIECE) / 8;

		if (!inside && ((const volatile u64 *)byte)[i] != k->around + i)
			wrong("word %u beside the bytes of the %s in page %u", i, s->name, n);
	}
}

/* The device may write to it: what was there before has been right. */
static void prepare(struct store *s, u32 n)
{
	struct known *k = &s->known[n];
	volatile u64 *word = (volatile u64 *)s->place[n].byte;

	check(s, n);
	k->len = 0;
	if (k->times++ % FRESH)
		return;
	k->around = mix(k->around + n + ODD);
	for (u32 i = 0; i < PAGE_SIZE / 8; i++)
		if (i < AT / 8 || i >= (AT + PIECE) / 8)
			word[i] = k->around + i;
}

static void written(struct store *s, u32 n, u32 len)
{
	if (!len || len > PIECE)
		wrong("the %s has written %u bytes", s->name, len);
	s->known[n].len = len;
	s->known[n].sum = sum_of(s->place[n].byte + AT, len);
	s->count++;
}

/* ---- disk ---- */

static u64 sector_word(u64 sector, u32 i)
{
	return (sector * (SECTOR / 8) + i) * ODD + 1;
}

static void disk_pass(void)
{
	u32 first = disk_store.next, len;

	for (u32 i = 0; i < BATCH; i++) {
		const u32 n = (first + i) % PAGES;

		prepare(&disk_store, n);
		header[i].sector = mix(disk_known[n].around + disk_known[n].times) %
				   (sectors - PIECE / SECTOR);
		status[i] = 0xff;
		vq_describe(&disk, 3 * i, &header[i], 16, DESC_NEXT);
		vq_describe(&disk, 3 * i + 1, disk_place[n].byte + AT, PIECE,
			    DESC_NEXT | DESC_WRITE);
		vq_describe(&disk, 3 * i + 2, &status[i], 1, DESC_WRITE);
		vq_add(&disk, 3 * i);
	}
	vq_kick(&disk);
	for (u32 i = 0; i < BATCH; i++) {
		const u32 which = vq_wait(&disk, &len, "disk") / 3, n = (first + which) % PAGES;
		const u64 *word = (const u64 *)(disk_place[n].byte + AT);

		if (which >= BATCH || status[which] || len != PIECE + 1)
			wrong("request %u of the disk: status %u, %u bytes", which, status[which],
			      len);
		for (u32 w = 0; w < PIECE / 8; w++)
			if (word[w] != sector_word(header[which].sector, w))
				wrong("word %u from sector %lu on is 0x%lx", w,
				      header[which].sector, word[w]);
		written(&disk_store, n, PIECE);
	}
	disk_store.next = (first + BATCH) % PAGES;
}

/* ---- random numbers ---- */

static void rng_pass(void)
{
	for (u32 i = 0; i < BATCH; i++) {
		const u32 n = rng_store.next++ % PAGES;
		u32 len;

		prepare(&rng_store, n);
		vq_describe(&rng, 0, rng_place[n].byte + AT, PIECE / 2, DESC_WRITE);
		vq_add(&rng, 0);
		vq_kick(&rng);
		vq_wait(&rng, &len, "rng");
		written(&rng_store, n, len);
	}
}

/* ---- packets: who has 10.0.2.2? ---- */

enum { HELD = VQ_MAX / 2, VIRTIO_HEADER = 12 };
static u32 held[VQ_MAX], held_first, held_last;
static u8 question[VIRTIO_HEADER + 60] = {[VIRTIO_HEADER] = 0xff,
					  0xff,
					  0xff,
					  0xff,
					  0xff,
					  0xff,
					  0x52,
					  0x54,
					  0,
					  0x12,
					  0x34,
					  0x56,
					  8,
					  6,
					  0,
					  1,
					  8,
					  0,
					  6,
					  4,
					  0,
					  1,
					  0x52,
					  0x54,
					  0,
					  0x12,
					  0x34,
					  0x56,
					  10,
					  0,
					  2,
					  15,
					  0,
					  0,
					  0,
					  0,
					  0,
					  0,
					  10,
					  0,
					  2,
					  2};

static void post(u32 n)
{
	prepare(&net_store, n);
	vq_describe(&rx, n, net_place[n].byte + AT, PIECE, DESC_WRITE);
	vq_add(&rx, n);
}

/* An answer may be lost when the host's side changes: nobody waits for one. */
static void card_pass(void)
{
	u32 n, len;

	while (vq_done(&rx, &n, &len)) {
		written(&net_store, n, len);
		held[held_last++ % VQ_MAX] = n;
	}
	for (; held_last - held_first > HELD; held_first++)
		post(held[held_first % VQ_MAX]);
	vq_kick(&rx);
	for (u32 i = held_first; i != held_last; i++)
		check(&net_store, held[i % VQ_MAX]);
	if (tx.added != tx.seen && !vq_done(&tx, &n, &len))
		return;
	vq_describe(&tx, 0, question, sizeof(question), 0);
	vq_add(&tx, 0);
	vq_kick(&tx);
}

/* ---- all of them ---- */

void devices_init(void)
{
	if (!argument("devices", 0))
		return;
	has_disk = virtio_find(&disk_dev, SLOT_DISK);
	has_rng = virtio_find(&rng_dev, SLOT_RNG);
	has_card = virtio_find(&card, SLOT_CARD);
	if (has_disk) {
		sectors = *(volatile u32 *)disk_dev.device;
		virtio_queue(&disk_dev, &disk, 0, &rings[0]);
		virtio_run(&disk_dev);
	}
	if (has_rng) {
		virtio_queue(&rng_dev, &rng, 0, &rings[1]);
		virtio_run(&rng_dev);
	}
	if (has_card) {
		virtio_queue(&card, &rx, 0, &rings[2]);
		virtio_queue(&card, &tx, 1, &rings[3]);
		virtio_run(&card);
		for (u32 n = 0; n < rx.size; n++)
			post(n);
	}
}

void devices_pass(void)
{
	if (has_disk)
		disk_pass();
	if (has_rng)
		rng_pass();
	if (has_card)
		card_pass();
}

void devices_say(char *text, size_t size)
{
	*text = '\0';
	if (!has_disk && !has_rng && !has_card)
		return;
	snprintf(text, size, " disk %u rng %u net %u", disk_store.count, rng_store.count,
		 net_store.count);
}
