/* IA32_APIC_BASE (SDM vol. 3A 11.4.4), IA32_TSC_DEADLINE (11.5.4.1) and the x2APIC registers
 * (11.12.1). */
#include "devices/lapic/lapic.h"

#define MSR_APIC_BASE	 0x1b
#define MSR_TSC_DEADLINE 0x6e0
#define MSR_X2APIC	 0x800
#define MSR_X2APIC_LAST	 0x8ff

enum { HANDLED, NOT_MINE, GP };

/* Reserved bits whose setting is #GP; all ones: the register can't be written. */
static uint64_t x2apic_reserved(unsigned reg)
{
	switch (reg) {
	case REG_TPR: return ~0xffULL;
	case REG_EOI:
	case REG_ESR: return ~0ULL; /* only 0 may be written: handled by the caller */
	case REG_SVR: return ~(uint64_t)SVR_WRITABLE;
	case REG_ICR:
		return 0xfff32000; /* bit 12, the delivery status, is ignored as hardware does */
	case REG_LVT + LVT_TIMER * 16: return ~0x710ffULL;
	case REG_LVT + LVT_THERMAL * 16:
	case REG_LVT + LVT_PMC * 16: return ~0x117ffULL;
	case REG_LVT + LVT_LINT0 * 16:
	case REG_LVT + LVT_LINT1 * 16: return ~0x1f7ffULL;
	case REG_LVT + LVT_ERROR * 16: return ~0x110ffULL;
	case REG_TMICT: return ~0xffffffffULL;
	case REG_TDCR: return ~0x0bULL;
	case REG_SELF_IPI: return ~0xffULL;
	default: return ~0ULL;
	}
}

static bool x2apic_writable(unsigned reg)
{
	switch (reg) {
	case REG_TPR:
	case REG_EOI:
	case REG_SVR:
	case REG_ESR:
	case REG_ICR:
	case REG_TMICT:
	case REG_TDCR:
	case REG_SELF_IPI: return true;
	default: return reg >= REG_LVT && reg < REG_LVT_END;
	}
}

static int x2apic_read(struct lapic *l, unsigned reg, uint64_t *value)
{
	uint32_t low;

	if (!lapic_is_x2apic(l) || !lapic_reg_read(l, reg, &low))
		return GP;
	*value = reg == REG_ICR ? l->icr : low;
	return HANDLED;
}

static int x2apic_write(struct lapic *l, unsigned reg, uint64_t value, struct lapic_after *after)
{
	if (!lapic_is_x2apic(l) || !x2apic_writable(reg) || (value & x2apic_reserved(reg)))
		return GP;
	after->x2apic = true;
	switch (reg) {
	case REG_ICR:
		l->icr = value & ~(uint64_t)LVT_PENDING;
		after->send = true;
		after->icr = l->icr;
		break;
	case REG_SELF_IPI:
		after->send = true;
		after->icr = 1u << 18 | value; /* shorthand self, fixed */
		break;
	default: lapic_reg_write(l, reg, (uint32_t)value, after); break;
	}
	return HANDLED;
}

/* Figure 11-27. Bit 8 (BSP) can't be changed, the page can't be moved. */
static int lapic_write_base(struct lapic *l, uint64_t value)
{
	const uint64_t mode = APIC_BASE_ENABLE | APIC_BASE_X2APIC;
	uint64_t from = l->base & mode, to = value & mode;

	if (value & 0xfff00000000002ffULL || to == APIC_BASE_X2APIC)
		return GP;
	if ((from == mode && to == APIC_BASE_ENABLE) || (from == 0 && to == mode))
		return GP;
	if ((value & ~0xfffULL) != APIC_BASE_DEFAULT)
		dev_log("lapic", "vcpu %u: the APIC page stays at 0x%llx", l->vcpu,
			(unsigned long long)APIC_BASE_DEFAULT);
	if (from == to)
		return HANDLED;
	l->base = (l->base & ~mode) | to;
	if (to == mode)
		l->icr = (uint32_t)l->icr; /* 11.12.5.1: the upper half is not preserved */
	if (!to)
		lapic_clear(l); /* 11.4.3: as after a reset */
	lapic_publish(l);
	lapic_update(l);
	return HANDLED;
}

bool lapic_enabled(struct device *dev, unsigned vcpu)
{
	struct lapics *set = (struct lapics *)dev;

	return vcpu < set->count &&
	       (__atomic_load_n(&set->dest[vcpu], __ATOMIC_RELAXED) & DEST_ENABLED);
}

int lapic_rdmsr(struct device *dev, unsigned vcpu, uint32_t msr, uint64_t *value)
{
	struct lapic *l = lapic_get(dev, vcpu);
	int ret = HANDLED;

	if (!l || (msr != MSR_APIC_BASE && msr != MSR_TSC_DEADLINE &&
		   (msr < MSR_X2APIC || msr > MSR_X2APIC_LAST)))
		return NOT_MINE;
	pthread_mutex_lock(&l->lock);
	if (msr == MSR_APIC_BASE) {
		*value = l->base;
	} else if (msr == MSR_TSC_DEADLINE) {
		lapic_timer_catch_up(l);
		*value = l->tsc_deadline;
	} else {
		ret = x2apic_read(l, (msr - MSR_X2APIC) << 4, value);
	}
	pthread_mutex_unlock(&l->lock);
	return ret;
}

int lapic_wrmsr(struct device *dev, unsigned vcpu, uint32_t msr, uint64_t value)
{
	struct lapic *l = lapic_get(dev, vcpu);
	struct lapic_after after = {0};
	int ret = HANDLED;

	if (!l || (msr != MSR_APIC_BASE && msr != MSR_TSC_DEADLINE &&
		   (msr < MSR_X2APIC || msr > MSR_X2APIC_LAST)))
		return NOT_MINE;
	pthread_mutex_lock(&l->lock);
	if (msr == MSR_APIC_BASE)
		ret = lapic_write_base(l, value);
	else if (msr == MSR_TSC_DEADLINE)
		lapic_timer_set_deadline(l, value);
	else
		ret = x2apic_write(l, (msr - MSR_X2APIC) << 4, value, &after);
	pthread_mutex_unlock(&l->lock);
	lapic_after(l, &after);
	return ret;
}
