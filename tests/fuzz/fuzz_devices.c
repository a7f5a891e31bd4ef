/*
 * A whole board of legacy devices under a hostile guest: an input is a program of register
 * accesses, time, bytes from outside, interrupts taken, states saved, damaged and loaded. Beyond
 * the sanitizers' judgement: a state that a guest has brought about is always accepted again, saves
 * to the same bytes, and the pin of each processor shows what its APIC says.
 */
#include "tests/fuzz/fuzz_util.h"
#include "tests/unit/dev_apic.h"

#define FUZZ_CPUS 2

struct board {
	struct dev_apics a;
	struct irq_line isa[16];
	struct device *dev[16];
	unsigned devs;
	struct dev_events events;
	struct dev_chardev chr;
	struct field_buf saved;
};

enum op {
	OP_OUT,
	OP_IN,
	OP_LAPIC_WRITE,
	OP_LAPIC_READ,
	OP_IOAPIC,
	OP_TIME,
	OP_WRMSR,
	OP_RDMSR,
	OP_ACK,
	OP_SERIAL,
	OP_LINE,
	OP_MOVE,
	OP_DAMAGE,
	OP_RESET,
	OP_CR8,
	OP_MISC,
	OP_COUNT,
};

static void isa_set(void *opaque, unsigned n, bool level)
{
	struct board *b = opaque;
	const struct irq_line pic = pic_line(b->a.pic, n);
	const struct irq_line io = ioapic_line(b->a.ioapic, n ? n : 2);

	irq_set(&pic, level);
	if (n != 2)
		irq_set(&io, level);
}

static void keep(struct board *b, int ret)
{
	must(ret == 0);
	b->devs++;
}

static void start(struct board *b)
{
	const struct machine_sink sink = {dev_event, &b->events};
	struct dev_world *w = &b->a.w;

	b->devs = 0;
	b->events = (struct dev_events){0};
	dev_log_set_sink(fuzz_quiet, NULL);
	dev_chardev_init(&b->chr);
	apics_start(&b->a, FUZZ_CPUS);
	for (unsigned i = 0; i < 16; i++)
		b->isa[i] = (struct irq_line){isa_set, b, i};
	keep(b, serial8250_create(&b->dev[b->devs], "serial0", &w->ports, 0x3f8, b->isa[4],
				  &b->chr.chr));
	keep(b, pit_create(&b->dev[b->devs], &w->ports, b->isa[0], &w->clock, &w->timers));
	keep(b, rtc_cmos_create(&b->dev[b->devs], &w->ports, b->isa[8], &w->clock, &w->timers));
	keep(b, i8042_create(&b->dev[b->devs], &w->ports, b->isa[1], b->isa[12], &sink));
	keep(b, acpi_pm_create(&b->dev[b->devs], &w->ports, 0x600, b->isa[9], &w->clock, &sink));
	keep(b, pvpanic_create(&b->dev[b->devs], &w->ports, &sink));
	keep(b, debug_exit_create(&b->dev[b->devs], &w->ports, 0xf4, &sink));
	b->dev[b->devs++] = b->a.lapic;
	b->dev[b->devs++] = b->a.ioapic;
	b->dev[b->devs++] = b->a.pic;
}

static void stop(struct board *b)
{
	for (unsigned i = 0; i < b->devs - 3; i++)
		b->dev[i]->ops->destroy(b->dev[i]);
	for (unsigned i = 0; i < FUZZ_CPUS; i++)
		b->a.cpus.cpu[i].repeats = 0;
	apics_stop(&b->a);
	field_buf_free(&b->saved);
}

static uint16_t port(uint8_t n)
{
	static const uint16_t bases[] = {0x20, 0x3f8, 0x40, 0x60,  0x70,  0xa0, 0x4d0, 0x600,
					 0x92, 0x505, 0xf4, 0x608, 0x3fc, 0x64, 0x43,  0x61};

	return (uint16_t)(bases[n & 15] + (n >> 4));
}

static void damage(struct board *b, struct device *d, struct input *in)
{
	/* The timers of a refused machine may run once more before it is gone. */
	if (!fuzz_damage(d, &b->saved, in)) {
		dev_advance(&b->a.w, 1000000);
		stop(b);
		start(b);
	}
}

static void misc(struct board *b, uint64_t r)
{
	switch (r & 3) {
	case 0: acpi_pm_power_button(b->dev[4]); break;
	case 1: lapic_init_vcpu(b->a.lapic, r >> 2 & 1); break;
	case 2:
		lapic_msi(b->a.lapic, APIC | (r >> 8 & 0xff) << 12 | (r >> 2 & 4),
			  (uint32_t)(r >> 16));
		break;
	default:
		b->a.cpus.tsc_offset += r << 8;
		lapic_tsc_changed(b->a.lapic, r >> 2 & 1);
		break;
	}
}

static void serial(struct board *b, uint64_t r)
{
	static const uint8_t bytes[32] = "The quick brown fox jumps over";

	b->chr.out_len = 0;
	switch (r & 3) {
	case 0: dev_chardev_feed(&b->chr, bytes, r >> 3 & 31); break;
	case 1: b->chr.room = r >> 3; break;
	case 2: b->chr.client.writable(b->chr.client.opaque); break;
	default:
		b->dev[0]->ops->prepare(b->dev[0]);
		b->dev[0]->ops->acquire(b->dev[0]);
		break;
	}
}

static void step(struct board *b, struct input *in)
{
	uint8_t head = (uint8_t)take_bytes(in, 1);
	unsigned vcpu = head >> 7, size = 1u << (head >> 5 & 3);
	struct dev_world *w = &b->a.w;
	uint64_t value;
	uint8_t n;

	switch (head % OP_COUNT) {
	case OP_OUT:
		n = (uint8_t)take_bytes(in, 1);
		io_space_write(&w->ports, vcpu, port(n), size & 7 ? size : 1, take_bytes(in, 2));
		break;
	case OP_IN:
		io_space_read(&w->ports, vcpu, port((uint8_t)take_bytes(in, 1)),
			      size & 7 ? size : 1);
		break;
	case OP_LAPIC_WRITE:
		n = (uint8_t)take_bytes(in, 1);
		wr(&b->a, vcpu, (n & 63u) * 16, (uint32_t)take_bytes(in, 4));
		break;
	case OP_LAPIC_READ:
		io_space_read(&w->mmio, vcpu, APIC + take_bytes(in, 2) % 4096, size);
		break;
	case OP_IOAPIC:
		io_space_write(&w->mmio, vcpu, 0xfec00000, 4, take_bytes(in, 1) & 63);
		io_space_write(&w->mmio, vcpu, 0xfec00010, 4, take_bytes(in, 4));
		io_space_read(&w->mmio, vcpu, 0xfec00000 + (head >> 5 & 3) * 8, size);
		break;
	case OP_TIME: dev_advance(w, take_bytes(in, 2) << (head >> 4)); break;
	case OP_WRMSR:
		n = (uint8_t)take_bytes(in, 1);
		value = take_bytes(in, 5);
		if (n == 0x40)
			wrmsr(&b->a, vcpu, MSR_BASE, APIC | (value & 0xf00));
		else
			wrmsr(&b->a, vcpu, n == 0x41 ? MSR_DEADLINE : 0x800u + n, value);
		break;
	case OP_RDMSR: rdmsr(&b->a, vcpu, 0x800u + (uint8_t)take_bytes(in, 1)); break;
	case OP_ACK:
		if (lapic_ack(b->a.lapic, vcpu) >= 0 && (head & 0x20))
			wr(&b->a, vcpu, R_EOI, 0);
		break;
	case OP_SERIAL: serial(b, take_bytes(in, 1)); break;
	case OP_LINE:
		n = (uint8_t)take_bytes(in, 1);
		irq_set(&b->isa[n & 15], n >> 7);
		break;
	case OP_MOVE: fuzz_move(b->dev[take_bytes(in, 1) % b->devs], &b->saved); break;
	case OP_DAMAGE: damage(b, b->dev[take_bytes(in, 1) % b->devs], in); break;
	case OP_RESET:
		n = (uint8_t)(take_bytes(in, 1) % b->devs);
		b->dev[n]->ops->reset(b->dev[n]);
		break;
	case OP_CR8: lapic_set_cr8(b->a.lapic, vcpu, (uint8_t)take_bytes(in, 1)); break;
	default: misc(b, take_bytes(in, 6)); break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct board *b = calloc(1, sizeof(*b));
	struct input in = {data, len < 2048 ? len : 2048};

	if (!b)
		return 0;
	start(b);
	while (in.left) {
		step(b, &in);
		for (unsigned i = 0; i < FUZZ_CPUS; i++)
			must(lapic_pending(b->a.lapic, i) == b->a.cpus.cpu[i].intr);
	}
	stop(b);
	must(dev_failures == 0);
	free(b);
	return 0;
}

/* Programs of noise in which most steps hit a register. */
size_t fuzz_seed(unsigned n, uint8_t *buf, size_t max)
{
	return fuzz_noise(n, 77, buf, max);
}
