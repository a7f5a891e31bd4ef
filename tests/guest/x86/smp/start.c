/* All processors are there, and alike; INIT and SIPI. */
#include "smp.h"

/* ---- start
 * ---------------------------------------------------------------------------------------- */

static void test_ids(void)
{
	test_begin("smp: all processors start, with their own APIC ids");
	for (u32 i = 0; i < cpu_count; i++) {
		struct cpu *c = cpu_get(i);

		expect("online", true, c->online);
		expect("index", i, c->index);
		for (u32 k = 0; k < i; k++)
			expect("APIC id seen twice", false, c->apic_id == cpu_get(k)->apic_id);
	}
	test_end();
}

static struct cpuid leaf1[MAX_CPUS], leaf7[MAX_CPUS], leafb[MAX_CPUS];
static u64 apic_base[MAX_CPUS], cr0_seen[MAX_CPUS];

static void read_identity(void *arg)
{
	u32 me = this_cpu()->index;

	(void)arg;
	leaf1[me] = cpuid(1, 0);
	leaf7[me] = cpuid(7, 0);
	leafb[me] = cpuid(0xb, 0);
	apic_base[me] = rdmsr(MSR_APIC_BASE);
	cr0_seen[me] = read_cr0();
}

static void test_identity(void)
{
	smp_run_all(read_identity, NULL);
	test_begin("smp: CPUID and APIC base agree with the processor they are read on");
	for (u32 i = 0; i < cpu_count; i++) {
		expect("initial APIC id", cpu_get(i)->apic_id, leaf1[i].b >> 24);
		expect("features ECX", leaf1[0].c, leaf1[i].c);
		expect("features EDX", leaf1[0].d, leaf1[i].d);
		expect("leaf 7 EBX", leaf7[0].b, leaf7[i].b);
		if (cpuid(0, 0).a >= 0xb)
			expect("x2APIC id of leaf 0Bh", cpu_get(i)->apic_id, leafb[i].d);
		expect("BSP flag", i == 0, !!(apic_base[i] & BIT(8)));
		expect("APIC enabled", true, !!(apic_base[i] & BIT(11)));
		expect("APIC address", LAPIC_BASE, apic_base[i] & 0xffffff000);
	}
	test_end();
}

/* ---- INIT
 * -----------------------------------------------------------------------------------------------
 */

/* A second INIT and SIPI start a processor again: it registers as a new one (boot.S counts). Last
 * of all. */
extern volatile u32 cpu_next;
extern u8 ap_trampoline[], ap_trampoline_end[];

void test_restart(void)
{
	u32 last = cpu_count - 1, id = cpu_get(last)->apic_id;
	u32 old_next = cpu_next;

	if (old_next >= MAX_CPUS) {
		test_skip("smp: INIT and SIPI restart a processor", "no room for another");
		return;
	}
	test_begin("smp: INIT stops a running processor, SIPI starts it");
	leave_idle = false;
	counters[last] = lost[last] = 0;
	target = (volatile u64 *)(arena + 256);
	*target = 0;
	smp_run(last, tear_reader, NULL); /* counts for ever */
	while (!counters[last])
		cpu_relax();
	lapic_ipi(id, ICR_INIT | ICR_ASSERT);
	/* A busy host may keep the processor for a while in the middle of an instruction. */
	u32 n;

	for (u32 i = 0; i < 100; i++) {
		delay_us(20000);
		n = counters[last];
		delay_us(50000);
		if (n == counters[last])
			break;
	}
	expect("counter stands still", n, counters[last]);
	lapic_ipi(id, ICR_SIPI | ICR_ASSERT | 8);
	delay_us(1000);
	lapic_ipi(id, ICR_SIPI | ICR_ASSERT | 8); /* ignored by a processor that runs */
	wait_for((volatile u32 *)&cpu_get(old_next)->online, 1, 5000000);
	expect("online again", 1, cpu_get(old_next)->online);
	expect("same APIC id", id, cpu_get(old_next)->apic_id);
	expect("started once", old_next + 1, cpu_next);
	smp_run(old_next, read_identity, NULL);
	smp_wait(old_next);
	expect("works", LAPIC_BASE, apic_base[old_next] & 0xffffff000);
	test_end();
}

void test_start(void)
{
	test_ids();
	test_identity();
}
