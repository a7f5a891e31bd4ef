/*
 * The world of a device under test: a clock that a test turns by hand, timers on it, wires that
 * count, a memory back end, processors that note what happens to them.
 */
#ifndef TESTS_UNIT_DEV_UTIL_H
#define TESTS_UNIT_DEV_UTIL_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices/pc.h"
#include "devices/util.h"

/* ---- checks ------------------------------------------------------------------------------------
 */

static unsigned dev_checks, dev_failures;

#define CHECK(cond)                                                                                \
	do {                                                                                       \
		dev_checks++;                                                                      \
		if (!(cond)) {                                                                     \
			dev_failures++;                                                            \
			printf("%s:%d: %s\n", __FILE__, __LINE__, #cond);                          \
		}                                                                                  \
	} while (0)

#define CHECK_EQ(got, want)                                                                        \
	do {                                                                                       \
		unsigned long long got_ = (unsigned long long)(got);                               \
		unsigned long long want_ = (unsigned long long)(want);                             \
                                                                                                   \
		dev_checks++;                                                                      \
		if (got_ != want_) {                                                               \
			dev_failures++;                                                            \
			printf("%s:%d: %s is 0x%llx, expected 0x%llx\n", __FILE__, __LINE__, #got, \
			       got_, want_);                                                       \
		}                                                                                  \
	} while (0)

static inline int dev_result(const char *what)
{
	printf("%s: %u checks, %u failed\n", what, dev_checks, dev_failures);
	return dev_failures != 0;
}

/* ---- a generator whose every run is the same ---- */

static inline uint64_t dev_random(uint64_t *seed)
{
	uint64_t z = *seed += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

/* ---- clock and timers ---- */

#define DEV_TIMERS 64

struct vtimer {
	void (*fn)(void *arg);
	void *arg;
	uint64_t deadline;
	bool used;
};

struct dev_world {
	uint64_t now;
	int64_t wall;
	struct vtimer timer[DEV_TIMERS];
	struct clock_source clock;
	struct timer_source timers;
	struct io_space ports, mmio;
};

static inline uint64_t dev_now(void *opaque)
{
	return ((struct dev_world *)opaque)->now;
}

/* Wall-clock time runs along with the guest's. */
static inline int64_t dev_wall(void *opaque)
{
	struct dev_world *w = opaque;

	return w->wall + (int64_t)(w->now / NS_PER_S);
}

static inline struct vtimer *dev_timer_create(void *opaque, void (*fn)(void *arg), void *arg,
					      const char *name)
{
	struct dev_world *w = opaque;

	(void)name;
	for (unsigned i = 0; i < DEV_TIMERS; i++) {
		if (w->timer[i].used)
			continue;
		w->timer[i] = (struct vtimer){.fn = fn, .arg = arg, .used = true};
		return &w->timer[i];
	}
	return NULL;
}

static inline void dev_timer_set(struct vtimer *timer, uint64_t deadline)
{
	timer->deadline = deadline;
}

static inline void dev_timer_destroy(struct vtimer *timer)
{
	*timer = (struct vtimer){0};
}

/* The earliest armed deadline, 0: none. */
static inline uint64_t dev_next_deadline(const struct dev_world *w)
{
	uint64_t next = 0;

	for (unsigned i = 0; i < DEV_TIMERS; i++)
		if (w->timer[i].deadline && (!next || w->timer[i].deadline < next))
			next = w->timer[i].deadline;
	return next;
}

/* Turns the clock, stopping at each timer. Returns the number of timers that ran. */
static inline unsigned dev_advance_to(struct dev_world *w, uint64_t until)
{
	unsigned fired = 0;
	uint64_t next;

	while ((next = dev_next_deadline(w)) && next <= until && fired < 100000) {
		if (next > w->now)
			w->now = next;
		for (unsigned i = 0; i < DEV_TIMERS; i++) {
			struct vtimer *t = &w->timer[i];

			if (!t->deadline || t->deadline > w->now)
				continue;
			t->deadline = 0;
			t->fn(t->arg);
			fired++;
		}
	}
	if (until > w->now)
		w->now = until;
	return fired;
}

static inline unsigned dev_advance(struct dev_world *w, uint64_t ns)
{
	return dev_advance_to(w, w->now + ns);
}

static inline void dev_world_init(struct dev_world *w)
{
	*w = (struct dev_world){.now = 1000, .wall = 1700000000};
	w->clock = (struct clock_source){dev_now, dev_wall, w};
	w->timers = (struct timer_source){dev_timer_create, dev_timer_set, dev_timer_destroy, w};
}

static inline void dev_world_free(struct dev_world *w)
{
	io_space_free(&w->ports);
	io_space_free(&w->mmio);
}

static inline uint8_t dev_in(struct dev_world *w, uint16_t port)
{
	return (uint8_t)io_space_read(&w->ports, 0, port, 1);
}

static inline void dev_out(struct dev_world *w, uint16_t port, unsigned value)
{
	io_space_write(&w->ports, 0, port, 1, value);
}

/* ---- wires ---- */

struct dev_wire {
	bool level;
	unsigned rises, sets;
};

static inline void dev_wire_set(void *opaque, unsigned n, bool level)
{
	struct dev_wire *w = opaque;

	w += n;
	w->rises += level && !w->level;
	w->level = level;
	w->sets++;
}

static inline struct irq_line dev_wire_line(struct dev_wire *wires, unsigned n)
{
	return (struct irq_line){.set = dev_wire_set, .opaque = wires, .n = n};
}

/* ---- machine events ---- */

struct dev_events {
	unsigned count[4];
	uint32_t code;
};

static inline void dev_event(void *opaque, enum machine_event event, uint32_t code)
{
	struct dev_events *e = opaque;

	e->count[event]++;
	e->code = code;
}

/* ---- a byte stream in memory ---- */

struct dev_chardev {
	struct chardev chr;
	struct chardev_client client;
	uint8_t out[1 << 17];
	size_t out_len;
	size_t room; /* bytes that the reader still takes */
	unsigned kicks, writes;
};

static inline void dev_chr_attach(struct chardev *chr, const struct chardev_client *client)
{
	((struct dev_chardev *)chr->opaque)->client = *client;
}

static inline size_t dev_chr_write(struct chardev *chr, const uint8_t *data, size_t len)
{
	struct dev_chardev *c = chr->opaque;
	size_t n = len < c->room ? len : c->room;

	if (n > sizeof(c->out) - c->out_len)
		n = sizeof(c->out) - c->out_len;
	if (n)
		memcpy(c->out + c->out_len, data, n);
	c->out_len += n;
	c->room -= n;
	c->writes++;
	return n;
}

static inline void dev_chr_kick(struct chardev *chr)
{
	((struct dev_chardev *)chr->opaque)->kicks++;
}

static inline void dev_chardev_init(struct dev_chardev *c)
{
	static const struct chardev_ops ops = {dev_chr_attach, dev_chr_write, dev_chr_kick};

	*c = (struct dev_chardev){.chr = {&ops, c}, .room = SIZE_MAX};
}

/* What a back end does with bytes from outside: as many as fit. */
static inline size_t dev_chardev_feed(struct dev_chardev *c, const void *data, size_t len)
{
	size_t n = c->client.can_receive(c->client.opaque);

	if (n > len)
		n = len;
	if (n)
		c->client.receive(c->client.opaque, data, n);
	return n;
}

/* ---- processors ---- */

#define DEV_CPUS 40

struct dev_cpus {
	struct {
		bool intr;
		unsigned changes, repeats, nmi, init, sipi;
		uint8_t sipi_vector;
	} cpu[DEV_CPUS];
	struct dev_world *world;
	uint64_t tsc_offset; /* of all of them */
};

static inline void dev_cpu_intr(void *opaque, unsigned vcpu, bool level)
{
	struct dev_cpus *c = opaque;

	if (c->cpu[vcpu].intr == level)
		c->cpu[vcpu].repeats++;
	c->cpu[vcpu].intr = level;
	c->cpu[vcpu].changes++;
}

static inline void dev_cpu_nmi(void *opaque, unsigned vcpu)
{
	((struct dev_cpus *)opaque)->cpu[vcpu].nmi++;
}

static inline void dev_cpu_init(void *opaque, unsigned vcpu)
{
	((struct dev_cpus *)opaque)->cpu[vcpu].init++;
}

static inline void dev_cpu_sipi(void *opaque, unsigned vcpu, uint8_t vector)
{
	struct dev_cpus *c = opaque;

	c->cpu[vcpu].sipi++;
	c->cpu[vcpu].sipi_vector = vector;
}

/* A TSC of 2 GHz. */
static inline uint64_t dev_tsc_read(void *opaque, unsigned vcpu)
{
	struct dev_cpus *c = opaque;

	(void)vcpu;
	return c->world->now * 2 + c->tsc_offset;
}

static inline uint64_t dev_tsc_deadline(void *opaque, unsigned vcpu, uint64_t tsc)
{
	struct dev_cpus *c = opaque;

	(void)vcpu;
	return tsc < c->tsc_offset ? 0 : (tsc - c->tsc_offset + 1) / 2;
}

/* ---- saved state ---- */

static inline int64_t dev_load(struct device *dev, const struct field_buf *buf)
{
	char err[256];
	int64_t ret = field_load(dev->state, dev, buf->data, buf->len, err, sizeof(err));

	if (ret < 0 && getenv("VERBOSE"))
		printf("  refused: %s\n", err);
	return ret;
}

/* Saves `from`, loads it into `to`, which must save to the same bytes. */
static inline void dev_move(struct device *from, struct device *to)
{
	struct field_buf a = {0}, b = {0};

	CHECK_EQ(field_save(from->state, from, &a), 0);
	CHECK_EQ(dev_load(to, &a), a.len);
	CHECK_EQ(field_save(to->state, to, &b), 0);
	CHECK(a.len == b.len && !memcmp(a.data, b.data, a.len));
	field_buf_free(&a);
	field_buf_free(&b);
}

/* Damages the state of `from` in many ways and loads it into `to`: refused, or harmless when poked.
 * Sanitizers are the judge of harmless; returns how many were refused. */
static inline unsigned dev_corrupt(struct device *from, struct device *to, unsigned rounds,
				   void (*poke)(void *opaque, uint64_t *seed), void *opaque)
{
	struct field_buf good = {0}, bad = {0};
	unsigned refused = 0;
	uint64_t seed = 42;

	CHECK_EQ(field_save(from->state, from, &good), 0);
	bad.data = malloc(good.len);
	for (unsigned i = 0; i < rounds && bad.data; i++) {
		bad.len = good.len;
		memcpy(bad.data, good.data, good.len);
		for (uint64_t n = dev_random(&seed) % 4 + 1; n; n--)
			bad.data[dev_random(&seed) % good.len] = (uint8_t)dev_random(&seed);
		if (dev_load(to, &bad) < 0)
			refused++;
		poke(opaque, &seed);
		to->ops->reset(to);
	}
	for (bad.len = 0; bad.len < good.len; bad.len++)
		CHECK(dev_load(to, &bad) < 0); /* every truncation is refused */
	to->ops->reset(to);
	CHECK_EQ(dev_load(to, &good), good.len);
	field_buf_free(&good);
	field_buf_free(&bad);
	return refused;
}

/* Random accesses of every width to a range of ports or MMIO. */
static inline void dev_poke(struct io_space *space, uint64_t base, unsigned size,
			    unsigned max_width, uint64_t *seed, unsigned rounds)
{
	for (unsigned i = 0; i < rounds; i++) {
		uint64_t r = dev_random(seed), addr = base + (r >> 8) % size;
		unsigned width = 1u << (r >> 4 & 3);

		if (width > max_width)
			continue;
		if (r & 1)
			io_space_write(space, 0, addr, width, dev_random(seed));
		else
			io_space_read(space, 0, addr, width);
	}
}

#endif
