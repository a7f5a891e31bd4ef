#include "devices/pit_channel.h"

#include <errno.h>

#include "devices/util.h"

#define MIN_PERIOD 48		    /* ticks, 40 us */
#define TIME_MAX   (UINT64_MAX / 4) /* of ticks and ns: sums of two can't overflow */

/* The bytes of a 16-bit count that are still to come, when reading or writing. */
enum pit_step { STEP_LOW_ONLY = 1, STEP_HIGH_ONLY = 2, STEP_LOW = 3, STEP_HIGH = 4 };

/* ---- what a channel shows ---- */

static bool triggered_mode(const struct pit_channel *c)
{
	return c->mode == 1 || c->mode == 5;
}

/* Modes 1 and 5 count whatever the gate does after the trigger, the others only while it is high.
 */
static bool counting(const struct pit_channel *c)
{
	return c->loaded && (triggered_mode(c) ? c->triggered : c->gate);
}

static uint64_t elapsed(const struct pit_channel *c, uint64_t now)
{
	uint64_t ticks;

	if (!counting(c) || now <= c->start_ns)
		return c->ticks;
	ticks = c->ticks + muldiv(now - c->start_ns, PIT_HZ, NS_PER_S);
	return ticks < TIME_MAX ? ticks : TIME_MAX;
}

/* Stops or goes on: ticks so far are kept. */
static void freeze(struct pit_channel *c, uint64_t now)
{
	c->ticks = elapsed(c, now);
	c->start_ns = now;
}

static void restart(struct pit_channel *c, uint64_t now)
{
	c->ticks = 0;
	c->start_ns = now;
}

bool pit_channel_out(const struct pit_channel *c, uint64_t now)
{
	uint64_t e = elapsed(c, now), n = c->reload;

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

static uint16_t to_bcd(unsigned v)
{
	return (uint16_t)(v % 10 | v / 10 % 10 << 4 | v / 100 % 10 << 8 | v / 1000 % 10 << 12);
}

static unsigned from_bcd(unsigned v)
{
	return (v & 15) + (v >> 4 & 15) * 10 + (v >> 8 & 15) * 100 + (v >> 12 & 15) * 1000;
}

static uint16_t pit_channel_count(const struct pit_channel *c, uint64_t now)
{
	uint64_t e = elapsed(c, now), n = c->reload, wrap = c->bcd ? 10000 : 65536, v;

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
	return c->bcd ? to_bcd((unsigned)v) : (uint16_t)v;
}

/* The tick of the next rising edge of OUT after tick e; 0: there is none. */
static uint64_t next_edge(const struct pit_channel *c, uint64_t e)
{
	uint64_t n = c->reload;

	if (!counting(c))
		return 0;
	switch (c->mode) {
	case 0:
	case 1: return e < n ? n : 0;
	case 2:
	case 3:
		if (n < MIN_PERIOD)
			e += MIN_PERIOD - n;
		return (e / n + 1) * n;
	default: return e < n + 1 ? n + 1 : 0;
	}
}

uint64_t pit_channel_next_edge(const struct pit_channel *c, uint64_t now)
{
	uint64_t edge = next_edge(c, elapsed(c, now));

	if (!edge)
		return 0;
	return add_sat(c->start_ns, muldiv_up(edge - c->ticks, NS_PER_S, PIT_HZ));
}

/* ---- registers ---- */

static uint8_t first_step(const struct pit_channel *c)
{
	return c->access == 1 ? STEP_LOW_ONLY : c->access == 2 ? STEP_HIGH_ONLY : STEP_LOW;
}

void pit_channel_latch_count(struct pit_channel *c, uint64_t now)
{
	if (c->count_latched)
		return; /* the first one holds until it is read */
	c->latch = pit_channel_count(c, now);
	c->count_latched = true;
}

void pit_channel_latch_status(struct pit_channel *c, uint64_t now)
{
	if (c->status_latched)
		return;
	c->status = (uint8_t)((pit_channel_out(c, now) ? 0x80 : 0) | (c->loaded ? 0 : 0x40) |
			      c->access << 4 | c->mode << 1 | c->bcd);
	c->status_latched = true;
}

void pit_channel_set_gate(struct pit_channel *c, bool gate, uint64_t now)
{
	bool rise = gate && !c->gate;

	if (gate == c->gate)
		return;
	freeze(c, now);
	c->gate = gate;
	if (!rise || !c->loaded)
		return;
	if (triggered_mode(c))
		c->triggered = true;
	if (c->mode != 0 && c->mode != 4)
		restart(c, now); /* modes 1, 2, 3 and 5 reload at the rising edge */
}

static void load(struct pit_channel *c, unsigned value, uint64_t now)
{
	unsigned wrap = c->bcd ? 10000 : 65536;

	if (c->bcd)
		value = from_bcd(value) % wrap;
	c->reload = value ? value : wrap;
	/* Mode 1 and 5: a new count waits for the next trigger; one that is running is cut short
	 * here. */
	if (triggered_mode(c))
		c->triggered = false;
	c->loaded = true;
	restart(c, now);
}

void pit_channel_write(struct pit_channel *c, uint8_t value, uint64_t now)
{
	switch (c->write_step) {
	case STEP_LOW_ONLY: load(c, value, now); break;
	case STEP_HIGH_ONLY: load(c, (unsigned)value << 8, now); break;
	case STEP_LOW:
		c->write_low = value;
		c->write_step = STEP_HIGH;
		if (c->mode == 0)
			c->loaded = false; /* the first byte stops the count, OUT goes low */
		break;
	default:
		load(c, c->write_low | (unsigned)value << 8, now);
		c->write_step = STEP_LOW;
		break;
	}
}

void pit_channel_control(struct pit_channel *c, uint8_t value, uint64_t now)
{
	c->access = value >> 4 & 3;
	c->mode = value >> 1 & 7;
	if (c->mode > 5)
		c->mode &= 3; /* 110b and 111b are 2 and 3 */
	c->bcd = value & 1;
	c->reload = c->bcd ? 10000 : 65536; /* nothing is loaded; but never more than the range */
	c->read_step = c->write_step = first_step(c);
	c->count_latched = c->status_latched = false;
	c->loaded = c->triggered = false;
	restart(c, now);
}

uint8_t pit_channel_read(struct pit_channel *c, uint64_t now)
{
	uint16_t count;

	if (c->status_latched) {
		c->status_latched = false;
		return c->status;
	}
	count = c->count_latched ? c->latch : pit_channel_count(c, now);
	if (c->read_step == STEP_LOW) {
		c->read_step = STEP_HIGH;
		return (uint8_t)count;
	}
	c->count_latched = false;
	if (c->read_step == STEP_HIGH)
		c->read_step = STEP_LOW;
	return (uint8_t)(c->read_step == STEP_LOW_ONLY ? count : count >> 8);
}

/* ---- state ---- */

void pit_channel_reset(struct pit_channel *c, bool gate, uint64_t now)
{
	*c = (struct pit_channel){.access = 3,
				  .mode = 3,
				  .gate = gate,
				  .reload = 65536,
				  .start_ns = now,
				  .read_step = STEP_LOW,
				  .write_step = STEP_LOW};
}

static int post_load(void *object, const char **why)
{
	struct pit_channel *c = object;

	if (c->access < 1 || c->access > 3 || c->mode > 5)
		*why = "no such access or counting mode";
	else if (c->reload < 1 || c->reload > (c->bcd ? 10000 : 65536))
		*why = "count out of range";
	else if (c->read_step < STEP_LOW_ONLY || c->read_step > STEP_HIGH ||
		 c->write_step < STEP_LOW_ONLY || c->write_step > STEP_HIGH)
		*why = "no such step of an access";
	else if (c->ticks > TIME_MAX || c->start_ns > TIME_MAX)
		*why = "a time out of range";
	if (!*why)
		return 0;
	/* A refused machine is thrown away, but until then its timer may run: nothing to divide by
	 * 0. */
	*c = (struct pit_channel){.access = 3, .reload = 65536};
	return -EINVAL;
}

static const struct field fields[] = {
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
const struct state_desc pit_channel_state = {
	.name = "i8254-channel", .version = 1, .fields = fields, .post_load = post_load};
