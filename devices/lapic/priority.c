/* Which interrupt a processor takes next (SDM vol. 3A 11.8), errors (11.5.3) and local sources
 * (11.5.1). */
#include "devices/lapic/lapic.h"

/* The highest vector of a 256-bit register, -1: none. */
static int highest(const uint32_t *bits)
{
	for (int i = 7; i >= 0; i--)
		if (bits[i])
			return i * 32 + 31 - __builtin_clz(bits[i]);
	return -1;
}

static void set_bit(uint32_t *bits, uint8_t vector, bool value)
{
	uint32_t bit = 1u << (vector % 32);

	if (value)
		bits[vector / 32] |= bit;
	else
		bits[vector / 32] &= ~bit;
}

static bool get_bit(const uint32_t *bits, uint8_t vector)
{
	return bits[vector / 32] >> (vector % 32) & 1;
}

/* 11.8.3.1 */
uint8_t lapic_ppr(const struct lapic *l)
{
	int isrv = highest(l->isr);

	if (isrv < 0 || l->tpr >> 4 >= isrv >> 4)
		return l->tpr;
	return (uint8_t)(isrv & 0xf0);
}

/* The vector that is deliverable, -1: none. */
static int lapic_next(const struct lapic *l)
{
	int vector;

	if (!(l->base & APIC_BASE_ENABLE))
		return -1;
	vector = highest(l->irr);
	return vector >= 0 && vector >> 4 > lapic_ppr(l) >> 4 ? vector : -1;
}

/* With the APIC globally disabled LINT0 is the INTR pin of a processor without an APIC (11.4.3). */
bool lapic_takes_extint(const struct lapic *l)
{
	uint32_t lvt = l->lvt[LVT_LINT0];

	if (!(l->base & APIC_BASE_ENABLE))
		return l->lint0;
	if (l->extint)
		return true;
	return l->lint0 && !(lvt & LVT_MASKED) && (lvt >> 8 & 7) == DM_EXTINT;
}

void lapic_update(struct lapic *l)
{
	bool pin = lapic_next(l) >= 0 || lapic_takes_extint(l);
	struct lapics *set = l->set;

	__atomic_store_n(&set->ppr[l->vcpu], lapic_ppr(l), __ATOMIC_RELAXED);
	if (pin == l->pin)
		return;
	__atomic_store_n(&l->pin, pin, __ATOMIC_RELEASE);
	set->pins.intr(set->pins.opaque, l->vcpu, pin);
}

bool lapic_pending(struct device *dev, unsigned vcpu)
{
	struct lapic *l = lapic_get(dev, vcpu);

	return l && __atomic_load_n(&l->pin, __ATOMIC_ACQUIRE);
}

void lapic_request(struct lapic *l, uint8_t vector, bool level)
{
	set_bit(l->tmr, vector, level);
	set_bit(l->irr, vector, true);
	lapic_update(l);
}

/* An error is reported once: while one waits to be latched into the ESR, no second interrupt. A
 * vector below 16 in the error entry itself would be an error again and is not followed further. */
void lapic_error(struct lapic *l, uint32_t bits)
{
	uint32_t lvt = l->lvt[LVT_ERROR];
	bool first = !(l->esr_pending & bits);

	l->esr_pending |= bits;
	if (!first || (lvt & LVT_MASKED))
		return;
	if ((lvt & 0xff) < 16)
		l->esr_pending |= ESR_RECV_ILLEGAL;
	else
		lapic_request(l, (uint8_t)lvt, false);
}

void lapic_local(struct lapic *l, enum lapic_lvt n, struct lapic_after *after)
{
	uint32_t lvt = l->lvt[n];
	uint8_t vector = (uint8_t)lvt;

	if ((lvt & LVT_MASKED) || !(l->base & APIC_BASE_ENABLE))
		return;
	switch (n == LVT_TIMER || n == LVT_ERROR ? DM_FIXED : lvt >> 8 & 7) {
	case DM_FIXED:
		if (vector < 16) {
			lapic_error(l, ESR_RECV_ILLEGAL);
			return;
		}
		if (n == LVT_LINT0 && (lvt & LVT_LEVEL)) {
			if (lvt & LVT_REMOTE_IRR)
				return;
			l->lvt[n] |= LVT_REMOTE_IRR;
			lapic_request(l, vector, true);
			return;
		}
		lapic_request(l, vector, false);
		break;
	case DM_NMI: after->nmi = true; break;
	case DM_INIT: after->init = true; break;
	default: break; /* ExtINT is a level (lapic_takes_extint); SMI does not exist */
	}
}

/* 11.8.5: the highest in-service vector ends. A level-triggered one is told to the IOAPICs. */
void lapic_eoi(struct lapic *l, struct lapic_after *after)
{
	uint32_t *lint0 = &l->lvt[LVT_LINT0];
	int vector = highest(l->isr);

	if (vector < 0)
		return;
	set_bit(l->isr, (uint8_t)vector, false);
	if (get_bit(l->tmr, (uint8_t)vector)) {
		after->eoi = true;
		after->eoi_vector = (uint8_t)vector;
		if ((*lint0 & LVT_REMOTE_IRR) && (*lint0 & 0xff) == (uint32_t)vector) {
			*lint0 &= ~LVT_REMOTE_IRR;
			if (l->lint0)
				lapic_local(l, LVT_LINT0, after);
		}
	}
	lapic_update(l);
}

int lapic_ack(struct device *dev, unsigned vcpu)
{
	struct lapic *l = lapic_get(dev, vcpu);
	bool extint;
	int vector;

	if (!l)
		return -1;
	pthread_mutex_lock(&l->lock);
	extint = lapic_takes_extint(l) && l->set->pic;
	vector = -1;
	if (extint) {
		l->extint = false;
	} else {
		vector = lapic_next(l);
		if (vector >= 0) {
			set_bit(l->irr, (uint8_t)vector, false);
			set_bit(l->isr, (uint8_t)vector, true);
		}
	}
	lapic_update(l);
	pthread_mutex_unlock(&l->lock);
	/* The PIC calls back: its output falls. Between the two, another vCPU may have taken the
	 * interrupt: then this is the spurious one. */
	return extint ? pic_ack(l->set->pic) : vector;
}

uint8_t lapic_get_cr8(struct device *dev, unsigned vcpu)
{
	struct lapic *l = lapic_get(dev, vcpu);

	return l ? __atomic_load_n(&l->tpr, __ATOMIC_RELAXED) >> 4 : 0;
}

void lapic_set_cr8(struct device *dev, unsigned vcpu, uint8_t cr8)
{
	struct lapic *l = lapic_get(dev, vcpu);
	uint8_t tpr = (uint8_t)(cr8 << 4);

	/* Only the vCPU itself writes its TPR: an unchanged one needs no lock. */
	if (!l || __atomic_load_n(&l->tpr, __ATOMIC_RELAXED) == tpr)
		return;
	pthread_mutex_lock(&l->lock);
	__atomic_store_n(&l->tpr, tpr, __ATOMIC_RELAXED);
	lapic_update(l);
	pthread_mutex_unlock(&l->lock);
}

static void lapic_set_lint0(void *opaque, unsigned n, bool level)
{
	struct lapics *set = opaque;

	(void)n;
	for (unsigned i = 0; i < set->count; i++) {
		struct lapic_after after = {0};
		struct lapic *l = &set->cpu[i];
		bool rise;

		pthread_mutex_lock(&l->lock);
		rise = level && !l->lint0;
		l->lint0 = level;
		if (rise)
			lapic_local(l, LVT_LINT0, &after);
		lapic_update(l);
		pthread_mutex_unlock(&l->lock);
		lapic_after(l, &after);
	}
}

struct irq_line lapic_lint0(struct device *lapic)
{
	return (struct irq_line){.set = lapic_set_lint0, .opaque = lapic};
}
