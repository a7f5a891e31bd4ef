#include "cpu/soft/soft.h"
#include "migration/clock.h"

static uint64_t bus_mmio_read(void *opaque, uint64_t gpa, unsigned size)
{
	struct soft_vcpu *v = opaque;
	const struct cpu_bus *bus = v->engine->config.bus;

	soft_count(v, COUNT_MMIO);
	return bus->mmio_read(bus->opaque, v->index, gpa, size);
}

static void bus_mmio_write(void *opaque, uint64_t gpa, unsigned size, uint64_t value)
{
	struct soft_vcpu *v = opaque;
	const struct cpu_bus *bus = v->engine->config.bus;

	soft_count(v, COUNT_MMIO);
	bus->mmio_write(bus->opaque, v->index, gpa, size, value);
}

static uint32_t bus_pio_read(void *opaque, uint16_t port, unsigned size)
{
	struct soft_vcpu *v = opaque;
	const struct cpu_bus *bus = v->engine->config.bus;

	soft_count(v, COUNT_PIO);
	return (uint32_t)bus->pio_read(bus->opaque, v->index, port, size);
}

static void bus_pio_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	struct soft_vcpu *v = opaque;
	const struct cpu_bus *bus = v->engine->config.bus;

	soft_count(v, COUNT_PIO);
	bus->pio_write(bus->opaque, v->index, port, size, value);
}

static int bus_irq_ack(void *opaque)
{
	struct soft_vcpu *v = opaque;
	const struct cpu_bus *bus = v->engine->config.bus;

	soft_count(v, COUNT_INTERRUPTS);
	return bus->irq_ack(bus->opaque, v->index);
}

static uint64_t bus_tsc(void *opaque)
{
	struct soft_vcpu *v = opaque;
	const struct cpu_bus *bus = v->engine->config.bus;

	return bus->tsc(bus->opaque, v->index);
}

static int bus_rdmsr(void *opaque, uint32_t msr, uint64_t *value)
{
	struct soft_vcpu *v = opaque;
	const struct cpu_bus *bus = v->engine->config.bus;

	soft_count(v, COUNT_MSR);
	return bus->rdmsr(bus->opaque, v->index, msr, value);
}

static int bus_wrmsr(void *opaque, uint32_t msr, uint64_t value)
{
	struct soft_vcpu *v = opaque;
	const struct cpu_bus *bus = v->engine->config.bus;

	soft_count(v, COUNT_MSR);
	return bus->wrmsr(bus->opaque, v->index, msr, value);
}

static void bus_cpuid(void *opaque, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	struct soft_vcpu *v = opaque;
	const struct cpu_bus *bus = v->engine->config.bus;

	bus->cpuid(bus->opaque, v->index, leaf, subleaf, out);
}

static uint64_t bus_cr8_read(void *opaque)
{
	struct soft_vcpu *v = opaque;
	const struct cpu_bus *bus = v->engine->config.bus;

	return bus->get_cr8(bus->opaque, v->index);
}

static void bus_cr8_write(void *opaque, uint64_t value)
{
	struct soft_vcpu *v = opaque;
	const struct cpu_bus *bus = v->engine->config.bus;

	bus->set_cr8(bus->opaque, v->index, value);
}

/* RAM, MMIO or a failure, by the second stage alone. */
static int second_stage(struct soft_vcpu *v, uint64_t gpa, uint32_t need, struct s2_xlat *x)
{
	if (s2_translate(v->s2, gpa, need, x))
		return UC_VCPU_XLAT_RAM;
	soft_count(v, COUNT_FAULTS);
	switch (s2_fault(v->s2, gpa, need, x)) {
	case S2_FIXED:
	case S2_SPURIOUS: return UC_VCPU_XLAT_RAM;
	case S2_RETRY:
		/* Whoever changes the entry may be waiting for this vCPU to flush: leave, serve,
		 * come back. */
		v->retry = true;
		return UC_VCPU_XLAT_FAULT;
	case S2_MISSING:
		v->missing = true;
		v->missing_gpa = gpa;
		return UC_VCPU_XLAT_FAULT;
	case S2_EMULATE:
	case S2_INVALID: return UC_VCPU_XLAT_MMIO; /* beyond the bus: reads as ones */
	case S2_NOMEM: v->failure = "no memory for second-stage tables"; return UC_VCPU_XLAT_FAULT;
	default: v->failure = "unexpected second-stage fault"; return UC_VCPU_XLAT_FAULT;
	}
}

static int conflict(struct soft_vcpu *v, uint32_t page, enum claim want)
{
	v->conflict.valid = true;
	v->conflict.page = page;
	v->conflict.want = want;
	return UC_VCPU_XLAT_FAULT;
}

static void note_begin(struct soft_vcpu *v)
{
	atomic_store_explicit(&v->begun, clock_now(), memory_order_relaxed);
}

static int bus_translate(void *opaque, uint64_t gpa, uint64_t gva, uint32_t access, uint32_t walk,
			 uc_vcpu_xlat *out)
{
	struct soft_vcpu *v = opaque;
	const uint32_t need = access & UC_VCPU_WRITE ? S2_W : access & UC_VCPU_FETCH ? S2_X : S2_R;
	struct s2_xlat x;
	uint32_t page, me;
	uint16_t state;
	int kind;

	(void)gva, (void)walk;
	soft_count(v, COUNT_TRANSLATES);
	kind = second_stage(v, gpa, need, &x);
	if (kind != UC_VCPU_XLAT_RAM)
		return kind;
	page = (uint32_t)(x.hpa >> 12);
	if ((access & UC_VCPU_WRITE) && soft_claim(v, page, CLAIM_WRITE))
		return conflict(v, page, CLAIM_WRITE);
	if ((access & UC_VCPU_FETCH) && soft_claim(v, page, CLAIM_CODE))
		return conflict(v, page, CLAIM_CODE);
	if ((access & UC_VCPU_FETCH) && !atomic_load_explicit(&v->begun, memory_order_relaxed))
		note_begin(v);
	out->hpa = x.hpa;
	out->prot = UC_PROT_READ;
	/* A TLB entry may hold what is claimed and nothing more: the rest is asked for when it is
	 * used. */
	state = atomic_load_explicit(&v->engine->pages[page], memory_order_relaxed);
	me = 1u << v->index;
	if (v->engine->config.vcpus == 1)
		state |= 0xff00; /* nobody to conflict with */
	if ((x.perm & S2_W) && ((state >> 8) & me))
		out->prot |= UC_PROT_WRITE;
	if ((x.perm & S2_X) && (state & me))
		out->prot |= UC_PROT_EXEC;
	return UC_VCPU_XLAT_RAM;
}

const uc_vcpu_ops soft_vcpu_ops = {
	.translate = bus_translate,
	.mmio_read = bus_mmio_read,
	.mmio_write = bus_mmio_write,
	.pio_read = bus_pio_read,
	.pio_write = bus_pio_write,
	.irq_ack = bus_irq_ack,
	.tsc = bus_tsc,
	.rdmsr = bus_rdmsr,
	.wrmsr = bus_wrmsr,
	.cpuid = bus_cpuid,
	.cr8_read = bus_cr8_read,
	.cr8_write = bus_cr8_write,
};
