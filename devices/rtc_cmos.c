/*
 * MC146818A real-time clock and its CMOS RAM (Motorola data sheet), as in a PC: 128 bytes behind
 * ports 70h and 71h, the century in byte 32h.
 *
 * The clock is the host's wall clock plus what the guest set it to. Its seconds begin at multiples
 * of 1 s of guest time after `phase_ns`, so that UIP, the update interrupt and the visible time
 * agree to the nanosecond; when the two clocks part (the VM was paused or moved), the wall clock
 * wins. Flags of register C are found out when somebody looks; the timer runs only for an interrupt
 * that is enabled.
 */
#include "devices/pc.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "devices/rtc_time.h"
#include "devices/util.h"

#define REG_A	    0x0a
#define REG_B	    0x0b
#define REG_C	    0x0c
#define REG_D	    0x0d
#define REG_CENTURY 0x32

#define A_UIP	 0x80
#define A_DIV	 0x70 /* 010b: 32768 Hz; 11xb: divider held in reset */
#define A_RATE	 0x0f
#define B_SET	 0x80
#define B_PIE	 0x40 /* the same bits as the flags in C */
#define B_AIE	 0x20
#define B_UIE	 0x10
#define B_IE	 0x70
#define C_IRQF	 0x80
#define D_VALID	 0x80
#define UIP_NS	 244000ULL	  /* UIP is set 244 us before an update */
#define MAX_WALL (400000000000LL) /* beyond the year 9999 */

struct rtc {
	struct device dev;
	pthread_mutex_t lock;
	struct io_space *ports;
	struct irq_line line;
	struct clock_source clock;
	struct timer_source timers;
	struct vtimer *timer;

	uint8_t cmos[128];
	uint8_t index;
	int64_t base_time; /* the clock's time (s since 1970) at phase_ns */
	int64_t offset;	   /* the clock minus the wall clock */
	uint64_t phase_ns; /* guest time of a seconds edge, may lie in the future */
	uint64_t seen_ns;  /* flags in C are up to date until then */
	uint64_t timer_ns; /* 0: not armed */
};

/* ---- the time ---- */

/* Held: the guest is setting the time, or keeps the divider in reset. */
static bool rtc_held(const struct rtc *r)
{
	return (r->cmos[REG_B] & B_SET) || (r->cmos[REG_A] & A_DIV) >= 0x60;
}

/* Whole seconds of guest time since the phase, rounded down. */
static int64_t rtc_ticks(const struct rtc *r, uint64_t now)
{
	if (now < r->phase_ns)
		return -(int64_t)((r->phase_ns - now + NS_PER_S - 1) / NS_PER_S);
	return (int64_t)((now - r->phase_ns) / NS_PER_S);
}

static int64_t rtc_time(const struct rtc *r, uint64_t now)
{
	return r->base_time + rtc_ticks(r, now);
}

static int64_t rtc_wall(struct rtc *r)
{
	int64_t wall = r->clock.wall(r->clock.opaque);

	return wall < 0 ? 0 : wall > MAX_WALL ? MAX_WALL : wall;
}

/* Sets the clock to t as of now. */
static void rtc_set_time(struct rtc *r, int64_t t, uint64_t now)
{
	r->base_time += t - rtc_time(r, now);
	r->offset = t - rtc_wall(r);
}

/* One second of difference is only the two clocks' different phase. */
static void rtc_follow_wall(struct rtc *r, uint64_t now)
{
	int64_t target = rtc_wall(r) + r->offset, diff = target - rtc_time(r, now);

	if (diff > 1 || diff < -1)
		r->base_time += diff;
}

/* ---- flags and the interrupt ---- */

/* Period of the square wave in ns x 2^15 / 10^9, that is in ticks of 32768 Hz; 0: off. */
static unsigned rtc_period(const struct rtc *r)
{
	unsigned rate = r->cmos[REG_A] & A_RATE;

	if (!rate || (r->cmos[REG_A] & A_DIV) >= 0x60)
		return 0;
	return rate < 3 ? 1u << (rate + 6) : 1u << (rate - 1);
}

/* Number of the periodic edge at or before a time. */
static uint64_t rtc_edges(uint64_t ns, unsigned period)
{
	return muldiv(ns, 32768, NS_PER_S) / period;
}

/* The first second after `after` that the alarm registers match, -1: none. */
static int64_t rtc_next_alarm(const struct rtc *r, int64_t after)
{
	return rtc_alarm_next(after, r->cmos, r->cmos[REG_B]);
}

/* Everything that happened in (seen_ns, now]. */
static void rtc_catch_up(struct rtc *r, uint64_t now)
{
	unsigned period = rtc_period(r);
	int64_t before, after, alarm;

	if (now <= r->seen_ns)
		return;
	if (period && rtc_edges(r->seen_ns, period) != rtc_edges(now, period))
		r->cmos[REG_C] |= B_PIE;
	if (!rtc_held(r)) {
		before = rtc_time(r, r->seen_ns);
		rtc_follow_wall(r, now);
		after = rtc_time(r, now);
		if (after != before)
			r->cmos[REG_C] |= B_UIE;
		alarm = rtc_next_alarm(r, before);
		if (alarm >= 0 && alarm <= after)
			r->cmos[REG_C] |= B_AIE;
	}
	r->seen_ns = now;
}

static void rtc_arm(struct rtc *r, uint64_t now)
{
	uint8_t want = r->cmos[REG_B] & B_IE;
	uint64_t next = 0, at;
	unsigned period = rtc_period(r);
	int64_t alarm;

	/* While the line is up nothing more can be seen; reading C arms again. */
	if (r->cmos[REG_C] & C_IRQF)
		want = 0;
	if ((want & B_PIE) && period)
		next = muldiv_up((rtc_edges(now, period) + 1) * period, NS_PER_S, 32768);
	if ((want & B_UIE) && !rtc_held(r)) {
		at = r->phase_ns + (uint64_t)(rtc_ticks(r, now) + 1) * NS_PER_S;
		next = !next || at < next ? at : next;
	}
	if ((want & B_AIE) && !rtc_held(r)) {
		alarm = rtc_next_alarm(r, rtc_time(r, now));
		at = r->phase_ns + (uint64_t)(alarm - r->base_time) * NS_PER_S;
		next = alarm >= 0 && (!next || at < next) ? at : next;
	}
	if (next != r->timer_ns) {
		r->timer_ns = next;
		r->timers.set(r->timer, next);
	}
}

static void rtc_update(struct rtc *r, uint64_t now)
{
	rtc_catch_up(r, now);
	if (r->cmos[REG_C] & r->cmos[REG_B] & B_IE)
		r->cmos[REG_C] |= C_IRQF;
	else
		r->cmos[REG_C] &= (uint8_t)~C_IRQF;
	irq_set(&r->line, r->cmos[REG_C] & C_IRQF);
	rtc_arm(r, now);
}

static void rtc_timer(void *opaque)
{
	struct rtc *r = opaque;

	pthread_mutex_lock(&r->lock);
	if (r->timer_ns) {
		r->timer_ns = 0;
		rtc_update(r, r->clock.now(r->clock.opaque));
	}
	pthread_mutex_unlock(&r->lock);
}

/* ---- registers ----------------------------------------------------------------------------------
 */

static bool rtc_is_time(unsigned index)
{
	return (index < REG_A && (!(index & 1) || index >= 7)) || index == REG_CENTURY;
}

static uint8_t rtc_read_reg(struct rtc *r, uint64_t now)
{
	uint64_t left;
	uint8_t value;

	if (rtc_is_time(r->index) && !rtc_held(r))
		rtc_time_encode(rtc_time(r, now), r->cmos, r->cmos[REG_B]);
	value = r->cmos[r->index];
	if (r->index == REG_A && !rtc_held(r)) {
		left = r->phase_ns + (uint64_t)(rtc_ticks(r, now) + 1) * NS_PER_S - now;
		if (left <= UIP_NS)
			value |= A_UIP;
	}
	if (r->index == REG_C) {
		r->cmos[REG_C] = 0;
		rtc_update(r, now);
	}
	return value;
}

/* Registers A and B decide whether the clock runs: between the two states the time moves from the
 * clock into the registers and back. */
static void rtc_write_control(struct rtc *r, uint8_t value, uint64_t now)
{
	bool held = rtc_held(r), stopped = (r->cmos[REG_A] & A_DIV) >= 0x60;

	if (!held)
		rtc_time_encode(rtc_time(r, now), r->cmos, r->cmos[REG_B]);
	if (r->index == REG_A)
		r->cmos[REG_A] = value & (uint8_t)~A_UIP;
	else
		r->cmos[REG_B] =
			value & B_SET ? value & (uint8_t)~B_UIE : value; /* SET clears UIE */
	/* The first update after a divider reset follows half a second later. */
	if (stopped && (r->cmos[REG_A] & A_DIV) < 0x60)
		r->phase_ns = now + NS_PER_S / 2;
	if (held && !rtc_held(r))
		rtc_set_time(r, rtc_time_decode(r->cmos, r->cmos[REG_B]), now);
}

static void rtc_write_reg(struct rtc *r, uint8_t value, uint64_t now)
{
	switch (r->index) {
	case REG_A:
	case REG_B: rtc_write_control(r, value, now); break;
	case REG_C:
	case REG_D: return; /* read-only */
	default:
		if (!rtc_is_time(r->index) || rtc_held(r)) {
			r->cmos[r->index] = value;
			break;
		}
		rtc_time_encode(rtc_time(r, now), r->cmos, r->cmos[REG_B]);
		r->cmos[r->index] = value;
		rtc_set_time(r, rtc_time_decode(r->cmos, r->cmos[REG_B]), now);
		break;
	}
	rtc_update(r, now);
}

static uint64_t rtc_read(void *opaque, unsigned vcpu, uint64_t off, unsigned size)
{
	struct rtc *r = opaque;
	uint64_t value = 0, now;

	(void)vcpu;
	pthread_mutex_lock(&r->lock);
	now = r->clock.now(r->clock.opaque);
	rtc_update(r, now);
	for (unsigned i = 0; i < size; i++) {
		uint8_t byte = off + i == 1 ? rtc_read_reg(r, now) : 0xff;

		value |= (uint64_t)byte << (8 * i);
	}
	pthread_mutex_unlock(&r->lock);
	return value;
}

static void rtc_write(void *opaque, unsigned vcpu, uint64_t off, unsigned size, uint64_t value)
{
	struct rtc *r = opaque;
	uint64_t now;

	(void)vcpu;
	pthread_mutex_lock(&r->lock);
	now = r->clock.now(r->clock.opaque);
	rtc_update(r, now);
	for (unsigned i = 0; i < size; i++) {
		if (off + i == 1)
			rtc_write_reg(r, (uint8_t)(value >> (8 * i)), now);
		else
			r->index =
				(uint8_t)(value >> (8 * i)) & 0x7f; /* bit 7: NMI mask, not wired */
	}
	pthread_mutex_unlock(&r->lock);
}

/* ---- life --------------------------------------------------------------------------------------
 */

/* The battery keeps time and CMOS; RESET clears what can interrupt (data sheet, "RESET"). */
static void rtc_reset(struct device *dev)
{
	struct rtc *r = (struct rtc *)dev;
	uint64_t now = r->clock.now(r->clock.opaque);

	pthread_mutex_lock(&r->lock);
	rtc_catch_up(r, now);
	r->index = 0;
	r->cmos[REG_B] &= 0x87; /* PIE, AIE, UIE, SQWE */
	r->cmos[REG_C] = 0;
	rtc_update(r, now);
	pthread_mutex_unlock(&r->lock);
}

static int rtc_post_load(void *object, const char **why)
{
	struct rtc *r = object;
	const int64_t max = 4 * MAX_WALL;

	if (r->index > 0x7f || r->cmos[REG_A] & A_UIP || r->cmos[REG_C] & 0x0f ||
	    r->cmos[REG_D] != D_VALID)
		*why = "reserved bits are set";
	else if (r->base_time > max || r->base_time < -max || r->offset > max || r->offset < -max ||
		 r->phase_ns > UINT64_MAX / 4 || r->seen_ns > UINT64_MAX / 4 ||
		 r->timer_ns > UINT64_MAX / 4)
		*why = "a time out of range";
	if (*why) {
		/* Thrown away soon; until then its timer may still run. */
		r->index = 0;
		r->base_time = r->offset = 0;
		r->phase_ns = r->seen_ns = r->timer_ns = 0;
		return -EINVAL;
	}
	pthread_mutex_lock(&r->lock);
	irq_set(&r->line, r->cmos[REG_C] & C_IRQF);
	r->timers.set(r->timer, r->timer_ns);
	pthread_mutex_unlock(&r->lock);
	return 0;
}

static void rtc_destroy(struct device *dev)
{
	struct rtc *r = (struct rtc *)dev;

	io_space_remove(r->ports, 0x70);
	r->timers.destroy(r->timer);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

static const struct io_region_ops rtc_io = {rtc_read, rtc_write};
static const struct device_ops rtc_ops = {.reset = rtc_reset, .destroy = rtc_destroy};
static const struct field rtc_fields[] = {
	FIELD_BLOB(struct rtc, cmos, 1),
	FIELD_SCALAR(struct rtc, index, FIELD_U8, 1),
	FIELD_SCALAR(struct rtc, base_time, FIELD_U64, 1),
	FIELD_SCALAR(struct rtc, offset, FIELD_U64, 1),
	FIELD_SCALAR(struct rtc, phase_ns, FIELD_U64, 1),
	FIELD_SCALAR(struct rtc, seen_ns, FIELD_U64, 1),
	FIELD_SCALAR(struct rtc, timer_ns, FIELD_U64, 1),
	FIELD_END,
};
static const struct state_desc rtc_state = {
	.name = "rtc-cmos", .version = 1, .fields = rtc_fields, .post_load = rtc_post_load};

int rtc_cmos_create(struct device **out, struct io_space *ports, struct irq_line line,
		    const struct clock_source *clock, const struct timer_source *timers)
{
	struct rtc *r = calloc(1, sizeof(*r));
	const struct io_region region = {
		.base = 0x70, .size = 2, .ops = &rtc_io, .opaque = r, .name = "rtc-cmos"};
	int ret;

	if (!r)
		return -ENOMEM;
	r->dev = (struct device){.name = "rtc-cmos", .ops = &rtc_ops, .state = &rtc_state};
	r->ports = ports;
	r->line = line;
	r->clock = *clock;
	r->timers = *timers;
	r->cmos[REG_A] = 0x26; /* 32768 Hz, 1024 Hz periodic */
	r->cmos[REG_B] = 0x02; /* BCD, 24 h */
	r->cmos[REG_D] = D_VALID;
	r->phase_ns = r->seen_ns = clock->now(clock->opaque);
	r->base_time = rtc_wall(r);
	r->timer = timers->create(timers->opaque, rtc_timer, r, "rtc");
	if (!r->timer) {
		free(r);
		return -ENOMEM;
	}
	ret = io_space_add(ports, &region);
	if (ret) {
		timers->destroy(r->timer);
		free(r);
		return ret;
	}
	pthread_mutex_init(&r->lock, NULL);
	*out = &r->dev;
	return 0;
}
