/* What reaches ferry from a running vCPU: ports, MMIO, MSRs, CPUID, the clock. Every engine calls
 * the same. */
#include "vmm/board/pc.h"
#include "vmm/vm_internal.h"

static uint64_t bus_pio_read(void *opaque, unsigned vcpu, uint16_t port, unsigned size)
{
	struct vm *vm = opaque;

	return io_space_read(&vm->board.ports, vcpu, port, size);
}

static void bus_pio_write(void *opaque, unsigned vcpu, uint16_t port, unsigned size, uint64_t value)
{
	struct vm *vm = opaque;

	io_space_write(&vm->board.ports, vcpu, port, size, value);
}

static uint64_t bus_mmio_read(void *opaque, unsigned vcpu, uint64_t gpa, unsigned size)
{
	struct vm *vm = opaque;

	return io_space_read(&vm->board.mmio, vcpu, gpa, size);
}

static void bus_mmio_write(void *opaque, unsigned vcpu, uint64_t gpa, unsigned size, uint64_t value)
{
	struct vm *vm = opaque;

	io_space_write(&vm->board.mmio, vcpu, gpa, size, value);
}

static int bus_rdmsr(void *opaque, unsigned vcpu, uint32_t msr, uint64_t *value)
{
	struct vm *vm = opaque;
	int ret = lapic_rdmsr(vm->board.lapic, vcpu, msr, value);

	return ret == 1 ? x86_rdmsr(&vm->vcpu[vcpu].state, &vm->msr_ops, vcpu, msr, value) : ret;
}

static int bus_wrmsr(void *opaque, unsigned vcpu, uint32_t msr, uint64_t value)
{
	struct vm *vm = opaque;
	int ret = lapic_wrmsr(vm->board.lapic, vcpu, msr, value);

	return ret == 1 ? x86_wrmsr(&vm->vcpu[vcpu].state, &vm->msr_ops, vcpu, msr, value) : ret;
}

static void bus_cpuid(void *opaque, unsigned vcpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	struct vm *vm = opaque;

	x86_cpuid(&vm->cpuid, vcpu, leaf, subleaf, out);
	/* EDX.APIC says whether it is enabled now (SDM vol. 3A 11.4.3). The question also comes
	 * while the machine is being made. */
	if (leaf == 1 && vm->board.lapic) {
		uint64_t base;

		if (lapic_rdmsr(vm->board.lapic, vcpu, 0x1b, &base) == 0 && !(base & 1 << 11))
			out[3] &= ~(1u << 9);
	}
}

static int bus_irq_ack(void *opaque, unsigned vcpu)
{
	struct vm *vm = opaque;

	return lapic_ack(vm->board.lapic, vcpu);
}

static uint64_t bus_get_cr8(void *opaque, unsigned vcpu)
{
	struct vm *vm = opaque;

	return lapic_get_cr8(vm->board.lapic, vcpu);
}

static void bus_set_cr8(void *opaque, unsigned vcpu, uint64_t value)
{
	struct vm *vm = opaque;

	lapic_set_cr8(vm->board.lapic, vcpu, (uint8_t)value);
}

/* Guest TSC = machine clock, scaled, + TSC_ADJUST: one clock for all vCPUs, whatever core they run
 * on. */
static uint64_t scale(uint64_t value, uint64_t mul, uint64_t div)
{
	return mul == div ? value : (uint64_t)((unsigned __int128)value * mul / div);
}

uint64_t vm_tsc(const struct vm *vm, unsigned vcpu)
{
	const struct clock_source *clock = loop_clock(vm->loop);

	return scale(clock->now(clock->opaque), vm->cpuid.tsc_hz, 1000000000) +
	       vm->vcpu[vcpu].state.tsc_adjust;
}

static uint64_t tsc_read(void *opaque, unsigned vcpu)
{
	return vm_tsc(opaque, vcpu);
}

static uint64_t tsc_deadline(void *opaque, unsigned vcpu, uint64_t tsc)
{
	struct vm *vm = opaque;
	const uint64_t adjust = vm->vcpu[vcpu].state.tsc_adjust;

	/* A deadline before the machine's own zero has passed already. */
	if ((int64_t)(tsc - adjust) <= 0)
		return 0;
	return scale(tsc - adjust, 1000000000, vm->cpuid.tsc_hz);
}

static void tsc_moved(void *opaque, unsigned vcpu)
{
	struct vm *vm = opaque;

	lapic_tsc_changed(vm->board.lapic, vcpu);
}

void dispatch_init(struct vm *vm)
{
	vm->bus = (struct cpu_bus){
		.opaque = vm,
		.pio_read = bus_pio_read,
		.pio_write = bus_pio_write,
		.mmio_read = bus_mmio_read,
		.mmio_write = bus_mmio_write,
		.rdmsr = bus_rdmsr,
		.wrmsr = bus_wrmsr,
		.cpuid = bus_cpuid,
		.tsc = tsc_read,
		.irq_ack = bus_irq_ack,
		.get_cr8 = bus_get_cr8,
		.set_cr8 = bus_set_cr8,
	};
	vm->tsc = (struct tsc_source){.read = tsc_read, .deadline = tsc_deadline, .opaque = vm};
	vm->msr_ops = (struct x86_msr_ops){.opaque = vm, .tsc = tsc_read, .tsc_moved = tsc_moved};
	vm->cpuid.vcpus = vm->vcpu_count;
	vm->cpuid.tsc_hz = PC_TSC_HZ;
	vm->cpuid.crystal_hz = PC_CRYSTAL_HZ;
}
