/*
 * Memory balloon: virtio 1.2, 5.5, with statistics and free page reporting.
 *
 * The guest gives pages up for good (until it takes them back) through the inflate queue, as many
 * as it is asked for, and tells of pages that are free just now through the reporting queue. Both
 * go back to the host. Nothing has to be done when it takes one back: the first touch brings a zero
 * page. Where the host cannot take them nothing is lost but memory. A page that is still on its way
 * here (post-copy) need not come any more.
 */
#include "devices/virtio/devices.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/util.h"

enum { QUEUES = 5, QUEUE_SIZE = 128, CONFIG_SIZE = 16, PAGE_SHIFT = 12 };
/* 5.5.3 */
#define F_STATS_VQ	 (1ULL << 1)
#define F_DEFLATE_ON_OOM (1ULL << 2)
#define F_PAGE_POISON	 (1ULL << 4)
#define F_REPORTING	 (1ULL << 5)
/* 5.5.4 */
enum { C_NUM_PAGES = 0, C_ACTUAL = 4, C_POISON = 12 };
/* Page numbers that are looked at at once. */
enum { PFNS = 256 };
/* What a turn gives back at most: then the loop has its own. Each request may wait for all vCPUs,
 * which may wait for a processor of a busy host. */
enum { TURN_REQUESTS = 8 };
#define TURN_BYTES (1ULL << 30)

struct balloon {
	struct virtio v;
	struct virtio_balloon_config config;
	struct virtq_chain chain;

	/* Under the lock. */
	uint32_t num_pages, actual, poison;
	bool ask; /* for statistics */
	struct virtio_balloon_stats stats;

	/* The loop's thread's. */
	uint32_t told;		     /* `actual` as `changed` was told */
	uint64_t inflated, reported; /* bytes, for people */
};

const char *const virtio_balloon_stat_names[BALLOON_STATS] = {
	"swap-in",	"swap-out",	    "major-faults", "minor-faults", "free-memory",
	"total-memory", "available-memory", "disk-caches",  "htlb-pgalloc", "htlb-pgfail",
};

/* ---- giving memory back ---- */

static bool discard(struct balloon *b, const struct gpa_range *range, unsigned n, uint64_t *bytes)
{
	const int ret = n ? b->config.discard(b->config.opaque, range, n) : 0;

	for (unsigned i = 0; !ret && i < n; i++)
		*bytes += range[i].len;
	if (ret != -EFAULT)
		return true;
	virtio_fail(&b->v, "a page outside of memory");
	return false;
}

static int by_number(const void *a, const void *b)
{
	const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* Pages that lie side by side go together. */
static bool inflate_some(struct balloon *b, uint32_t *pfn, unsigned count)
{
	struct gpa_range range[PFNS];
	unsigned n = 0;

	for (unsigned i = 0; i < count; i++)
		pfn[i] = le32toh(pfn[i]);
	qsort(pfn, count, sizeof(*pfn), by_number);
	for (unsigned i = 1, first = 0; i <= count; i++) {
		if (i < count && pfn[i] - pfn[i - 1] <= 1)
			continue;
		range[n++] =
			(struct gpa_range){(uint64_t)pfn[first] << PAGE_SHIFT,
					   (uint64_t)(pfn[i - 1] - pfn[first] + 1) << PAGE_SHIFT};
		first = i;
	}
	return discard(b, range, n, &b->inflated);
}

/* True: go on. */
static bool inflate(struct balloon *b)
{
	uint64_t len = b->chain.readable_len & ~3ULL;
	uint32_t pfn[PFNS];

	/* What is beyond is given up, too, and stays where it is: no driver does that. */
	if (len > QUEUE_SIZE * sizeof(pfn))
		len = QUEUE_SIZE * sizeof(pfn);
	for (uint64_t off = 0; off < len; off += sizeof(pfn)) {
		const size_t n = len - off < sizeof(pfn) ? (size_t)(len - off) : sizeof(pfn);

		if (!virtio_read(&b->v, &b->chain, off, pfn, n) ||
		    !inflate_some(b, pfn, (unsigned)(n / sizeof(*pfn))))
			return false;
	}
	return true;
}

static bool report(struct balloon *b)
{
	const struct virtq_seg *seg = b->chain.seg + b->chain.readable;
	struct gpa_range range[PFNS];
	bool poison;

	pthread_mutex_lock(&b->v.lock);
	poison = b->poison;
	pthread_mutex_unlock(&b->v.lock);
	/* 5.5.6.7: what is free must read as the poison afterwards; zeroes are what there is. */
	if (poison)
		return true;
	for (unsigned i = 0, n = 0; i < b->chain.writable; i++) {
		if (seg[i].len)
			range[n++] = (struct gpa_range){seg[i].gpa, seg[i].len};
		if ((n == PFNS || i + 1 == b->chain.writable) &&
		    !discard(b, range, n, &b->reported))
			return false;
		if (n == PFNS)
			n = 0;
	}
	return true;
}

static bool deflate(struct balloon *b)
{
	(void)b;
	return true;
}

/* Each request is done when `serve` has been through it. */
static void serve_queue(struct balloon *b, unsigned n, bool (*serve)(struct balloon *b))
{
	struct virtio *v = &b->v;
	const uint64_t start = b->inflated + b->reported;
	unsigned budget = TURN_REQUESTS;
	bool any = false;

	/* Free pages that are missing are not to be fetched for this. */
	v->queue[n].unread = serve == report;
	for (; budget && b->inflated + b->reported - start < TURN_BYTES; budget--) {
		if (!virtio_pop(v, n, &b->chain)) {
			if (virtio_arm(v, n))
				continue;
			break;
		}
		if (!serve(b) || !virtio_push(v, n, b->chain.head, 0))
			break;
		any = true;
	}
	if (any)
		virtio_signal(v, n);
	if (!budget || b->inflated + b->reported - start >= TURN_BYTES)
		virtio_kick(v, n);
}

/* ---- statistics: 5.5.6.3 ---- */

static void read_stats(struct balloon *b)
{
	struct {
		uint16_t tag;
		uint8_t value[8];
	} __attribute__((packed)) stat[2 * BALLOON_STATS];
	const uint64_t len = b->chain.readable_len;
	const size_t count = len < sizeof(stat) ? (size_t)len / sizeof(*stat) : 2 * BALLOON_STATS;
	struct virtio_balloon_stats stats = {0};

	if (!virtio_read(&b->v, &b->chain, 0, stat, count * sizeof(*stat)))
		return;
	for (size_t i = 0; i < count; i++) {
		const uint16_t tag = le16toh(stat[i].tag);

		if (tag >= BALLOON_STATS)
			continue;
		stats.known |= 1u << tag;
		memcpy(&stats.value[tag], stat[i].value, sizeof(stats.value[tag]));
		stats.value[tag] = le64toh(stats.value[tag]);
	}
	pthread_mutex_lock(&b->v.lock);
	b->stats = stats;
	pthread_mutex_unlock(&b->v.lock);
}

/* The driver's buffer stays with the device, in the ring, until new figures are wanted. */
static void stats_queue(struct balloon *b, unsigned n)
{
	bool ask;

	b->v.queue[n].unread = false;
	if (virtio_pop(&b->v, n, &b->chain)) {
		pthread_mutex_lock(&b->v.lock);
		ask = b->ask;
		b->ask = false;
		pthread_mutex_unlock(&b->v.lock);
		if (!ask) {
			read_stats(b);
			virtq_unpop(&b->v.queue[n]);
			return;
		}
		if (virtio_push(&b->v, n, b->chain.head, 0))
			virtio_signal(&b->v, n);
	}
	if (virtio_arm(&b->v, n))
		virtio_kick(&b->v, n);
}

/* ---- queues ---- */

/* Those that were not negotiated are not counted (5.5.2, as drivers read it); some drivers give the
 * reporting queue its full number. */
static unsigned stats_number(const struct virtio *v)
{
	return virtio_has(v, F_STATS_VQ) ? 2 : QUEUES;
}

static void balloon_queue(struct virtio *v, unsigned n)
{
	struct balloon *b = (struct balloon *)v;
	const uint64_t actual = virtio_balloon_actual(&v->dev);

	if (b->told != actual >> PAGE_SHIFT) {
		b->told = (uint32_t)(actual >> PAGE_SHIFT);
		if (b->config.changed)
			b->config.changed(b->config.opaque, actual);
	}
	if (n == 0)
		serve_queue(b, n, inflate);
	else if (n == 1)
		serve_queue(b, n, deflate);
	else if (n == stats_number(v))
		stats_queue(b, n);
	else if (virtio_has(v, F_REPORTING))
		serve_queue(b, n, report);
}

/* ---- configuration ---- */

static uint32_t config_read(struct virtio *v, unsigned off, unsigned size)
{
	const struct balloon *b = (struct balloon *)v;
	const uint32_t words[CONFIG_SIZE / 4] = {b->num_pages, b->actual, 0, b->poison};
	const uint32_t value = words[off / 4] >> 8 * (off % 4);

	return size == 4 ? value : value & ((1u << 8 * size) - 1);
}

static void config_write(struct virtio *v, unsigned off, unsigned size, uint32_t value)
{
	struct balloon *b = (struct balloon *)v;

	if (size != 4)
		return;
	if (off == C_ACTUAL) {
		b->actual = value;
		virtio_kick(v, 0); /* `changed` is the loop thread's */
	} else if (off == C_POISON && (v->driver_features & F_PAGE_POISON)) {
		b->poison = value;
	}
}

void virtio_balloon_set(struct device *dev, uint64_t bytes)
{
	struct balloon *b = (struct balloon *)dev;
	const uint64_t pages = bytes >> PAGE_SHIFT;

	pthread_mutex_lock(&b->v.lock);
	b->num_pages = pages < UINT32_MAX ? (uint32_t)pages : UINT32_MAX;
	virtio_config_changed(&b->v);
	pthread_mutex_unlock(&b->v.lock);
}

uint64_t virtio_balloon_actual(struct device *dev)
{
	struct balloon *b = (struct balloon *)dev;
	uint64_t pages;

	pthread_mutex_lock(&b->v.lock);
	pages = b->actual;
	pthread_mutex_unlock(&b->v.lock);
	return pages << PAGE_SHIFT;
}

void virtio_balloon_get_stats(struct device *dev, struct virtio_balloon_stats *stats)
{
	struct balloon *b = (struct balloon *)dev;

	pthread_mutex_lock(&b->v.lock);
	*stats = b->stats;
	b->ask = true;
	pthread_mutex_unlock(&b->v.lock);
	virtio_kick(&b->v, 2);
}

static void balloon_inspect(struct virtio *v, const struct inspector *to)
{
	struct balloon *b = (struct balloon *)v;
	struct virtio_balloon_stats stats;
	uint64_t target;

	pthread_mutex_lock(&v->lock);
	target = (uint64_t)b->num_pages << PAGE_SHIFT;
	pthread_mutex_unlock(&v->lock);
	to->counter(to->opaque, "target-bytes", target);
	to->counter(to->opaque, "actual-bytes", virtio_balloon_actual(&v->dev));
	to->counter(to->opaque, "inflated-bytes", b->inflated);
	to->counter(to->opaque, "reported-bytes", b->reported);
	virtio_balloon_get_stats(&v->dev, &stats);
	for (unsigned i = 0; i < BALLOON_STATS; i++)
		if (stats.known >> i & 1)
			to->counter(to->opaque, virtio_balloon_stat_names[i], stats.value[i]);
}

/* ---- life ---- */

static void balloon_reset(struct virtio *v)
{
	struct balloon *b = (struct balloon *)v;

	/* What the driver had given up is its own again. What it shall give up is not its business.
	 */
	b->actual = b->poison = 0;
	b->ask = false;
	b->stats.known = 0;
	virtio_kick(v, 0);
}

static void balloon_destroy(struct device *dev)
{
	virtio_exit((struct virtio *)dev);
	free(dev);
}

int virtio_balloon_create(struct device **out, const struct virtio_config *config,
			  const struct virtio_balloon_config *balloon)
{
	static const struct virtio_ops ops = {.queue = balloon_queue,
					      .config_read = config_read,
					      .config_write = config_write,
					      .reset = balloon_reset,
					      .inspect = balloon_inspect,
					      .destroy = balloon_destroy};
	static const struct field fields[] = {
		FIELD_SCALAR(struct balloon, num_pages, FIELD_U32, 1),
		FIELD_SCALAR(struct balloon, actual, FIELD_U32, 1),
		FIELD_SCALAR(struct balloon, poison, FIELD_U32, 1),
		FIELD_END,
	};
	static const struct state_desc state = {.name = "balloon", .version = 1, .fields = fields};
	static const struct virtio_model model = {.state_name = "virtio-balloon",
						  .id = VIRTIO_BALLOON,
						  .class_code = 0x00ff00,
						  .features = F_STATS_VQ | F_DEFLATE_ON_OOM |
							      F_PAGE_POISON | F_REPORTING,
						  .queues = QUEUES,
						  .queue_size = QUEUE_SIZE,
						  .config_size = CONFIG_SIZE,
						  .ops = &ops,
						  .state = &state,
						  .object_size = sizeof(struct balloon)};
	struct balloon *b = calloc(1, sizeof(*b));
	int ret;

	if (!b)
		return -ENOMEM;
	b->config = *balloon;
	ret = virtio_init(&b->v, &model, config);
	if (ret) {
		free(b);
		return ret;
	}
	*out = &b->v.dev;
	return 0;
}
