/* Interrupts between processors: fixed, logical, NMI. */
#include "smp.h"

/* ---- interrupts
 * -------------------------------------------------------------------------------------- */

static volatile u32 ipis[MAX_CPUS];

static void on_ipi(struct frame *f)
{
	(void)f;
	__atomic_add_fetch(&ipis[this_cpu()->index], 1, __ATOMIC_SEQ_CST);
	lapic_eoi();
}

static void spin_enabled(void *arg)
{
	(void)arg;
	irq_enable();
	while (!leave_idle)
		cpu_relax();
	irq_disable();
}

static void halt_enabled(void *arg)
{
	(void)arg;
	while (!leave_idle)
		asm volatile("sti; hlt; cli" ::: "memory");
}

static void expect_ipi(u32 cpu, u32 n)
{
	expect("interrupt arrived", true, wait_for(&ipis[cpu], n, 5000000));
}

static void test_ipi_with(void (*idle)(void *), const char *name)
{
	u32 few = rounds / 4 + 1;

	test_begin(name);
	irq_handler(0x41, on_ipi);
	leave_idle = false;
	for (u32 i = 0; i < cpu_count; i++)
		ipis[i] = 0;
	for (u32 i = 1; i < cpu_count; i++)
		smp_run(i, idle, NULL);
	for (u32 n = 1; n <= few; n++) {
		for (u32 i = 1; i < cpu_count; i++) {
			lapic_ipi(cpu_get(i)->apic_id, ICR_FIXED | ICR_ASSERT | 0x41);
			expect_ipi(i, n);
		}
	}
	for (u32 i = 1; i < cpu_count; i++)
		expect("exactly one each", few, ipis[i]);
	/* Shorthands. */
	lapic_ipi(0, ICR_FIXED | ICR_ASSERT | ICR_OTHERS | 0x41);
	for (u32 i = 1; i < cpu_count; i++)
		expect_ipi(i, few + 1);
	expect("not to itself", 0, ipis[0]);
	lapic_ipi(0, ICR_FIXED | ICR_ASSERT | ICR_SELF | 0x41);
	irq_enable();
	expect_ipi(0, 1);
	lapic_ipi(0, ICR_FIXED | ICR_ASSERT | ICR_ALL | 0x41);
	expect_ipi(0, 2);
	irq_disable();
	for (u32 i = 1; i < cpu_count; i++)
		expect_ipi(i, few + 2);
	leave_idle = true;
	lapic_ipi(0, ICR_FIXED | ICR_ASSERT | ICR_OTHERS | 0x41);
	for (u32 i = 1; i < cpu_count; i++)
		smp_wait(i);
	irq_handler(0x41, NULL);
	test_end();
}

static void set_logical(void *arg)
{
	(void)arg;
	lapic_write(LAPIC_DFR, 0xffffffff);
	lapic_write(LAPIC_LDR, 1u << (24 + this_cpu()->index));
}

static void on_late_ipi(struct frame *f)
{
	(void)f;
	lapic_eoi();
}

static void test_logical(void)
{
	test_begin("smp: logical destinations, flat model");
	/* A wake-up of the tests before may still be on its way: not counted, and another vector
	 * here. */
	irq_handler(0x41, on_late_ipi);
	irq_handler(0x42, on_ipi);
	smp_run_all(set_logical, NULL);
	leave_idle = false;
	for (u32 i = 0; i < cpu_count; i++)
		ipis[i] = 0;
	for (u32 i = 1; i < cpu_count; i++)
		smp_run(i, spin_enabled, NULL);
	irq_enable();
	for (u32 mask = 1; mask < 1u << cpu_count; mask++) {
		u32 before[MAX_CPUS];

		for (u32 i = 0; i < cpu_count; i++)
			before[i] = ipis[i];
		lapic_ipi(mask, ICR_FIXED | ICR_ASSERT | BIT(11) | 0x42);
		for (u32 i = 0; i < cpu_count; i++)
			if (mask >> i & 1)
				expect_ipi(i, before[i] + 1);
		for (u32 i = 0; i < cpu_count; i++)
			expect("only those addressed", before[i] + (mask >> i & 1), ipis[i]);
	}
	leave_idle = true;
	irq_disable();
	for (u32 i = 1; i < cpu_count; i++)
		smp_wait(i);
	irq_handler(0x41, NULL);
	irq_handler(0x42, NULL);
	test_end();
}

static volatile u32 nmis[MAX_CPUS];

static void on_nmi(struct frame *f)
{
	(void)f;
	__atomic_add_fetch(&nmis[this_cpu()->index], 1, __ATOMIC_SEQ_CST);
}

static void spin_disabled(void *arg)
{
	(void)arg;
	while (!leave_idle)
		cpu_relax();
}

static void halt_disabled(void *arg)
{
	(void)arg;
	while (!leave_idle)
		asm volatile("cli; hlt" ::: "memory");
}

/* An NMI gets through with IF clear, and wakes HLT (vol. 2 HLT). */
static void test_nmi(void)
{
	void (*const idle[])(void *) = {spin_disabled, halt_disabled};

	irq_handler(NMI, on_nmi);
	for (u32 k = 0; k < 2; k++) {
		test_begin(k ? "smp: NMI wakes a halted processor with IF clear"
			     : "smp: NMI to a processor with IF clear");
		leave_idle = false;
		for (u32 i = 0; i < cpu_count; i++)
			nmis[i] = 0;
		for (u32 i = 1; i < cpu_count; i++)
			smp_run(i, idle[k], NULL);
		for (u32 n = 1; n <= 20; n++)
			for (u32 i = 1; i < cpu_count; i++) {
				lapic_ipi(cpu_get(i)->apic_id, ICR_NMI | ICR_ASSERT);
				expect("NMI arrived", true, wait_for(&nmis[i], n, 5000000));
			}
		leave_idle = true;
		if (k)
			lapic_ipi(0, ICR_NMI | ICR_ASSERT | ICR_OTHERS);
		for (u32 i = 1; i < cpu_count; i++) {
			smp_wait(i);
			/* A processor may have seen leave_idle first: its NMI is on the way. */
			if (k)
				expect("the last NMI arrived", true,
				       wait_for(&nmis[i], 21, 5000000));
		}
		test_end();
	}
	irq_handler(NMI, NULL);
}

void test_interrupts(void)
{
	test_ipi_with(spin_enabled, "smp: interrupts between running processors");
	test_ipi_with(halt_enabled, "smp: interrupts wake halted processors");
	test_logical();
	test_nmi();
}
