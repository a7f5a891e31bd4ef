/* The registers, shared by the xAPIC page and the x2APIC MSRs: SDM vol. 3A tables 11-1 and 11-6. */
#include "devices/lapic/lapic.h"

#include <string.h>

/* Bits that software can write in each LVT entry (figure 11-8); timer mode 18:17. */
static const uint32_t lvt_writable[LVT_COUNT] = {
	[LVT_TIMER] = 0x700ff, [LVT_THERMAL] = 0x107ff, [LVT_PMC] = 0x107ff,
	[LVT_LINT0] = 0x1a7ff, [LVT_LINT1] = 0x1a7ff,	[LVT_ERROR] = 0x100ff,
};

static void lapic_write_lvt(struct lapic *l, unsigned n, uint32_t value, struct lapic_after *after)
{
	uint32_t old = l->lvt[n], keep = n == LVT_LINT0 ? LVT_REMOTE_IRR : 0;

	value &= lvt_writable[n];
	if (!(l->svr & SVR_ENABLED))
		value |= LVT_MASKED; /* 11.4.7.2: can't be unmasked while disabled */
	/* Remote IRR belongs to level triggering. */
	if (!(value & LVT_LEVEL))
		keep = 0;
	l->lvt[n] = value | (old & keep);
	if (n == LVT_TIMER)
		lapic_timer_lvt(l, old);
	/* A level that was masked so far. */
	if (n == LVT_LINT0 && l->lint0 && (value & LVT_LEVEL) && (value >> 8 & 7) == DM_FIXED)
		lapic_local(l, LVT_LINT0, after);
	lapic_update(l);
}

static void lapic_write_svr(struct lapic *l, uint32_t value)
{
	l->svr = value & SVR_WRITABLE;
	if (!(l->svr & SVR_ENABLED))
		for (unsigned i = 0; i < LVT_COUNT; i++)
			l->lvt[i] |= LVT_MASKED;
	lapic_publish(l);
	lapic_update(l);
}

static uint32_t lapic_read_word(const uint32_t *bits, unsigned reg)
{
	return bits[reg >> 4 & 7];
}

bool lapic_reg_read(struct lapic *l, unsigned reg, uint32_t *value)
{
	bool x2apic = lapic_is_x2apic(l);

	if (reg >= REG_LVT && reg < REG_LVT_END) {
		*value = l->lvt[(reg - REG_LVT) >> 4];
		return true;
	}
	if (reg >= REG_ISR && reg < REG_ESR) {
		if (reg >= REG_IRR)
			lapic_timer_catch_up(l);
		*value = lapic_read_word(reg < REG_TMR	 ? l->isr
					 : reg < REG_IRR ? l->tmr
							 : l->irr,
					 reg);
		return true;
	}
	switch (reg) {
	case REG_ID: *value = x2apic ? l->vcpu : l->vcpu << 24; break;
	case REG_VERSION: *value = LAPIC_VERSION; break;
	case REG_TPR: *value = l->tpr; break;
	case REG_APR:
	case REG_RRD: *value = 0; return !x2apic; /* Pentium only; reads as 0 later */
	case REG_PPR: *value = lapic_ppr(l); break;
	case REG_EOI: *value = 0; return !x2apic; /* write-only */
	case REG_LDR: *value = x2apic ? lapic_x2apic_ldr(l->vcpu) : l->ldr; break;
	case REG_DFR: *value = l->dfr; return !x2apic;
	case REG_SVR: *value = l->svr; break;
	case REG_ESR: *value = l->esr; break;
	case REG_ICR: *value = (uint32_t)l->icr; break;
	case REG_ICR2: *value = (uint32_t)(l->icr >> 32); return !x2apic;
	case REG_TMICT: *value = l->tmict; break;
	case REG_TMCCT: *value = lapic_timer_count(l); break;
	case REG_TDCR: *value = l->tdcr; break;
	default: *value = 0; return false;
	}
	return true;
}

static void lapic_write_tpr(struct lapic *l, uint8_t value)
{
	__atomic_store_n(&l->tpr, value, __ATOMIC_RELAXED);
	lapic_update(l);
}

bool lapic_reg_write(struct lapic *l, unsigned reg, uint32_t value, struct lapic_after *after)
{
	if (reg >= REG_LVT && reg < REG_LVT_END) {
		lapic_write_lvt(l, (reg - REG_LVT) >> 4, value, after);
		return true;
	}
	switch (reg) {
	case REG_TPR: lapic_write_tpr(l, (uint8_t)value); break;
	case REG_EOI: lapic_eoi(l, after); break;
	case REG_LDR:
		l->ldr = value & 0xff000000;
		lapic_publish(l);
		break;
	case REG_DFR:
		l->dfr = value | 0x0fffffff;
		lapic_publish(l);
		break;
	case REG_SVR: lapic_write_svr(l, value); break;
	case REG_ESR: /* 11.5.3: the write latches what happened since the last one */
		l->esr = l->esr_pending;
		l->esr_pending = 0;
		break;
	case REG_ICR: /* the delivery status is always idle */
		l->icr = (l->icr & 0xffffffff00000000) | (value & 0x000ccfff);
		after->send = true;
		after->icr = l->icr;
		break;
	case REG_ICR2: l->icr = (uint64_t)(value & 0xff000000) << 32 | (uint32_t)l->icr; break;
	case REG_TMICT: lapic_timer_set_count(l, value); break;
	case REG_TDCR: lapic_timer_set_divide(l, value & 0x0b); break;
	case REG_ID: /* read-only since the Nehalem; a Pentium's write test must just not stick */
	case REG_VERSION:
	case REG_APR:
	case REG_PPR:
	case REG_RRD:
	case REG_TMCCT: break;
	default: return reg >= REG_ISR && reg < REG_ESR; /* read-only */
	}
	return true;
}

/* ---- the page ----------------------------------------------------------------------------------
 */

/* Registers are 32 bits at 16-byte steps. Other accesses are undefined (11.4.1); they do no harm
 * here. */
static uint64_t lapic_mmio_read(void *opaque, unsigned vcpu, uint64_t off, unsigned size)
{
	struct lapic *l = lapic_get(opaque, vcpu);
	uint64_t value = all_ones(size);
	uint32_t reg = 0;

	if (!l)
		return value;
	pthread_mutex_lock(&l->lock);
	if (lapic_is_xapic(l)) {
		if (!lapic_reg_read(l, (unsigned)off & 0xff0, &reg))
			lapic_error(l, ESR_REG_ILLEGAL);
		value = (off & 15) < 4 ? (uint64_t)reg >> (8 * (off & 15)) : 0;
	}
	pthread_mutex_unlock(&l->lock);
	return value;
}

static void lapic_mmio_write(void *opaque, unsigned vcpu, uint64_t off, unsigned size,
			     uint64_t value)
{
	struct lapic *l = lapic_get(opaque, vcpu);
	struct lapic_after after = {0};

	if (!l)
		return;
	if (off & 15 || size < 4) {
		dev_log("lapic", "vcpu %u: write of %u bytes at 0x%x ignored", vcpu, size,
			(unsigned)off);
		return;
	}
	pthread_mutex_lock(&l->lock);
	if (lapic_is_xapic(l) && !lapic_reg_write(l, (unsigned)off, (uint32_t)value, &after))
		lapic_error(l, ESR_REG_ILLEGAL);
	pthread_mutex_unlock(&l->lock);
	lapic_after(l, &after);
}

const struct io_region_ops lapic_mmio_ops = {lapic_mmio_read, lapic_mmio_write};
