/* The APIC timer: SDM vol. 3A 11.5.4. The count is never stepped: it follows from the time it was
 * loaded. */
#include "devices/lapic/lapic.h"

/* A periodic timer fires no more often than this, whatever the guest asks for: the event loop
 * serves others too. The count that the guest reads is exact nevertheless. */
#define LAPIC_MIN_PERIOD_NS 20000ULL

unsigned lapic_timer_mode(const struct lapic *l)
{
	return l->lvt[LVT_TIMER] >> 17 & 3;
}

static bool lapic_counts(const struct lapic *l)
{
	return lapic_timer_mode(l) <= TIMER_PERIODIC;
}

/* Divide configuration: bits 3,1,0; 111b is 1, 000b is 2 (figure 11-10). */
static uint64_t lapic_divide(const struct lapic *l)
{
	unsigned n = (l->tdcr & 3) | (l->tdcr >> 1 & 4);

	return 1ULL << ((n + 1) & 7);
}

static uint64_t lapic_now(const struct lapic *l)
{
	return l->set->clock.now(l->set->clock.opaque);
}

static uint64_t lapic_ns(const struct lapic *l, uint32_t count)
{
	return muldiv_up(count * lapic_divide(l), NS_PER_S, l->set->timer_hz);
}

static void lapic_arm(struct lapic *l, uint64_t expiry)
{
	if (expiry == l->expiry_ns)
		return;
	l->expiry_ns = expiry;
	l->set->timers.set(l->vtimer, expiry);
}

void lapic_timer_stop(struct lapic *l)
{
	l->tmict = l->count_from = 0;
	l->count_ns = 0;
	l->tsc_deadline = 0;
	lapic_arm(l, 0);
}

static uint32_t lapic_count_at(const struct lapic *l, uint64_t now)
{
	uint64_t e;

	if (!l->count_from || !lapic_counts(l))
		return 0;
	e = now <= l->count_ns
		    ? 0
		    : muldiv(now - l->count_ns, l->set->timer_hz, NS_PER_S * lapic_divide(l));
	if (e < l->count_from)
		return l->count_from - (uint32_t)e;
	if (lapic_timer_mode(l) == TIMER_ONESHOT || !l->tmict)
		return 0;
	return l->tmict - (uint32_t)((e - l->count_from) % l->tmict);
}

uint32_t lapic_timer_count(struct lapic *l)
{
	lapic_timer_catch_up(l);
	return lapic_count_at(l, lapic_now(l));
}

static void lapic_count_down(struct lapic *l, uint32_t count, uint64_t now)
{
	l->count_from = count;
	l->count_ns = now;
	lapic_arm(l, count ? add_sat(now, lapic_ns(l, count)) : 0);
}

void lapic_timer_set_count(struct lapic *l, uint32_t count)
{
	if (!lapic_counts(l))
		return; /* ignored in TSC-deadline mode (11.5.4.1) */
	l->tmict = count;
	lapic_count_down(l, count, lapic_now(l));
}

void lapic_timer_set_divide(struct lapic *l, uint32_t value)
{
	uint64_t now;
	uint32_t left;

	if (value == l->tdcr)
		return;
	now = lapic_now(l);
	left = lapic_count_at(l, now);
	l->tdcr = value;
	if (lapic_counts(l) && left)
		lapic_count_down(l, left, now);
}

/* One-shot and periodic differ only in what follows the expiry; to or from TSC-deadline mode
 * disarms. */
void lapic_timer_lvt(struct lapic *l, uint32_t old)
{
	unsigned was = old >> 17 & 3, is = lapic_timer_mode(l);

	if (was == is)
		return;
	if (was > TIMER_PERIODIC || is > TIMER_PERIODIC)
		lapic_timer_stop(l);
}

/* The deadline is reached, or the count is 0. now: used by the periodic mode only. */
static void lapic_timer_fire(struct lapic *l, uint64_t now)
{
	struct lapic_after after = {0}; /* stays empty: the timer's delivery is fixed */
	uint64_t period, next;

	if (lapic_timer_mode(l) == TIMER_PERIODIC && l->tmict) {
		/* Expiries that nobody saw are one interrupt. The phase is kept. */
		period = lapic_ns(l, l->tmict);
		next = l->expiry_ns + period;
		if (next <= now)
			next += (now - next) / period * period + period;
		l->count_from = l->tmict;
		l->count_ns = next - period;
		if (period < LAPIC_MIN_PERIOD_NS)
			next = now + LAPIC_MIN_PERIOD_NS;
		lapic_arm(l, next);
	} else {
		l->tsc_deadline = 0;
		l->count_from = 0;
		lapic_arm(l, 0);
	}
	lapic_local(l, LVT_TIMER, &after);
}

/* The event loop may be late; what the guest reads must not contradict itself: a count of 0 with
 * nothing requested. */
void lapic_timer_catch_up(struct lapic *l)
{
	uint64_t now;

	if (!l->expiry_ns)
		return;
	now = lapic_now(l);
	if (now >= l->expiry_ns)
		lapic_timer_fire(l, now);
}

void lapic_timer_callback(void *opaque)
{
	struct lapic *l = opaque;
	uint64_t armed;

	pthread_mutex_lock(&l->lock);
	armed = l->expiry_ns;
	lapic_timer_catch_up(l);
	/* Too early, or stale: the timer is used up all the same. */
	if (armed && l->expiry_ns == armed)
		l->set->timers.set(l->vtimer, l->expiry_ns);
	pthread_mutex_unlock(&l->lock);
}

/* A deadline in the past takes no way around the event loop's thread. */
static void lapic_deadline_arm(struct lapic *l)
{
	const struct tsc_source *tsc = &l->set->tsc;
	uint64_t at;

	if (tsc->read(tsc->opaque, l->vcpu) >= l->tsc_deadline) {
		lapic_timer_fire(l, 0);
		return;
	}
	at = tsc->deadline(tsc->opaque, l->vcpu, l->tsc_deadline);
	lapic_arm(l, at ? at : 1);
}

void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc)
{
	if (lapic_timer_mode(l) != TIMER_DEADLINE)
		return; /* 11.5.4.1: no effect in the other modes */
	l->tsc_deadline = tsc;
	if (tsc)
		lapic_deadline_arm(l);
	else
		lapic_arm(l, 0);
}

void lapic_tsc_changed(struct device *dev, unsigned vcpu)
{
	struct lapic *l = lapic_get(dev, vcpu);

	if (!l)
		return;
	pthread_mutex_lock(&l->lock);
	if (lapic_timer_mode(l) == TIMER_DEADLINE && l->tsc_deadline)
		lapic_deadline_arm(l);
	pthread_mutex_unlock(&l->lock);
}
