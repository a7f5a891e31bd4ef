/*
 * Inside of the local APICs: Intel SDM vol. 3A chapter 11 (numbering of edition 2023-06 and later;
 * it was chapter 10 before). Public calls are in devices/pc.h.
 *
 * One lock for each vCPU's APIC; no call takes two of them. A target's address (mode, logical id)
 * is published as one word, so that a sender finds its targets without their locks. Under a lock
 * only cpu_pins.intr and timers are called; NMI, INIT, SIPI, the PIC and the IOAPIC are called
 * after it was dropped.
 */
#ifndef DEVICES_LAPIC_LAPIC_H
#define DEVICES_LAPIC_LAPIC_H

#include <pthread.h>

#include "devices/pc.h"
#include "devices/util.h"

#define APIC_BASE_DEFAULT 0xfee00000ULL
#define APIC_BASE_BSP	  (1ULL << 8)
#define APIC_BASE_X2APIC  (1ULL << 10)
#define APIC_BASE_ENABLE  (1ULL << 11)
#define APIC_BASE_FLAGS	  (APIC_BASE_BSP | APIC_BASE_X2APIC | APIC_BASE_ENABLE)

/* Register offsets of the xAPIC page (table 11-1). */
enum lapic_reg {
	REG_ID = 0x020,
	REG_VERSION = 0x030,
	REG_TPR = 0x080,
	REG_APR = 0x090,
	REG_PPR = 0x0a0,
	REG_EOI = 0x0b0,
	REG_RRD = 0x0c0,
	REG_LDR = 0x0d0,
	REG_DFR = 0x0e0,
	REG_SVR = 0x0f0,
	REG_ISR = 0x100,
	REG_TMR = 0x180,
	REG_IRR = 0x200,
	REG_ESR = 0x280,
	REG_ICR = 0x300,
	REG_ICR2 = 0x310,
	REG_LVT = 0x320,
	REG_LVT_END = 0x380,
	REG_TMICT = 0x380,
	REG_TMCCT = 0x390,
	REG_TDCR = 0x3e0,
	REG_SELF_IPI = 0x3f0,
};

enum lapic_lvt { LVT_TIMER, LVT_THERMAL, LVT_PMC, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };

#define LAPIC_VERSION  (0x14u | (LVT_COUNT - 1) << 16)
#define LAPIC_MAX_CPUS 255

#define LVT_PENDING    (1u << 12)
#define LVT_REMOTE_IRR (1u << 14)
#define LVT_LEVEL      (1u << 15)
#define LVT_MASKED     (1u << 16)

#define SVR_ENABLED  (1u << 8)
#define SVR_WRITABLE 0x3ffu /* bit 12 (no EOI broadcasts) is not offered */

/* Delivery modes (11.6.1). */
enum { DM_FIXED, DM_LOWEST, DM_SMI, DM_RESERVED, DM_NMI, DM_INIT, DM_SIPI, DM_EXTINT };

enum { TIMER_ONESHOT, TIMER_PERIODIC, TIMER_DEADLINE, TIMER_RESERVED };

#define ESR_SEND_ILLEGAL 0x20u
#define ESR_RECV_ILLEGAL 0x40u
#define ESR_REG_ILLEGAL	 0x80u
#define ESR_MASK	 0xe0u

struct lapics;

struct lapic {
	pthread_mutex_t lock;
	struct lapics *set;
	unsigned vcpu; /* also the APIC ID, which the guest can't change */
	struct vtimer *vtimer;
	bool pin; /* what cpu_pins.intr was told last; written under the lock */

	uint64_t base; /* IA32_APIC_BASE */
	uint64_t icr;
	uint32_t ldr, dfr; /* of xAPIC mode */
	uint32_t svr, esr, esr_pending;
	uint32_t isr[8], irr[8], tmr[8];
	uint32_t lvt[LVT_COUNT];
	uint32_t tmict, tdcr;
	uint32_t count_from; /* the timer's count at count_ns */
	uint64_t count_ns;
	uint64_t expiry_ns; /* guest time of the armed timer; 0: none */
	uint64_t tsc_deadline;
	uint8_t tpr;
	bool lint0;  /* level of the pin */
	bool extint; /* an ExtINT message came */
};

/* How to address one APIC: bits 31:0 logical id, then flags. */
#define DEST_X2APIC  (1ULL << 32)
#define DEST_CLUSTER (1ULL << 33) /* xAPIC with the cluster model */
#define DEST_ENABLED (1ULL << 34) /* IA32_APIC_BASE[11] */
#define DEST_ACCEPTS (1ULL << 35) /* also enabled in the SVR: takes fixed interrupts */

struct lapics {
	struct device dev;
	struct io_space *mmio;
	unsigned count;
	struct cpu_pins pins;
	struct clock_source clock;
	struct timer_source timers;
	struct tsc_source tsc;
	uint64_t timer_hz;
	struct device *pic;
	void (*eoi)(void *opaque, uint8_t vector);
	void *eoi_opaque;
	struct state_desc desc; /* the table is made for this number of vCPUs */
	struct field fields[2];
	uint64_t *dest; /* atomic; see above */
	uint8_t *ppr;	/* atomic; for lowest priority arbitration */
	unsigned turn;	/* atomic; equal priorities take turns */
	struct lapic cpu[];
};

static inline bool lapic_is_x2apic(const struct lapic *l)
{
	return (l->base & (APIC_BASE_ENABLE | APIC_BASE_X2APIC)) ==
	       (APIC_BASE_ENABLE | APIC_BASE_X2APIC);
}

static inline bool lapic_is_xapic(const struct lapic *l)
{
	return (l->base & (APIC_BASE_ENABLE | APIC_BASE_X2APIC)) == APIC_BASE_ENABLE;
}

static inline uint32_t lapic_x2apic_ldr(unsigned id)
{
	return (id >> 4) << 16 | 1u << (id & 15);
}

static inline struct lapic *lapic_get(struct device *dev, unsigned vcpu)
{
	struct lapics *set = (struct lapics *)dev;

	return vcpu < set->count ? &set->cpu[vcpu] : NULL;
}

/* What must happen once the lock is dropped. */
struct lapic_after {
	bool nmi, init, eoi;
	uint8_t eoi_vector;
	bool send; /* an ICR was written */
	uint64_t icr;
	bool x2apic; /* the ICR's destination is 32 bits wide */
};
void lapic_after(struct lapic *l, const struct lapic_after *after);

/* ---- state.c: all with the lock held ---- */

/* The state after INIT (11.4.7.3); the APIC ID and IA32_APIC_BASE stay. */
void lapic_clear(struct lapic *l);
void lapic_publish(struct lapic *l); /* after a change of base, ldr, dfr or svr */

/* ---- priority.c: with the lock held ---- */

void lapic_update(
	struct lapic *l); /* tell the pin, after a change of irr, isr, tpr, lint0, lvt, base */
uint8_t lapic_ppr(const struct lapic *l);
bool lapic_takes_extint(const struct lapic *l);
void lapic_request(struct lapic *l, uint8_t vector,
		   bool level); /* a legal vector; calls lapic_update */
void lapic_error(struct lapic *l, uint32_t bits);
void lapic_eoi(struct lapic *l, struct lapic_after *after);
/* A local source at this LVT entry fires. */
void lapic_local(struct lapic *l, enum lapic_lvt n, struct lapic_after *after);

/* ---- deliver.c: without any lock ---- */

struct lapic_message {
	uint32_t dest;
	uint8_t vector, mode;
	bool logical, level;
	bool x2apic; /* dest has 32 bits, FFFFFFFFh is the broadcast; else 8 bits and FFh */
};
/* The number of APICs that took it. */
unsigned lapic_deliver(struct lapics *set, const struct lapic_message *msg);
void lapic_send_icr(struct lapic *l, uint64_t icr, bool x2apic);

/* ---- timer.c: with the lock held ---- */

unsigned lapic_timer_mode(const struct lapic *l);
void lapic_timer_stop(struct lapic *l);
void lapic_timer_set_count(struct lapic *l, uint32_t count);
void lapic_timer_set_divide(struct lapic *l, uint32_t value);
uint32_t lapic_timer_count(struct lapic *l);
void lapic_timer_lvt(struct lapic *l, uint32_t old); /* the LVT entry was written */
void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc);
void lapic_timer_catch_up(struct lapic *l); /* before the guest looks at what it has caused */
void lapic_timer_callback(void *lapic);

/* ---- regs.c: with the lock held ---- */

/* Reads a register at an offset of the page; false: there is none. */
bool lapic_reg_read(struct lapic *l, unsigned reg, uint32_t *value);
bool lapic_reg_write(struct lapic *l, unsigned reg, uint32_t value, struct lapic_after *after);
extern const struct io_region_ops lapic_mmio_ops;

#endif
