/* A machine of APICs for the tests of lapic and ioapic: processors that note, a PIC, an IOAPIC. */
#ifndef TESTS_UNIT_DEV_APIC_H
#define TESTS_UNIT_DEV_APIC_H

#include "tests/unit/dev_util.h"

#define APIC	 0xfee00000ULL
#define TIMER_HZ 25000000ULL /* 40 ns */

enum {
	R_ID = 0x20,
	R_VERSION = 0x30,
	R_TPR = 0x80,
	R_PPR = 0xa0,
	R_EOI = 0xb0,
	R_LDR = 0xd0,
	R_DFR = 0xe0,
	R_SVR = 0xf0,
	R_ISR = 0x100,
	R_TMR = 0x180,
	R_IRR = 0x200,
	R_ESR = 0x280,
	R_ICR = 0x300,
	R_ICR2 = 0x310,
	R_TIMER = 0x320,
	R_LINT0 = 0x350,
	R_LINT1 = 0x360,
	R_ERROR = 0x370,
	R_TMICT = 0x380,
	R_TMCCT = 0x390,
	R_TDCR = 0x3e0,
};

#define LVT_MASK     0x10000u
#define X2(reg)	     (0x800u + (reg) / 16)
#define MSR_BASE     0x1b
#define MSR_DEADLINE 0x6e0
#define HANDLED	     0
#define NOT_MINE     1
#define GP	     2

struct dev_apics {
	struct dev_world w;
	struct dev_cpus cpus;
	struct cpu_pins pins;
	struct tsc_source tsc;
	struct device *lapic, *pic, *ioapic;
	unsigned vcpus;
};

static inline void apics_start(struct dev_apics *a, unsigned vcpus)
{
	struct lapic_config config;

	*a = (struct dev_apics){.vcpus = vcpus};
	dev_world_init(&a->w);
	a->cpus.world = &a->w;
	a->pins =
		(struct cpu_pins){dev_cpu_intr, dev_cpu_nmi, dev_cpu_init, dev_cpu_sipi, &a->cpus};
	a->tsc = (struct tsc_source){dev_tsc_read, dev_tsc_deadline, &a->cpus};
	config = (struct lapic_config){.vcpus = vcpus,
				       .timer_hz = TIMER_HZ,
				       .pins = &a->pins,
				       .clock = &a->w.clock,
				       .timers = &a->w.timers,
				       .tsc = &a->tsc};
	CHECK_EQ(lapic_create(&a->lapic, &a->w.mmio, &config), 0);
	CHECK_EQ(pic_create(&a->pic, &a->w.ports, lapic_lint0(a->lapic)), 0);
	lapic_set_pic(a->lapic, a->pic);
	CHECK_EQ(ioapic_create(&a->ioapic, &a->w.mmio, a->lapic, 3), 0);
}

static inline void apics_stop(struct dev_apics *a)
{
	for (unsigned i = 0; i < a->vcpus; i++)
		CHECK_EQ(a->cpus.cpu[i].repeats, 0); /* the pin is told about changes only */
	a->ioapic->ops->destroy(a->ioapic);
	a->pic->ops->destroy(a->pic);
	a->lapic->ops->destroy(a->lapic);
	CHECK_EQ(a->w.mmio.count + a->w.ports.count, 0);
	CHECK_EQ(dev_next_deadline(&a->w), 0);
	dev_world_free(&a->w);
}

static inline uint32_t rd(struct dev_apics *a, unsigned vcpu, unsigned reg)
{
	return (uint32_t)io_space_read(&a->w.mmio, vcpu, APIC + reg, 4);
}

static inline void wr(struct dev_apics *a, unsigned vcpu, unsigned reg, uint32_t value)
{
	io_space_write(&a->w.mmio, vcpu, APIC + reg, 4, value);
}

static inline int wrmsr(struct dev_apics *a, unsigned vcpu, uint32_t msr, uint64_t value)
{
	return lapic_wrmsr(a->lapic, vcpu, msr, value);
}

/* The value, all ones after #GP. */
static inline uint64_t rdmsr(struct dev_apics *a, unsigned vcpu, uint32_t msr)
{
	uint64_t value;

	return lapic_rdmsr(a->lapic, vcpu, msr, &value) == HANDLED ? value : UINT64_MAX;
}

static inline void enable(struct dev_apics *a, unsigned vcpu)
{
	wr(a, vcpu, R_SVR, 0x1ff);
}

static inline void enable_x2apic(struct dev_apics *a, unsigned vcpu)
{
	CHECK_EQ(wrmsr(a, vcpu, MSR_BASE, rdmsr(a, vcpu, MSR_BASE) | 3 << 10), HANDLED);
	CHECK_EQ(wrmsr(a, vcpu, X2(R_SVR), 0x1ff), HANDLED);
}

/* What the vCPU does at its next instruction: -1, or the vector taken and ended. */
static inline int take(struct dev_apics *a, unsigned vcpu)
{
	int vector;

	CHECK_EQ(lapic_pending(a->lapic, vcpu), a->cpus.cpu[vcpu].intr);
	vector = a->cpus.cpu[vcpu].intr ? lapic_ack(a->lapic, vcpu) : -1;
	if (vector >= 0x40) { /* below: the PIC's */
		if (wrmsr(a, vcpu, X2(R_EOI), 0) == GP)
			wr(a, vcpu, R_EOI, 0);
	}
	return vector;
}

#endif
