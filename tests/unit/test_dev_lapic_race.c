/*
 * vCPU threads that send each other interrupts, take them and write deadlines, while the event
 * loop's thread runs timers and moves lines. Each request must be seen: the last IPI may not be
 * lost. Run it under -fsanitize=thread too: races and lock orders that can deadlock are reported
 * there.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "devices/pc.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define VCPUS  3
#define ROUNDS 2000
#define APIC   0xfee00000ULL
#define IPI    0x60
#define TIMER  0xec

static struct io_space mmio, ports;
static struct device *lapic, *pic, *ioapic;
static _Atomic uint64_t clock_ns = 1000;
static _Atomic bool pin[VCPUS], done;
static _Atomic unsigned sent[VCPUS], seen[VCPUS], ipis, ticks, levels, finished;
static unsigned failures;

struct vtimer {
	void (*fn)(void *arg);
	void *arg;
	_Atomic uint64_t deadline;
};
static struct vtimer timers[16];
static unsigned timer_count;

static uint64_t now(void *opaque)
{
	(void)opaque;
	return atomic_fetch_add(&clock_ns, 10);
}

static int64_t wall(void *opaque)
{
	(void)opaque;
	return 0;
}

static struct vtimer *timer_create_(void *opaque, void (*fn)(void *arg), void *arg,
				    const char *name)
{
	struct vtimer *t = &timers[timer_count++];

	(void)opaque, (void)name;
	t->fn = fn;
	t->arg = arg;
	return t;
}

static void timer_set(struct vtimer *t, uint64_t deadline)
{
	atomic_store(&t->deadline, deadline);
}

static void timer_destroy(struct vtimer *t)
{
	timer_set(t, 0);
}

static void pin_intr(void *opaque, unsigned vcpu, bool level)
{
	(void)opaque;
	atomic_store(&pin[vcpu], level);
}

static void pin_event(void *opaque, unsigned vcpu)
{
	(void)opaque, (void)vcpu;
}

static void pin_sipi(void *opaque, unsigned vcpu, uint8_t vector)
{
	(void)opaque, (void)vcpu, (void)vector;
}

static uint64_t tsc(void *opaque, unsigned vcpu)
{
	(void)vcpu;
	return now(opaque);
}

static uint64_t deadline(void *opaque, unsigned vcpu, uint64_t value)
{
	(void)opaque, (void)vcpu;
	return value;
}

static void io_write(uint64_t addr, unsigned vcpu, uint32_t value)
{
	io_space_write(&mmio, vcpu, addr, 4, value);
}

/* Takes what is at the pin, as an engine does. */
static void take(unsigned vcpu)
{
	const struct irq_line line = ioapic_line(ioapic, 10);
	int vector;

	if (!atomic_load(&pin[vcpu]))
		return;
	vector = lapic_ack(lapic, vcpu);
	switch (vector) {
	case IPI:
		/* Requests merge: this one stands for all that were sent until now. */
		atomic_store(&seen[vcpu], atomic_load(&sent[vcpu]));
		atomic_fetch_add(&ipis, 1);
		break;
	case TIMER:
		atomic_fetch_add(&ticks, 1);
		lapic_wrmsr(lapic, vcpu, 0x6e0, tsc(NULL, vcpu) + 3000);
		break;
	case 0x51:
		atomic_fetch_add(&levels, 1);
		irq_set(&line, false);
		break;
	case -1: return;
	default:
		if (vector >= 0x30 && vector < 0x40) { /* the PIC's */
			io_space_write(&ports, vcpu, 0x20, 1, 0x20);
			return;
		}
		printf("vcpu %u: vector 0x%x out of nowhere\n", vcpu, vector);
		failures++;
		break;
	}
	lapic_wrmsr(lapic, vcpu, 0x80b, 0);
}

/* More than one: the PIC's come first, and on a single processor the event loop's thread may raise
 * another one before each look. */
static void serve(unsigned vcpu)
{
	for (int i = 0; i < 4; i++)
		take(vcpu);
}

/* Each vCPU interrupts the next one and waits until that has seen it, ROUNDS times. */
static void *vcpu_main(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg, peer = (me + 1) % VCPUS;

	lapic_wrmsr(lapic, me, 0x832, 0x40000 | TIMER);
	lapic_wrmsr(lapic, me, 0x6e0, tsc(NULL, me) + 1000);
	for (unsigned i = 0; i < ROUNDS; i++) {
		unsigned seq = atomic_fetch_add(&sent[peer], 1) + 1;

		lapic_wrmsr(lapic, me, 0x830, (uint64_t)peer << 32 | IPI);
		if (i % 16 == 0)
			lapic_wrmsr(lapic, me, 0x830, 0xc0000 | IPI);
		lapic_set_cr8(lapic, me, i & 1 ? 3 : 0);
		while (atomic_load(&seen[peer]) < seq && !atomic_load(&done)) {
			serve(me);
			sched_yield();
		}
	}
	atomic_fetch_add(&finished, 1);
	while (!atomic_load(&done)) {
		serve(me);
		sched_yield();
	}
	return NULL;
}

static void run_timers(void)
{
	for (unsigned i = 0; i < timer_count; i++) {
		uint64_t at = atomic_load(&timers[i].deadline);

		if (at && at <= now(NULL) &&
		    atomic_compare_exchange_strong(&timers[i].deadline, &at, 0))
			timers[i].fn(timers[i].arg);
	}
}

static int create(void)
{
	static const struct cpu_pins pins = {pin_intr, pin_event, pin_event, pin_sipi, NULL};
	static const struct clock_source clock_source = {now, wall, NULL};
	static const struct timer_source timer_source = {timer_create_, timer_set, timer_destroy,
							 NULL};
	static const struct tsc_source tsc_source = {tsc, deadline, NULL};
	const struct lapic_config config = {.vcpus = VCPUS,
					    .timer_hz = 1000000000,
					    .pins = &pins,
					    .clock = &clock_source,
					    .timers = &timer_source,
					    .tsc = &tsc_source};
	static const uint8_t icw[] = {0x11, 0x30, 0x04, 0x01, 0x00};

	if (lapic_create(&lapic, &mmio, &config) || pic_create(&pic, &ports, lapic_lint0(lapic)) ||
	    ioapic_create(&ioapic, &mmio, lapic, 0))
		return 1;
	lapic_set_pic(lapic, pic);
	for (unsigned i = 0; i < 5; i++)
		io_space_write(&ports, 0, i ? 0x21 : 0x20, 1, icw[i]);
	for (unsigned i = 0; i < VCPUS; i++) {
		lapic_wrmsr(lapic, i, 0x1b, APIC | 3 << 10 | (i ? 0 : 0x100));
		lapic_wrmsr(lapic, i, 0x80f, 0x1ff);
	}
	lapic_wrmsr(lapic, 0, 0x835, 0x700);
	io_write(0xfec00000, 0, 0x25); /* pin 10: level, vector 51h, to vCPU 1 */
	io_write(0xfec00010, 0, 1 << 24);
	io_write(0xfec00000, 0, 0x24);
	io_write(0xfec00010, 0, 0x8051);
	return 0;
}

int main(void)
{
	pthread_t threads[VCPUS];
	time_t start = time(NULL);
	struct irq_line level, irq1;

	if (create())
		return 1;
	level = ioapic_line(ioapic, 10);
	irq1 = pic_line(pic, 1);
	for (uintptr_t i = 0; i < VCPUS; i++)
		if (pthread_create(&threads[i], NULL, vcpu_main, (void *)i))
			return 77;
	/* The vCPUs may be through before a busy host has let this thread do anything: they go on
	 * taking what comes. */
	while ((atomic_load(&finished) < VCPUS || !atomic_load(&ticks) || !atomic_load(&levels)) &&
	       time(NULL) - start < 60) {
		run_timers();
		irq_set(&level, true);
		irq_set(&irq1, false);
		irq_set(&irq1, true);
		sched_yield();
	}
	if (atomic_load(&finished) < VCPUS) {
		printf("a vCPU waits for an interrupt that was lost\n");
		failures++;
	}
	atomic_store(&done, true);
	for (unsigned i = 0; i < VCPUS; i++)
		pthread_join(threads[i], NULL);
	for (unsigned i = 0; i < VCPUS; i++)
		if (lapic_pending(lapic, i) != atomic_load(&pin[i]))
			failures++;
	if (!atomic_load(&ticks) || !atomic_load(&levels))
		failures++;
	printf("lapic race: %u IPIs taken of %u sent, %u ticks, %u levels, %u failures\n", ipis,
	       VCPUS * (ROUNDS + 2 * (ROUNDS / 16)), ticks, levels, failures);
	ioapic->ops->destroy(ioapic);
	pic->ops->destroy(pic);
	lapic->ops->destroy(lapic);
	io_space_free(&mmio);
	io_space_free(&ports);
	return failures != 0;
}
