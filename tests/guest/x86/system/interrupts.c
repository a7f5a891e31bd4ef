/* Interrupt windows, priorities, NMI, HLT. */
#include "system.h"

/* ---- interrupt windows
 * ---------------------------------------------------------------------------------- */

static void self_ipi(u32 vector)
{
	lapic_ipi(0, ICR_FIXED | ICR_ASSERT | ICR_SELF | vector);
}

SNIPPET(sti_inc, "sti; sti_inc1: inc %eax; sti_inc2: inc %eax; cli");
SNIPPET(sti_cli, "sti; cli; inc %eax; inc %eax");
SNIPPET(sti_sti, "sti; sti; sti_sti2: inc %eax; cli");
SNIPPET(popf_irq, "popfq; popf1: inc %eax; cli");
SNIPPET(iret_irq, "iretq");
SNIPPET(iret_to, "inc %eax; cli");
SNIPPET(sti_mov_ss, "sti; mov %ecx, %ss; sti_mov_ss2: inc %eax; sti_mov_ss3: cli");
SNIPPET(sti_hlt, "sti; hlt; sti_hlt2: cli");
SNIPPET(cr8_irq, "mov %rcx, %cr8; cr8_irq1: inc %eax; nop; cli");
extern u8 sti_inc2[], sti_sti2[], popf1[], sti_mov_ss3[], sti_hlt2[], cr8_irq1[];

static void window(const char *name, struct ctx *c, const u8 *rip)
{
	test_begin(name);
	count = 0;
	self_ipi(VEC);
	exec(c);
	expect_done(c);
	expect("interrupts taken", rip ? 1 : 0, count);
	if (rip)
		expect("where", (u64)rip, last_rip);
	irq_enable();
	asm volatile("nop");
	irq_disable();
	expect("taken in the end", 1, count);
	test_end();
}

static void test_windows(void)
{
	struct ctx c;
	u64 *sp;

	irq_handler(VEC, on_irq);
	test_begin("system: no interrupt with IF clear");
	count = 0;
	self_ipi(VEC);
	delay_us(1000);
	expect("held back", 0, count);
	expect("IRR", 1, lapic_read(LAPIC_IRR + 0x20) & 1);
	irq_enable();
	expect("delivered", true, wait_count(1));
	irq_disable();
	expect("once", 1, count);
	expect("IRR", 0, lapic_read(LAPIC_IRR + 0x20) & 1);
	test_end();

	c = ctx_kernel(sti_inc);
	window("system: STI delays by one instruction", &c, sti_inc2);
	c = ctx_kernel(sti_cli);
	window("system: STI, CLI opens no window", &c, NULL);
	c = ctx_kernel(sti_sti);
	window("system: the second STI makes no second shadow", &c, sti_sti2);
	c = ctx_kernel(popf_irq);
	c.gpr[RSP] -= 8;
	*(u64 *)c.gpr[RSP] = FL_FIXED | FL_IF;
	window("system: POPF opens the window at once", &c, popf1);
	c = ctx_kernel(iret_irq);
	c.gpr[RSP] -= 64;
	sp = (u64 *)c.gpr[RSP];
	sp[0] = (u64)iret_to;
	sp[1] = SEL_KCODE;
	sp[2] = FL_FIXED | FL_IF;
	sp[3] = c.gpr[RSP] + 64;
	sp[4] = SEL_KDATA;
	window("system: IRET opens the window at once", &c, iret_to);
	c = ctx_kernel(sti_hlt);
	window("system: STI, HLT wakes by what is pending", &c, sti_hlt2);
	/* MOV SS behind STI: both block; at the latest behind the next instruction it comes. 6.8.3
	 * lets only the first of several in a row count, so "behind MOV SS" is right too. */
	c = ctx_kernel(sti_mov_ss);
	c.gpr[RCX] = SEL_KDATA;
	test_begin("system: MOV SS holds interrupts back");
	count = 0;
	self_ipi(VEC);
	exec(&c);
	expect_done(&c);
	expect("taken", 1, count);
	expect("where", true, last_rip == (u64)sti_mov_ss3 || last_rip == (u64)sti_mov_ss3 - 2);
	test_end();

	test_begin("system: TPR and CR8");
	lapic_write(LAPIC_TPR, 0x40);
	expect("CR8 of TPR", 4, read_cr8());
	write_cr8(7);
	expect("TPR of CR8", 0x70, lapic_read(LAPIC_TPR));
	write_cr8(VEC >> 4);
	count = 0;
	self_ipi(VEC);
	irq_enable();
	delay_us(1000);
	irq_disable();
	expect("class of the TPR is held back", 0, count);
	c = ctx_kernel(cr8_irq);
	c.gpr[RCX] = (VEC >> 4) - 1;
	c.rflags |= FL_IF;
	exec(&c);
	expect_done(&c);
	expect("delivered when CR8 falls", 1, count);
	write_cr8(0);
	test_end();
}

/* Priorities and nesting: 11.8.3. */
static volatile u32 order[8], order_n;
static volatile u32 isr_seen;

static void on_low(struct frame *f)
{
	(void)f;
	order[order_n++ & 7] = 0x45;
	/* Inside: a higher one interrupts, an equal one does not. */
	self_ipi(0x51);
	self_ipi(0x46);
	isr_seen = lapic_read(LAPIC_ISR + 0x20);
	irq_enable();
	asm volatile("nop; nop");
	irq_disable();
	order[order_n++ & 7] = 0x1045;
	lapic_eoi();
}

static void on_same(struct frame *f)
{
	(void)f;
	order[order_n++ & 7] = 0x46;
	lapic_eoi();
}

static void on_high(struct frame *f)
{
	(void)f;
	order[order_n++ & 7] = 0x51;
	lapic_eoi();
}

static void test_priority(void)
{
	static const u32 want[] = {0x45, 0x51, 0x1045, 0x46};

	test_begin("system: LAPIC priorities, nesting, ISR");
	irq_handler(0x45, on_low);
	irq_handler(0x46, on_same);
	irq_handler(0x51, on_high);
	/* Nesting needs a stack of its own per level: take the interrupted one. */
	idt_set(0x45, NULL, 2, 0);
	order_n = 0;
	self_ipi(0x45);
	irq_enable();
	asm volatile("nop; nop");
	irq_disable();
	expect("number", ARRAY_SIZE(want), order_n);
	for (u32 i = 0; i < ARRAY_SIZE(want); i++)
		expect("order", want[i], order[i]);
	expect("ISR inside", BIT(5), isr_seen);
	expect("ISR outside", 0, lapic_read(LAPIC_ISR + 0x20));
	/* Both pending: the higher vector first. */
	order_n = 0;
	self_ipi(0x46);
	self_ipi(0x51);
	irq_enable();
	asm volatile("nop; nop");
	irq_disable();
	expect("number", 2, order_n);
	expect("first", 0x51, order[0]);
	expect("second", 0x46, order[1]);
	idt_set(0x45, NULL, 1, 0);
	irq_handler(0x45, NULL);
	irq_handler(0x46, NULL);
	irq_handler(0x51, NULL);
	test_end();
}

/* ---- NMI
 * ------------------------------------------------------------------------------------------------
 */

static volatile u32 nmi_count, nmi_depth, nmi_deepest;

static void on_nmi(struct frame *f)
{
	(void)f;
	nmi_depth++;
	if (nmi_depth > nmi_deepest)
		nmi_deepest = nmi_depth;
	if (++nmi_count == 1) {
		/* A second one while the first is handled: latched until the IRET (6.7.1). */
		lapic_ipi(this_cpu()->apic_id, ICR_NMI | ICR_ASSERT);
		delay_us(1000);
	}
	nmi_depth--;
}

static void test_nmi(void)
{
	test_begin("system: NMI is blocked until IRET, and then comes");
	irq_handler(NMI, on_nmi);
	nmi_count = nmi_depth = nmi_deepest = 0;
	lapic_ipi(this_cpu()->apic_id, ICR_NMI | ICR_ASSERT);
	delay_us(1000);
	expect("number", 2, nmi_count);
	expect("nesting", 1, nmi_deepest);
	test_end();
	irq_handler(NMI, NULL);
}

/* ---- HLT
 * -------------------------------------------------------------------------------------------------
 */

static void test_hlt(void)
{
	struct ctx c;
	u64 t0;

	test_begin("system: HLT ends by an interrupt, RIP behind it");
	irq_handler(VEC, on_irq);
	lapic_write(LAPIC_TDCR, 0xb);
	lapic_write(LAPIC_LVTT, VEC);
	for (u32 i = 0; i < 5; i++) {
		c = ctx_kernel(sti_hlt);
		count = 0;
		lapic_write(LAPIC_TMICT, 1000000);
		exec(&c);
		expect_done(&c);
		expect("interrupts", 1, count);
		expect("RIP", (u64)sti_hlt2, last_rip);
	}
	lapic_write(LAPIC_LVTT, BIT(16));
	test_end();

	/* Idle time is time: 50 ms of HLT are 50 ms of TSC. */
	test_begin("system: the TSC goes on in HLT");
	lapic_write(LAPIC_LVTT, BIT(16));
	lapic_write(LAPIC_TDCR, 0xb);
	lapic_write(LAPIC_TMICT, 0xffffffff);
	u32 a, b;

	t0 = sample(read_tmcct, &a);
	delay_us(10000);
	u64 t1 = sample(read_tmcct, &b);
	u64 per = ((u64)(a - b) << 16) / (t1 - t0);

	lapic_write(LAPIC_LVTT, VEC);
	count = 0;
	t0 = rdtsc();
	lapic_write(LAPIC_TMICT, (u32)((tsc_hz() / 20 * per) >> 16));
	asm volatile("sti; hlt; cli");
	expect("slept", 1, count);
	expect("at least 45 ms", true, rdtsc() - t0 >= tsc_hz() / 1000 * 45);
	lapic_write(LAPIC_LVTT, BIT(16));
	test_end();
}

void test_interrupts(void)
{
	test_windows();
	test_priority();
	test_nmi();
	test_hlt();
}
