/* Which vCPUs wait, and how long: what each has written beyond its share. */
#include "vmm/throttle_plan.h"

enum { SETTLED = 8 /* ticks that the demand is averaged over */ };
/* Nobody waits for longer at once: guests look after their processors. */
static const uint64_t longest = 1000000000;

/* What each of those may write that want more than that: what the others leave. */
static double share(const struct throttle_plan *p)
{
	const double all = (double)p->pages;
	double each = all / p->count;

	for (unsigned round = 0; round < p->count; round++) {
		double left = all;
		unsigned heavy = 0;

		for (unsigned i = 0; i < p->count; i++) {
			if (p->vcpu[i].demand > each)
				heavy++;
			else
				left -= p->vcpu[i].demand;
		}
		if (!heavy)
			break;
		each = left / heavy;
	}
	return each > 1 ? each : 1;
}

void throttle_plan_begin(struct throttle_plan *p, uint64_t now)
{
	p->last = now;
	for (unsigned i = 0; i < p->count; i++)
		p->dirty_rate(p->opaque, i, &p->vcpu[i].rate, now);
}

uint64_t throttle_plan_tick(struct throttle_plan *p, uint64_t now)
{
	const uint64_t passed = now - p->last;
	uint64_t rate[CPU_MAX] = {0}, told = 0;
	double each;

	p->last = now;
	for (unsigned i = 0; i < p->count; i++) {
		rate[i] = p->dirty_rate(p->opaque, i, &p->vcpu[i].rate, now);
		/* Of one that waits nothing is learnt. */
		if (p->vcpu[i].until <= now - passed)
			p->vcpu[i].demand += ((double)rate[i] - p->vcpu[i].demand) / SETTLED;
	}
	each = share(p);
	for (unsigned i = 0; i < p->count; i++) {
		const uint64_t cost = (uint64_t)((double)rate[i] * (double)passed / each);
		uint64_t until = p->vcpu[i].until;

		/* The time that it had is paid for by what it wrote; the time that it waited was
		 * paid for before. */
		if (until < now - passed)
			until = now - passed;
		until += cost;
		if (!cost || until <= now)
			continue;
		p->vcpu[i].until = until;
		if (p->vcpu[i].until > now + longest)
			p->vcpu[i].until = now + longest;
		told |= 1ull << i;
	}
	return told;
}
