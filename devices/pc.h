/*
 * The devices of board pc: constructors and the few calls that are not behind a region, a line or a
 * state table. Every constructor returns 0 or -errno and a device that device.ops->destroy frees.
 */
#ifndef DEVICES_PC_H
#define DEVICES_PC_H

#include "devices/device.h"

/* What an interrupt controller does to processors. Any thread; never blocks. */
struct cpu_pins {
	void (*intr)(void *opaque, unsigned vcpu,
		     bool level); /* something deliverable at the pin */
	void (*nmi)(void *opaque, unsigned vcpu);
	void (*init)(void *opaque, unsigned vcpu);
	void (*sipi)(void *opaque, unsigned vcpu, uint8_t vector);
	void *opaque;
};

/* What a machine does when a device asks. Any thread (vCPU threads mostly); never blocks. */
enum machine_event {
	MACHINE_POWEROFF,   /* ACPI S5 */
	MACHINE_RESET,	    /* reset register, i8042, port 92 */
	MACHINE_PANIC,	    /* pvpanic: the guest says that it has crashed */
	MACHINE_DEBUG_EXIT, /* debug-exit device: code = value written */
};
struct machine_sink {
	void (*event)(void *opaque, enum machine_event event, uint32_t code);
	void *opaque;
};

/* 16550A UART. line: the interrupt. With FIFOs, THRE/RDA/RLS/MSR interrupts, loopback, and
 * back-pressure: THRE stays clear while the back end does not take bytes. 8 ports at base. */
int serial8250_create(struct device **out, const char *name, struct io_space *ports, uint16_t base,
		      struct irq_line line, struct chardev *chr);

/* MC146818 RTC + 128 bytes of CMOS at 70h/71h, alarm, periodic and update interrupts; century at
 * 32h. */
int rtc_cmos_create(struct device **out, struct io_space *ports, struct irq_line line,
		    const struct clock_source *clock, const struct timer_source *timers);

/* i8042 with no keyboard attached (self-test answers), reset by FEh; port 92h (A20 always on; fast
 * reset). */
int i8042_create(struct device **out, struct io_space *ports, struct irq_line kbd,
		 struct irq_line aux, const struct machine_sink *sink);

/* i8254 PIT at 40h-43h + speaker port 61h. */
int pit_create(struct device **out, struct io_space *ports, struct irq_line irq0,
	       const struct clock_source *clock, const struct timer_source *timers);

/* Two i8259A at 20h/A0h with ELCR at 4D0h. output: its INTR line (to LINT0 of the LAPIC of vCPU 0).
 * Its inputs are pic_line(). */
int pic_create(struct device **out, struct io_space *ports, struct irq_line output);
struct irq_line pic_line(struct device *pic, unsigned n);
int pic_ack(struct device *pic); /* the INTA cycle: vector (spurious: IRQ 7's/15's) */

/* One device for the LAPICs of all vCPUs (SDM vol. 3A chapter 11): xAPIC page at FEE00000h (region
 * on `mmio`), x2APIC and IA32_APIC_BASE through MSRs, timer in one-shot, periodic and TSC-deadline
 * mode, LINT0 with ExtINT from the PIC, NMI, IPIs in physical and logical (flat, cluster, x2APIC)
 * mode, INIT/SIPI, TPR. */
struct tsc_source {
	uint64_t (*read)(void *opaque, unsigned vcpu); /* the vCPU's TSC now, adjustment included */
	/* guest time in ns (clock_source) at which that vCPU's TSC reaches `tsc` (past values: now)
	 */
	uint64_t (*deadline)(void *opaque, unsigned vcpu, uint64_t tsc);
	void *opaque;
};
struct lapic_config {
	unsigned vcpus;
	uint64_t timer_hz; /* the input clock of the APIC timer = core crystal of CPUID 15h */
	const struct cpu_pins *pins;
	const struct clock_source *clock;
	const struct timer_source *timers;
	const struct tsc_source *tsc;
};
int lapic_create(struct device **out, struct io_space *mmio, const struct lapic_config *config);
void lapic_set_pic(struct device *lapic, struct device *pic);
/* The PIC's output pin (LINT0 of vCPU 0, wire mode of others). */
struct irq_line lapic_lint0(struct device *lapic);
int lapic_ack(struct device *lapic, unsigned vcpu);	 /* vector, or -1 */
bool lapic_pending(struct device *lapic, unsigned vcpu); /* something deliverable (as on the pin) */
uint8_t lapic_get_cr8(struct device *lapic, unsigned vcpu);
void lapic_set_cr8(struct device *lapic, unsigned vcpu, uint8_t cr8);
/* 0 handled, 1 not a LAPIC MSR, 2 #GP. Handles 1Bh (IA32_APIC_BASE), 6E0h (IA32_TSC_DEADLINE),
 * 800h-8FFh. */
int lapic_rdmsr(struct device *lapic, unsigned vcpu, uint32_t msr, uint64_t *value);
int lapic_wrmsr(struct device *lapic, unsigned vcpu, uint32_t msr, uint64_t value);
/* IA32_APIC_BASE[11]: CPUID.1:EDX[9] shows it (SDM 11.4.3). */
bool lapic_enabled(struct device *lapic, unsigned vcpu);
/* vCPU's INIT: LAPIC state after INIT (SDM 11.4.7.3). */
void lapic_init_vcpu(struct device *lapic, unsigned vcpu);
/* The vCPU's TSC was moved (IA32_TSC written, TSC_ADJUST, resume): recompute an armed deadline. */
void lapic_tsc_changed(struct device *lapic, unsigned vcpu);
/* A message (address/data as in PCI MSI, SDM 11.11): IOAPIC and later MSI-X use it. Any thread.
 * Returns how many APICs accepted it. */
int lapic_msi(struct device *lapic, uint64_t addr, uint32_t data);
/* EOI of a level interrupt is told to the IOAPIC (ioapic_create does this). */
void lapic_set_eoi(struct device *lapic, void (*eoi)(void *opaque, uint8_t vector), void *opaque);

/* IOAPIC, 24 pins, at FEC00000h. Inputs are ioapic_line(); messages go to lapic_msi. */
int ioapic_create(struct device **out, struct io_space *mmio, struct device *lapic, uint8_t id);
struct irq_line ioapic_line(struct device *ioapic, unsigned n);

/* ACPI PM1 event/control block (base: PM1_EVT 4 ports, base+4: PM1_CNT 2), PM timer (base+8, 4
 * ports, 3.579545 MHz, 32 bits), reset register at base+12 (value 1), GPE-less. SCI_EN reads 1. S5:
 * SLP_TYP 5. */
int acpi_pm_create(struct device **out, struct io_space *ports, uint16_t base, struct irq_line sci,
		   const struct clock_source *clock, const struct machine_sink *sink);
void acpi_pm_power_button(struct device *pm); /* any thread */

/* pvpanic at port 505h (bit 0 panicked, bit 1 crash loaded); reads say 1 (what is supported). */
int pvpanic_create(struct device **out, struct io_space *ports, const struct machine_sink *sink);

/* Test device: a write to `port` (4 ports) ends the VMM with exit status (value << 1) | 1. */
int debug_exit_create(struct device **out, struct io_space *ports, uint16_t port,
		      const struct machine_sink *sink);

#endif
