/* Start of the other processors and handing them work. */
#include "guest.h"

extern u8 ap_trampoline[], ap_trampoline_end[];
extern volatile u32 cpu_next;
static volatile u32 online_count = 1;

#define TRAMPOLINE 0x8000

void start_ap(u32 index);
void start_ap(u32 index)
{
	struct cpu *c = cpu_get(index);

	c->index = index;
	cpu_load_tables(c);
	lapic_enable();
	c->apic_id = lapic_read(LAPIC_ID) >> 24;
	c->online = true;
	__atomic_add_fetch(&online_count, 1, __ATOMIC_SEQ_CST);
	for (;;) {
		if (c->busy) {
			c->fn(c->arg);
			__atomic_store_n(&c->busy, false, __ATOMIC_SEQ_CST);
		}
		cpu_relax();
	}
}

/*
 * INIT, 10 ms, SIPI, 200 us, SIPI to all others (SDM vol. 3A 9.4.4.1). "cpus=" on the command line
 * says how many there must be; without it those that came within a fifth of a second count.
 */
void smp_start(void)
{
	u32 want = (u32)argument("cpus", 0);
	static bool started;

	if (started)
		return;
	started = true;
	if (want > MAX_CPUS)
		panic("cpus=%u: this runtime has room for %u", want, MAX_CPUS);
	memcpy((void *)TRAMPOLINE, ap_trampoline, (size_t)(ap_trampoline_end - ap_trampoline));
	lapic_ipi(0, ICR_INIT | ICR_ASSERT | ICR_OTHERS);
	delay_us(10000);
	lapic_ipi(0, ICR_SIPI | ICR_ASSERT | ICR_OTHERS | TRAMPOLINE >> 12);
	delay_us(200);
	lapic_ipi(0, ICR_SIPI | ICR_ASSERT | ICR_OTHERS | TRAMPOLINE >> 12);
	if (want)
		wait_for(&online_count, want, 20000000);
	else
		delay_us(200000);
	cpu_count = online_count;
	if (want && cpu_count != want)
		panic("%u of %u processors started", cpu_count, want);
}

void smp_run(u32 i, void (*fn)(void *), void *arg)
{
	struct cpu *c = cpu_get(i);

	smp_wait(i);
	c->fn = fn;
	c->arg = arg;
	__atomic_store_n(&c->busy, true, __ATOMIC_SEQ_CST);
}

void smp_wait(u32 i)
{
	while (cpu_get(i)->busy)
		cpu_relax();
}

void smp_run_all(void (*fn)(void *), void *arg)
{
	for (u32 i = 1; i < cpu_count; i++)
		smp_run(i, fn, arg);
	fn(arg);
	for (u32 i = 1; i < cpu_count; i++)
		smp_wait(i);
}
