/*
 * i8254 programmable interval timer with its three channels, and system control port B (61h). A
 * timer exists only for the rising edges of OUT 0, which is IRQ 0.
 */
#include "devices/pc.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "devices/pit_channel.h"

#define PORT61_GATE 0x01

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

/* ---- the interrupt ---- */

static void pit_arm(struct pit *p, uint64_t now)
{
	p->next_edge_ns = pit_channel_next_edge(&p->ch[0], now);
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
	pit_irq(p, pit_channel_out(&p->ch[0], now));
	pit_arm(p, now);
}

static void pit_timer(void *opaque)
{
	struct pit *p = opaque;
	uint64_t now;

	pthread_mutex_lock(&p->lock);
	now = pit_now(p);
	if (p->next_edge_ns && now >= p->next_edge_ns) {
		/* Edges that nobody ran the timer for are one interrupt. */
		pit_irq(p, false);
		pit_irq(p, true);
		pit_arm(p, now);
	} else if (p->next_edge_ns) {
		p->timers.set(p->timer, p->next_edge_ns);
	}
	pthread_mutex_unlock(&p->lock);
}

/* ---- registers ---- */

/* Read-back command: latches the count and the status of any channels. */
static void pit_read_back(struct pit *p, uint8_t value, uint64_t now)
{
	for (unsigned i = 0; i < 3; i++) {
		if (!(value & 2u << i))
			continue;
		if (!(value & 0x20))
			pit_channel_latch_count(&p->ch[i], now);
		if (!(value & 0x10))
			pit_channel_latch_status(&p->ch[i], now);
	}
}

static void pit_write_port(struct pit *p, unsigned port, uint8_t value)
{
	unsigned n = port < 3 ? port : value >> 6;
	uint64_t now = pit_now(p);

	if (n == 3) {
		pit_read_back(p, value, now);
		return;
	}
	if (port < 3) {
		pit_channel_write(&p->ch[n], value, now);
	} else if (value & 0x30) {
		pit_channel_control(&p->ch[n], value, now);
	} else {
		pit_channel_latch_count(&p->ch[n], now);
		return;
	}
	if (n == 0)
		pit_channel0_changed(p, now);
}

static uint64_t pit_read(void *opaque, unsigned vcpu, uint64_t off, unsigned size)
{
	struct pit *p = opaque;
	uint64_t value = 0;

	(void)vcpu;
	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < size; i++) {
		uint8_t byte = off + i < 3 ? pit_channel_read(&p->ch[off + i], pit_now(p)) : 0;

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
	for (unsigned i = 0; i < size; i++)
		pit_write_port(p, (unsigned)off + i, (uint8_t)(value >> (8 * i)));
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
	value = p->port61 | (now / 15085 & 1) << 4 | (uint64_t)pit_channel_out(&p->ch[2], now) << 5;
	pthread_mutex_unlock(&p->lock);
	return value;
}

static void port61_write(void *opaque, unsigned vcpu, uint64_t off, unsigned size, uint64_t value)
{
	struct pit *p = opaque;

	(void)vcpu, (void)off, (void)size;
	pthread_mutex_lock(&p->lock);
	p->port61 = value & 0x0f;
	pit_channel_set_gate(&p->ch[2], value & PORT61_GATE, pit_now(p));
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
		pit_channel_reset(&p->ch[i], i != 2, now);
	p->port61 = 0;
	p->next_edge_ns = 0;
	p->timers.set(p->timer, 0);
	pit_irq(p, false);
	pthread_mutex_unlock(&p->lock);
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

static const struct field pit_fields[] = {
	FIELD_SUBS(struct pit, ch, &pit_channel_state, 1),
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
	p->dev = (struct device){.name = "pit", .ops = &pit_ops, .state = &pit_state};
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
