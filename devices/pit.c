/*
 * i8254 programmable interval timer (Intel data sheet, order 231164) and system control port B
 * (61h).
 *
 * A channel is not stepped: what its counter holds and what its output shows follows from the clock
 * ticks since it was loaded. A timer exists only for the rising edges of OUT 0, which is IRQ 0.
 */
#include "devices/pc.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "devices/util.h"

#define PIT_HZ	       1193182ULL
#define PIT_MIN_PERIOD 48		/* ticks, 40 us */
#define PIT_TIME_MAX   (UINT64_MAX / 4) /* of ticks and ns: sums of two can't overflow */
#define PORT61_GATE    0x01
#define PORT61_DATA    0x02

/* The bytes of a 16-bit count that are still to come, when reading or writing. */
enum pit_step { STEP_LOW_ONLY = 1, STEP_HIGH_ONLY = 2, STEP_LOW = 3, STEP_HIGH = 4 };

struct pit_channel {
	uint8_t access; /* control word 5:4: 1 low, 2 high, 3 low then high byte */
	uint8_t mode;	/* 0-5 */
	bool bcd, gate;
	bool loaded;	   /* a count was written since the control word */
	bool triggered;	   /* modes 1 and 5: the gate rose since then */
	uint32_t reload;   /* 1-65536 */
	uint64_t start_ns; /* while counting: when the count of `ticks` was reached */
	uint64_t ticks;	   /* elapsed before start_ns */
	uint8_t read_step, write_step, write_low;
	bool count_latched, status_latched;
	uint16_t latch;
	uint8_t status;
};

struct pit {
	struct device dev;
	pthread_mutex_t lock;
	struct io_space *ports;
	struct irq_line irq0;
	struct clock_source clock;
	struct timer_source timers;
	struct vtimer *timer;

	struct pit_channel ch[3];
	uint8_t port61; /* bits 0-3 */
	bool irq_level;
	uint64_t next_edge_ns; /* guest time of the armed timer, 0: none */
};

static uint64_t pit_now(struct pit *p)
{
	return p->clock.now(p->clock.opaque);
}

/* ---- what a channel shows
 * ------------------------------------------------------------------------ */

static bool ch_triggered_mode(const struct pit_channel *c)
{
	return c->mode == 1 || c->mode == 5;
}

/* Modes 1 and 5 count whatever the gate does after the trigger, the others only while it is high.
 */
static bool ch_counting(const struct pit_channel *c)
{
	return c->loaded && (ch_triggered_mode(c) ? c->triggered : c->gate);
}

static uint64_t ch_elapsed(const struct pit_channel *c, uint64_t now)
{
	uint64_t ticks;

	if (!ch_counting(c) || now <= c->start_ns)
		return c->ticks;
	ticks = c->ticks + muldiv(now - c->start_ns, PIT_HZ, NS_PER_S);
	return ticks < PIT_TIME_MAX ? ticks : PIT_TIME_MAX;
}

/* Stops or goes on: ticks so far are kept. */
static void ch_freeze(struct pit_channel *c, uint64_t now)
{
	c->ticks = ch_elapsed(c, now);
	c->start_ns = now;
}

static void ch_restart(struct pit_channel *c, uint64_t now)
{
	c->ticks = 0;
	c->start_ns = now;
}

static bool ch_out(const struct pit_channel *c, uint64_t now)
{
	uint64_t e = ch_elapsed(c, now), n = c->reload;

	if (!c->loaded)
		return c->mode != 0;
	switch (c->mode) {
	case 0: return e >= n;
	case 1: return !c->triggered || e >= n;
	case 2: return !c->gate || e % n != n - 1 || n == 1;
	case 3: return !c->gate || e % n < (n + 1) / 2;
	case 4: return e != n;
	default: return !c->triggered || e != n;
	}
}

static uint16_t ch_to_bcd(unsigned v)
{
	return (uint16_t)(v % 10 | v / 10 % 10 << 4 | v / 100 % 10 << 8 | v / 1000 % 10 << 12);
}

static unsigned ch_from_bcd(unsigned v)
{
	return (v & 15) + (v >> 4 & 15) * 10 + (v >> 8 & 15) * 100 + (v >> 12 & 15) * 1000;
}

static uint16_t ch_count(const struct pit_channel *c, uint64_t now)
{
	uint64_t e = ch_elapsed(c, now), n = c->reload, wrap = c->bcd ? 10000 : 65536, v;

	switch (c->mode) {
	case 2: v = n - e % n; break;
	case 3:
		/* By twos; an odd count loses one (three in the second half) at the reload. */
		v = e % n < (n + 1) / 2 ? (n & ~1ULL) - 2 * (e % n)
					: (n & ~1ULL) - 2 * (e % n - (n + 1) / 2);
		break;
	default: v = (n + wrap - e % wrap) % wrap; break;
	}
	v %= wrap;
	return c->bcd ? ch_to_bcd((unsigned)v) : (uint16_t)v;
}

/* ---- the interrupt
 * ------------------------------------------------------------------------------- */

/* The tick of the next rising edge of OUT after tick e; 0: there is none. */
static uint64_t ch_next_edge(const struct pit_channel *c, uint64_t e)
{
	uint64_t n = c->reload;

	if (!ch_counting(c))
		return 0;
	switch (c->mode) {
	case 0:
	case 1: return e < n ? n : 0;
	case 2:
	case 3:
		if (n < PIT_MIN_PERIOD)
			e += PIT_MIN_PERIOD -
			     n; /* a hostile rate must not keep the event loop busy */
		return (e / n + 1) * n;
	default: return e < n + 1 ? n + 1 : 0;
	}
}

static void pit_arm(struct pit *p, uint64_t now)
{
	struct pit_channel *c = &p->ch[0];
	uint64_t edge = ch_next_edge(c, ch_elapsed(c, now));

	p->next_edge_ns = 0;
	if (edge)
		p->next_edge_ns =
			add_sat(c->start_ns, muldiv_up(edge - c->ticks, NS_PER_S, PIT_HZ));
	p->timers.set(p->timer, p->next_edge_ns);
}

static void pit_irq(struct pit *p, bool level)
{
	p->irq_level = level;
	irq_set(&p->irq0, level);
}

/* After each change of channel 0. The line shows OUT, except that in the periodic modes it stays
 * high between two edges: nobody looks at the low phase, and it would double the timers. */
static void pit_channel0_changed(struct pit *p, uint64_t now)
{
	pit_irq(p, ch_out(&p->ch[0], now));
	pit_arm(p, now);
}

static void pit_timer(void *opaque)
{
	struct pit *p = opaque;
	uint64_t now;

	pthread_mutex_lock(&p->lock);
	now = pit_now(p);
	if (p->next_edge_ns && now >= p->next_edge_ns) {
		/* Edges missed while nobody ran the timer are one interrupt, as on a stopped bus.
		 */
		pit_irq(p, false);
		pit_irq(p, true);
		pit_arm(p, now);
	} else if (p->next_edge_ns) {
		p->timers.set(p->timer, p->next_edge_ns);
	}
	pthread_mutex_unlock(&p->lock);
}

/* ---- registers
 * ------------------------------------------------------------------------------------ */

static uint8_t ch_first_step(const struct pit_channel *c)
{
	return c->access == 1 ? STEP_LOW_ONLY : c->access == 2 ? STEP_HIGH_ONLY : STEP_LOW;
}

static void ch_latch_count(struct pit_channel *c, uint64_t now)
{
	if (c->count_latched)
		return; /* the first one holds until it is read */
	c->latch = ch_count(c, now);
	c->count_latched = true;
}

static void ch_latch_status(struct pit_channel *c, uint64_t now)
{
	if (c->status_latched)
		return;
	c->status = (uint8_t)((ch_out(c, now) ? 0x80 : 0) | (c->loaded ? 0 : 0x40) |
			      c->access << 4 | c->mode << 1 | c->bcd);
	c->status_latched = true;
}

static void ch_set_gate(struct pit_channel *c, bool gate, uint64_t now)
{
	bool rise = gate && !c->gate;

	if (gate == c->gate)
		return;
	ch_freeze(c, now);
	c->gate = gate;
	if (!rise || !c->loaded)
		return;
	if (ch_triggered_mode(c))
		c->triggered = true;
	if (c->mode != 0 && c->mode != 4)
		ch_restart(c, now); /* modes 1, 2, 3 and 5 reload at the rising edge */
}

static void ch_load(struct pit_channel *c, unsigned value, uint64_t now)
{
	unsigned wrap = c->bcd ? 10000 : 65536;

	if (c->bcd)
		value = ch_from_bcd(value) % wrap;
	c->reload = value ? value : wrap;
	/* Mode 1 and 5: a new count waits for the next trigger; one that is running is cut short
	 * here. */
	if (ch_triggered_mode(c))
		c->triggered = false;
	c->loaded = true;
	ch_restart(c, now);
}

static void pit_write_count(struct pit *p, unsigned n, uint8_t value, uint64_t now)
{
	struct pit_channel *c = &p->ch[n];

	switch (c->write_step) {
	case STEP_LOW_ONLY: ch_load(c, value, now); break;
	case STEP_HIGH_ONLY: ch_load(c, (unsigned)value << 8, now); break;
	case STEP_LOW:
		c->write_low = value;
		c->write_step = STEP_HIGH;
		if (c->mode == 0)
			c->loaded = false; /* the first byte stops the count, OUT goes low */
		break;
	default:
		ch_load(c, c->write_low | (unsigned)value << 8, now);
		c->write_step = STEP_LOW;
		break;
	}
	if (n == 0)
		pit_channel0_changed(p, now);
}

static void pit_write_control(struct pit *p, uint8_t value, uint64_t now)
{
	unsigned n = value >> 6;
	struct pit_channel *c;

	if (n == 3) { /* read-back command */
		for (unsigned i = 0; i < 3; i++) {
			if (!(value & 2u << i))
				continue;
			if (!(value & 0x20))
				ch_latch_count(&p->ch[i], now);
			if (!(value & 0x10))
				ch_latch_status(&p->ch[i], now);
		}
		return;
	}
	c = &p->ch[n];
	if (!(value & 0x30)) {
		ch_latch_count(c, now);
		return;
	}
	c->access = value >> 4 & 3;
	c->mode = value >> 1 & 7;
	if (c->mode > 5)
		c->mode &= 3; /* 110b and 111b are 2 and 3 */
	c->bcd = value & 1;
	c->reload = c->bcd ? 10000 : 65536; /* nothing is loaded; but never more than the range */
	c->read_step = c->write_step = ch_first_step(c);
	c->count_latched = c->status_latched = false;
	c->loaded = c->triggered = false;
	ch_restart(c, now);
	if (n == 0)
		pit_channel0_changed(p, now);
}

static uint8_t pit_read_count(struct pit_channel *c, uint64_t now)
{
	uint16_t count;

	if (c->status_latched) {
		c->status_latched = false;
		return c->status;
	}
	count = c->count_latched ? c->latch : ch_count(c, now);
	if (c->read_step == STEP_LOW) {
		c->read_step = STEP_HIGH;
		return (uint8_t)count;
	}
	c->count_latched = false;
	if (c->read_step == STEP_HIGH)
		c->read_step = STEP_LOW;
	return (uint8_t)(c->read_step == STEP_LOW_ONLY ? count : count >> 8);
}

static uint64_t pit_read(void *opaque, unsigned vcpu, uint64_t off, unsigned size)
{
	struct pit *p = opaque;
	uint64_t value = 0;

	(void)vcpu;
	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < size; i++) {
		uint8_t byte = off + i < 3 ? pit_read_count(&p->ch[off + i], pit_now(p)) : 0;

		value |= (uint64_t)byte << (8 * i);
	}
	pthread_mutex_unlock(&p->lock);
	return value;
}

static void pit_write(void *opaque, unsigned vcpu, uint64_t off, unsigned size, uint64_t value)
{
	struct pit *p = opaque;

	(void)vcpu;
	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < size; i++) {
		uint8_t byte = (uint8_t)(value >> (8 * i));

		if (off + i < 3)
			pit_write_count(p, (unsigned)off + i, byte, pit_now(p));
		else
			pit_write_control(p, byte, pit_now(p));
	}
	pthread_mutex_unlock(&p->lock);
}

/* Bit 4 toggles with each memory refresh, about every 15 us; bit 5 is OUT 2. */
static uint64_t port61_read(void *opaque, unsigned vcpu, uint64_t off, unsigned size)
{
	struct pit *p = opaque;
	uint64_t value, now;

	(void)vcpu, (void)off, (void)size;
	pthread_mutex_lock(&p->lock);
	now = pit_now(p);
	value = p->port61 | (now / 15085 & 1) << 4 | (uint64_t)ch_out(&p->ch[2], now) << 5;
	pthread_mutex_unlock(&p->lock);
	return value;
}

static void port61_write(void *opaque, unsigned vcpu, uint64_t off, unsigned size, uint64_t value)
{
	struct pit *p = opaque;

	(void)vcpu, (void)off, (void)size;
	pthread_mutex_lock(&p->lock);
	p->port61 = value & 0x0f;
	ch_set_gate(&p->ch[2], value & PORT61_GATE, pit_now(p));
	pthread_mutex_unlock(&p->lock);
}

/* ---- life --------------------------------------------------------------------------------------
 */

static void pit_reset(struct device *dev)
{
	struct pit *p = (struct pit *)dev;
	uint64_t now = pit_now(p);

	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < 3; i++)
		p->ch[i] = (struct pit_channel){.access = 3,
						.mode = 3,
						.gate = i != 2,
						.reload = 65536,
						.start_ns = now,
						.read_step = STEP_LOW,
						.write_step = STEP_LOW};
	p->port61 = 0;
	p->next_edge_ns = 0;
	p->timers.set(p->timer, 0);
	pit_irq(p, false);
	pthread_mutex_unlock(&p->lock);
}

static int ch_post_load(void *object, const char **why)
{
	struct pit_channel *c = object;

	if (c->access < 1 || c->access > 3 || c->mode > 5)
		*why = "no such access or counting mode";
	else if (c->reload < 1 || c->reload > (c->bcd ? 10000 : 65536))
		*why = "count out of range";
	else if (c->read_step < STEP_LOW_ONLY || c->read_step > STEP_HIGH ||
		 c->write_step < STEP_LOW_ONLY || c->write_step > STEP_HIGH)
		*why = "no such step of an access";
	else if (c->ticks > PIT_TIME_MAX || c->start_ns > PIT_TIME_MAX)
		*why = "a time out of range";
	if (!*why)
		return 0;
	/* A refused machine is thrown away, but until then its timer may run: nothing to divide by
	 * 0. */
	*c = (struct pit_channel){.access = 3, .reload = 65536};
	return -EINVAL;
}

static int pit_post_load(void *object, const char **why)
{
	struct pit *p = object;

	if (p->port61 & ~0x0f || !p->ch[0].gate || !p->ch[1].gate ||
	    p->ch[2].gate != (bool)(p->port61 & PORT61_GATE)) {
		*why = "port 61h and the gates disagree";
		return -EINVAL;
	}
	pthread_mutex_lock(&p->lock);
	irq_set(&p->irq0, p->irq_level);
	p->timers.set(p->timer, p->next_edge_ns);
	pthread_mutex_unlock(&p->lock);
	return 0;
}

static void pit_destroy(struct device *dev)
{
	struct pit *p = (struct pit *)dev;

	io_space_remove(p->ports, 0x40);
	io_space_remove(p->ports, 0x61);
	p->timers.destroy(p->timer);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static const struct io_region_ops pit_io = {pit_read, pit_write};
static const struct io_region_ops port61_io = {port61_read, port61_write};
static const struct device_ops pit_ops = {.reset = pit_reset, .destroy = pit_destroy};

static const struct field ch_fields[] = {
	FIELD_SCALAR(struct pit_channel, access, FIELD_U8, 1),
	FIELD_SCALAR(struct pit_channel, mode, FIELD_U8, 1),
	FIELD_SCALAR(struct pit_channel, bcd, FIELD_BOOL, 1),
	FIELD_SCALAR(struct pit_channel, gate, FIELD_BOOL, 1),
	FIELD_SCALAR(struct pit_channel, loaded, FIELD_BOOL, 1),
	FIELD_SCALAR(struct pit_channel, triggered, FIELD_BOOL, 1),
	FIELD_SCALAR(struct pit_channel, reload, FIELD_U32, 1),
	FIELD_SCALAR(struct pit_channel, start_ns, FIELD_U64, 1),
	FIELD_SCALAR(struct pit_channel, ticks, FIELD_U64, 1),
	FIELD_SCALAR(struct pit_channel, read_step, FIELD_U8, 1),
	FIELD_SCALAR(struct pit_channel, write_step, FIELD_U8, 1),
	FIELD_SCALAR(struct pit_channel, write_low, FIELD_U8, 1),
	FIELD_SCALAR(struct pit_channel, count_latched, FIELD_BOOL, 1),
	FIELD_SCALAR(struct pit_channel, status_latched, FIELD_BOOL, 1),
	FIELD_SCALAR(struct pit_channel, latch, FIELD_U16, 1),
	FIELD_SCALAR(struct pit_channel, status, FIELD_U8, 1),
	FIELD_END,
};
static const struct state_desc ch_state = {
	.name = "i8254-channel", .version = 1, .fields = ch_fields, .post_load = ch_post_load};
static const struct field pit_fields[] = {
	FIELD_SUBS(struct pit, ch, &ch_state, 1),
	FIELD_SCALAR(struct pit, port61, FIELD_U8, 1),
	FIELD_SCALAR(struct pit, irq_level, FIELD_BOOL, 1),
	FIELD_SCALAR(struct pit, next_edge_ns, FIELD_U64, 1),
	FIELD_END,
};
static const struct state_desc pit_state = {
	.name = "pit", .version = 1, .fields = pit_fields, .post_load = pit_post_load};

int pit_create(struct device **out, struct io_space *ports, struct irq_line irq0,
	       const struct clock_source *clock, const struct timer_source *timers)
{
	struct pit *p = calloc(1, sizeof(*p));
	const struct io_region pit = {
		.base = 0x40, .size = 4, .ops = &pit_io, .opaque = p, .name = "pit"};
	const struct io_region port61 = {
		.base = 0x61, .size = 1, .ops = &port61_io, .opaque = p, .name = "port61"};
	int ret;

	if (!p)
		return -ENOMEM;
	p->dev = (struct device){"pit", &pit_ops, &pit_state};
	p->ports = ports;
	p->irq0 = irq0;
	p->clock = *clock;
	p->timers = *timers;
	ret = io_space_add(ports, &pit);
	if (ret)
		goto fail;
	ret = io_space_add(ports, &port61);
	if (ret)
		goto fail_pit;
	p->timer = timers->create(timers->opaque, pit_timer, p, "pit");
	if (!p->timer) {
		ret = -ENOMEM;
		goto fail_port61;
	}
	pthread_mutex_init(&p->lock, NULL);
	pit_reset(&p->dev);
	*out = &p->dev;
	return 0;

fail_port61:
	io_space_remove(ports, 0x61);
fail_pit:
	io_space_remove(ports, 0x40);
fail:
	free(p);
	return ret;
}
