/*
 * What surrounds the instructions: TSC, interrupt windows, NMI, HLT, LAPIC and its timer, PIC, PIT,
 * IOAPIC, RTC, ACPI PM timer. Times are judged so that a slow host cannot fail them: nothing may
 * come too early, and it must come within seconds.
 */
#include "guest.h"
#include "features.h"

static volatile u32 count;
static volatile u64 last_rip, last_tsc;

static void on_irq(struct frame *f)
{
	last_rip = f->rip;
	last_tsc = rdtsc();
	count = count + 1;
	lapic_eoi();
}

static bool about(u64 want, u64 got, u64 percent)
{
	u64 d = want > got ? want - got : got - want;

	return d * 100 <= want * percent;
}

static bool wait_count(u32 n)
{
	u64 t0 = rdtsc(), limit = 10 * tsc_hz();

	while (count < n && rdtsc() - t0 < limit)
		cpu_relax();
	return count >= n;
}

/* ---- TSC
 * --------------------------------------------------------------------------------------------- */

static void test_tsc(void)
{
	u64 last = rdtsc(), t;
	u32 back = 0, same = 0;

	test_begin("system: the TSC grows");
	for (u32 i = 0; i < 20000; i++) {
		t = rdtsc();
		back += t < last;
		same += t == last;
		last = t;
	}
	expect("backwards", 0, back);
	expect("stands still", true, same < 20000);
	test_end();

	test_begin("system: WRMSR of the TSC, TSC_ADJUST");
	t = rdmsr(MSR_TSC);
	expect("MSR and RDTSC agree", true, rdtsc() - t < tsc_hz() * 10);
	wrmsr(MSR_TSC, 0x1000000000000);
	t = rdtsc();
	expect("written", true, t >= 0x1000000000000 && t - 0x1000000000000 < tsc_hz() * 60);
	if (cpuid(0, 0).a >= 7 && (cpuid(7, 0).b & BIT(1))) {
		u64 adj = rdmsr(MSR_TSC_ADJUST), before;

		/* 18.17.3: a write of the TSC moves TSC_ADJUST by the same; a write of TSC_ADJUST
		 * moves the TSC. */
		expect("moved along", true, adj != 0);
		before = rdtsc();
		wrmsr(MSR_TSC_ADJUST, adj + 0x100000000000);
		t = rdtsc() - before;
		expect("TSC moved", true,
		       t >= 0x100000000000 && t - 0x100000000000 < tsc_hz() * 60);
		expect("reads back", adj + 0x100000000000, rdmsr(MSR_TSC_ADJUST));
		wrmsr(MSR_TSC_ADJUST, 0);
		expect("back to the start", true, rdtsc() < 0x1000000000000);
	} else {
		wrmsr(MSR_TSC, t - 0x1000000000000);
	}
	test_end();

	if (cpuid(0x80000001, 0).d & BIT(27)) {
		u32 lo, hi, aux;

		test_begin("system: RDTSCP and TSC_AUX");
		wrmsr(MSR_TSC_AUX, 0x12345678);
		asm volatile("rdtscp" : "=a"(lo), "=d"(hi), "=c"(aux));
		expect("aux", 0x12345678, aux);
		expect("time", true, rdtsc() - ((u64)hi << 32 | lo) < tsc_hz() * 10);
		wrmsr(MSR_TSC_AUX, 0);
		test_end();
	} else {
		test_skip("system: RDTSCP and TSC_AUX", "no RDTSCP");
	}
}

/* ---- interrupt windows
 * ---------------------------------------------------------------------------------- */

#define VEC 0x40

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

/* ---- LAPIC timer: 11.5.4
 * -------------------------------------------------------------------------------- */

static u32 read_tmcct(void)
{
	return lapic_read(LAPIC_TMCCT);
}

static void test_lapic_timer(void)
{
	u64 t0;
	u32 a, b;

	irq_handler(VEC, on_irq);
	test_begin("system: LAPIC timer, one-shot");
	lapic_write(LAPIC_TDCR, 0xb); /* divide by 1 */
	lapic_write(LAPIC_LVTT, VEC);
	count = 0;
	lapic_write(LAPIC_TMICT, 1000000);
	a = lapic_read(LAPIC_TMCCT);
	b = lapic_read(LAPIC_TMCCT);
	expect("counts down", true, a <= 1000000 && b <= a);
	irq_enable();
	expect("fires", true, wait_count(1));
	delay_us(20000);
	irq_disable();
	expect("once", 1, count);
	expect("count at the end", 0, lapic_read(LAPIC_TMCCT));
	test_end();

	test_begin("system: LAPIC timer, divider");
	/* By the count that is left after a time: an interrupt may be late by any amount. */
	u32 rate[2] = {0, 0};

	lapic_write(LAPIC_LVTT, BIT(16));
	for (u32 i = 0; i < 2; i++) {
		lapic_write(LAPIC_TDCR, i ? 3 : 0xb);
		lapic_write(LAPIC_TMICT, 0xffffffff);
		t0 = sample(read_tmcct, &a);
		delay_us(20000);
		t0 = sample(read_tmcct, &b) - t0;
		rate[i] = (u32)((u64)(a - b) * 1000000 / (t0 ? t0 : 1));
	}
	lapic_write(LAPIC_TMICT, 0);
	test_context("rates %u and %u per million TSC ticks", rate[0], rate[1]);
	expect("sixteenth of the rate", true, about(rate[0], 16ull * rate[1], 5));
	test_context(NULL);
	test_end();

	test_begin("system: LAPIC timer, periodic");
	lapic_write(LAPIC_TDCR, 0xb);
	lapic_write(LAPIC_LVTT, VEC | 0x20000);
	count = 0;
	irq_enable();
	lapic_write(LAPIC_TMICT, 100000);
	expect("ten ticks", true, wait_count(10));
	lapic_write(LAPIC_TMICT, 0); /* stops */
	delay_us(1000);
	count = 0;
	delay_us(20000);
	expect("stopped", 0, count);
	/* Masked: it counts, no interrupt. */
	lapic_write(LAPIC_LVTT, VEC | 0x20000 | BIT(16));
	lapic_write(LAPIC_TMICT, 10000);
	delay_us(20000);
	expect("masked", 0, count);
	lapic_write(LAPIC_TMICT, 0);
	irq_disable();
	test_end();

	if (!(cpuid(1, 0).c & BIT(24))) {
		test_skip("system: LAPIC timer, TSC deadline", "not advertised");
		return;
	}
	test_begin("system: LAPIC timer, TSC deadline");
	lapic_write(LAPIC_LVTT, VEC | 0x40000);
	asm volatile("mfence"); /* 11.5.4.1 */
	irq_enable();
	for (u32 i = 0; i < 20; i++) {
		u64 deadline = rdtsc() + tsc_hz() / 1000 * (i & 3);

		count = 0;
		wrmsr(MSR_TSC_DEADLINE, deadline);
		expect("fires", true, wait_count(1));
		expect("not early", true, last_tsc >= deadline);
		expect("once", 1, count);
		expect("disarmed", 0, rdmsr(MSR_TSC_DEADLINE));
	}
	count = 0;
	wrmsr(MSR_TSC_DEADLINE, 1); /* long past: at once */
	expect("past", true, wait_count(1));
	count = 0;
	wrmsr(MSR_TSC_DEADLINE, rdtsc() + tsc_hz() / 100);
	wrmsr(MSR_TSC_DEADLINE, 0);
	delay_us(30000);
	expect("disarmed by 0", 0, count);
	lapic_write(LAPIC_TMICT, 1000); /* ignored in this mode */
	delay_us(5000);
	expect("initial count does nothing", 0, count);
	irq_disable();
	lapic_write(LAPIC_LVTT, BIT(16));
	test_end();
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

/* ---- PIC and PIT
 * ------------------------------------------------------------------------------------------ */

static volatile u32 pic_count[16];

static void on_pic(struct frame *f)
{
	u32 irq = (u32)f->vector - 0x20;

	pic_count[irq]++;
	count = count + 1;
	if (irq >= 8)
		outb(0xa0, 0x20);
	outb(0x20, 0x20);
}

static void pic_init(void)
{
	outb(0x20, 0x11);
	outb(0x21, 0x20);
	outb(0x21, 4);
	outb(0x21, 1);
	outb(0xa0, 0x11);
	outb(0xa1, 0x28);
	outb(0xa1, 2);
	outb(0xa1, 1);
	pic_mask_all();
	for (u32 i = 0; i < 16; i++)
		irq_handler(0x20 + i, on_pic);
}

static void pit_rate(u32 divisor)
{
	outb(0x43, 0x34); /* channel 0, mode 2 */
	outb(0x40, (u8)divisor);
	outb(0x40, (u8)(divisor >> 8));
}

static void pit_stop(void)
{
	outb(0x43, 0x30); /* mode 0, and no count */
}

static void test_pic(void)
{
	u64 t0, t;

	pic_init();
	test_begin("system: PIT through the PIC");
	lapic_write(LAPIC_LINT0, 0x700); /* ExtINT */
	count = 0;
	pit_rate(11932); /* 100 Hz */
	outb(0x21, 0xfe);
	irq_enable();
	wait_count(1);
	t0 = rdtsc();
	count = 0;
	expect("20 ticks", true, wait_count(20));
	t = rdtsc() - t0;
	/* A late host may deliver ticks late and close to each other, but not more of them than the
	 * time allows (one may have been on its way). */
	expect("not too many", true, t >= tsc_hz() / 1000 * 180);
	outb(0x21, 0xff);
	delay_us(1000);
	count = 0;
	delay_us(50000);
	expect("masked", 0, count);
	/* Requested meanwhile: IRR says so, and it comes when unmasked. */
	outb(0x20, 0x0a);
	expect("IRR", 1, inb(0x20) & 1);
	pit_stop();
	irq_disable();
	test_end();

	test_begin("system: PIC vectors and cascade by RTC's IRQ 8");
	/* Alarm free: the periodic interrupt of the RTC, 64 Hz. */
	outb(0x70, 0x0a);
	outb(0x71, 0x2a);
	outb(0x70, 0x0b);
	u8 b = inb(0x71);

	/* Clear PF first: a line that rises and falls while masked may or may not be remembered. */
	outb(0x70, 0x0c);
	(void)inb(0x71);
	count = 0;
	pic_count[8] = 0;
	outb(0x21, 0xfb);
	outb(0xa1, 0xfe);
	outb(0x70, 0x0b);
	outb(0x71, b | 0x40);
	irq_enable();
	for (u32 n = 1; n <= 5; n++) {
		expect("tick", true, wait_count(n));
		outb(0x70, 0x0c);
		expect("PF and IRQF", 0xc0, inb(0x71) & 0xc0);
	}
	expect("all by IRQ 8", count, pic_count[8]);
	irq_disable();
	outb(0x70, 0x0b);
	outb(0x71, b & ~0x70);
	outb(0x70, 0x0c);
	(void)inb(0x71);
	pic_mask_all();
	lapic_write(LAPIC_LINT0, BIT(16));
	test_end();
}

static void test_pit(void)
{
	test_begin("system: PIT counts and reads back");
	outb(0x43, 0x34);
	outb(0x40, 0xff);
	outb(0x40, 0xff);
	delay_us(100);
	u32 last = 0x10000, wrong = 0;

	for (u32 i = 0; i < 50; i++) {
		u32 v;

		outb(0x43, 0x00); /* latch */
		v = inb(0x40);
		v |= (u32)inb(0x40) << 8;
		wrong += v > last && last > 1000; /* reload from near 0 only... or a stopped host */
		last = v;
	}
	expect("mostly falling", true, wrong <= 5);
	outb(0x43, 0xe2); /* read-back: status of channel 0 */
	expect("mode 2, both bytes", 0x34, inb(0x40) & 0x3f);
	test_end();
	pit_stop();
}

/* ---- IOAPIC
 * ------------------------------------------------------------------------------------------------
 */

#define IOAPIC 0xfec00000ull

static u32 ioapic_read(u32 reg)
{
	*(volatile u32 *)IOAPIC = reg;
	return *(volatile u32 *)(IOAPIC + 16);
}

static void ioapic_write(u32 reg, u32 v)
{
	*(volatile u32 *)IOAPIC = reg;
	*(volatile u32 *)(IOAPIC + 16) = v;
}

static void ioapic_route(u32 pin, u32 low)
{
	ioapic_write(0x10 + 2 * pin, BIT(16));
	ioapic_write(0x11 + 2 * pin, this_cpu()->apic_id << 24);
	ioapic_write(0x10 + 2 * pin, low);
}

static volatile u32 nmi_woken;

static void on_wake_nmi(struct frame *f)
{
	(void)f;
	nmi_woken = 1;
}

static void test_ioapic(void)
{
	test_begin("system: IOAPIC registers");
	expect("pins", 23, ioapic_read(1) >> 16 & 0xff);
	ioapic_write(0x10 + 2 * 5, 0x000189ab | BIT(16));
	expect("entry reads back", 0x000189ab & ~(BIT(12) | BIT(14)),
	       ioapic_read(0x10 + 2 * 5) & ~(BIT(12) | BIT(14)));
	ioapic_write(0x10 + 2 * 5, BIT(16));
	test_end();

	test_begin("system: PIT through pin 2 of the IOAPIC");
	irq_handler(0x60, on_irq);
	count = 0;
	ioapic_route(2, 0x60);
	pit_rate(11932);
	irq_enable();
	expect("ticks", true, wait_count(5));
	ioapic_write(0x10 + 4, 0x60 | BIT(16));
	delay_us(1000);
	count = 0;
	delay_us(40000);
	expect("masked", 0, count);
	pit_stop();
	irq_disable();
	test_end();

	test_begin("system: COM1's transmitter through pin 4");
	irq_handler(0x61, on_irq);
	ioapic_route(4, 0x61);
	count = 0;
	irq_enable();
	outb(0x3fc, 0x0b); /* OUT2 gates the interrupt */
	outb(0x3f9, 2);	   /* THRE */
	expect("arrived", true, wait_count(1));
	expect("identified as THRE", 2, inb(0x3fa) & 0xf);
	outb(0x3f9, 0);
	irq_disable();
	ioapic_write(0x10 + 8, BIT(16));
	test_end();

	/* HLT with IF clear: a maskable interrupt does not end it, an NMI does (vol. 2 HLT). */
	test_begin("system: HLT with IF clear sleeps until the NMI");
	irq_handler(NMI, on_wake_nmi);
	irq_handler(VEC, on_irq);
	nmi_woken = 0;
	count = 0;
	lapic_write(LAPIC_TDCR, 0xb);
	lapic_write(LAPIC_LVTT, VEC);
	lapic_write(LAPIC_TMICT, 1000);
	for (u32 i = 0; i < 5000 && !(lapic_read(LAPIC_IRR + 0x20) & 1); i++)
		delay_us(1000);
	expect("timer is pending", 1, lapic_read(LAPIC_IRR + 0x20) & 1);
	ioapic_route(2, 0x400); /* delivery mode NMI */
	u64 t0 = rdtsc();

	outb(0x43, 0x30); /* mode 0: 40 ms */
	outb(0x40, 47727 & 0xff);
	outb(0x40, 47727 >> 8);
	asm volatile("cli; hlt" ::: "memory");
	expect("woken by the NMI", 1, nmi_woken);
	expect("after its time", true, rdtsc() - t0 >= tsc_hz() / 1000 * 30);
	expect("timer still waits", 0, count);
	irq_enable();
	expect("and comes", true, wait_count(1));
	irq_disable();
	ioapic_write(0x10 + 4, BIT(16));
	irq_handler(NMI, NULL);
	test_end();
}

/* ---- RTC, PM timer
 * ------------------------------------------------------------------------------------------ */

static u8 cmos(u8 reg)
{
	outb(0x70, reg);
	return inb(0x71);
}

static u32 bcd(u8 v)
{
	return (v >> 4) * 10u + (v & 15);
}

static void test_rtc(void)
{
	u8 s, first;
	u64 t0, t;

	test_begin("system: RTC");
	while (cmos(0x0a) & 0x80)
		;
	bool binary = cmos(0x0b) & 4;

#define FIELD(r) (binary ? cmos(r) : bcd(cmos(r)))
	expect("valid RAM and time", 0x80, cmos(0x0d) & 0x80);
	expect("seconds", true, FIELD(0) < 60);
	expect("minutes", true, FIELD(2) < 60);
	expect("day", true, FIELD(7) >= 1 && FIELD(7) <= 31);
	expect("month", true, FIELD(8) >= 1 && FIELD(8) <= 12);
	/* Second to second: nothing below 0.9 s can be right; late is possible. */
	s = cmos(0);
	t0 = rdtsc();
	while ((first = cmos(0)) == s && rdtsc() - t0 < 10 * tsc_hz())
		;
	t0 = rdtsc();
	while (cmos(0) == first && rdtsc() - t0 < 10 * tsc_hz())
		;
	t = rdtsc() - t0;
	test_context("second of %lu thousandths", t / (tsc_hz() / 1000));
	expect("a second", true, t >= tsc_hz() / 100 * 60 && t < 10 * tsc_hz());
	test_context(NULL);
	test_end();
}

/* PM_TMR_BLK of the FADT; the RSDP lies between 0xe0000 and 0xfffff (ACPI 5.2.5.1). */
static u16 pm_timer_port(void)
{
	for (u64 a = 0xe0000; a < 0x100000; a += 16) {
		const u8 *rsdt;
		u32 n;

		if (memcmp((void *)a, "RSD PTR ", 8))
			continue;
		rsdt = (const u8 *)(u64) * (const u32 *)(a + 16);
		n = (*(const u32 *)(rsdt + 4) - 36) / 4;
		for (u32 i = 0; i < n; i++) {
			const u8 *t = (const u8 *)(u64) * (const u32 *)(rsdt + 36 + 4 * i);

			if (!memcmp(t, "FACP", 4))
				return (u16) * (const u32 *)(t + 76);
		}
	}
	return 0;
}

static u16 pm_port;

static u32 read_pm_timer(void)
{
	return inl(pm_port);
}

static void test_pm_timer(void)
{
	u16 port = pm_port = pm_timer_port();
	u32 a, b, back = 0, last;
	u64 t0, t, want;

	if (!port) {
		test_skip("system: ACPI PM timer", "no ACPI tables found");
		return;
	}
	test_begin("system: ACPI PM timer at 3.579545 MHz");
	last = inl(port) & 0xffffff;
	for (u32 i = 0; i < 1000; i++) {
		u32 v = inl(port) & 0xffffff;

		back += ((v - last) & 0xffffff) > 0x800000;
		last = v;
	}
	expect("backwards", 0, back);
	t0 = sample(read_pm_timer, &a);
	delay_us(200000);
	t = sample(read_pm_timer, &b) - t0;
	want = t * 3579545ull / tsc_hz();
	test_context("%u ticks, %lu by the TSC", (b - a) & 0xffffff, want & 0xffffff);
	expect("rate", true, about(want, (b - a) & 0xffffff, 2) || t > 4 * tsc_hz());
	test_context(NULL);
	test_end();
}

/* ---- x2APIC
 * -------------------------------------------------------------------------------------------------
 */

SNIPPET(rdmsr_insn, "rdmsr");
SNIPPET(wrmsr_insn, "wrmsr");

static struct ctx try_wrmsr(u32 msr, u64 v)
{
	struct ctx c = ctx_kernel(wrmsr_insn);

	c.gpr[RCX] = msr;
	c.gpr[RAX] = (u32)v;
	c.gpr[RDX] = v >> 32;
	exec(&c);
	return c;
}

static void test_x2apic(void)
{
	u64 base = rdmsr(MSR_APIC_BASE);
	struct ctx c;

	if (!(cpuid(1, 0).c & BIT(21))) {
		test_skip("system: x2APIC", "not advertised");
		return;
	}
	test_begin("system: x2APIC");
	c = ctx_kernel(rdmsr_insn);
	c.gpr[RCX] = 0x802;
	exec(&c);
	expect_trap(&c, GP, 0); /* in xAPIC mode the MSRs are not there (11.12.1.2) */
	wrmsr(MSR_APIC_BASE, base | BIT(10));
	expect("id", this_cpu()->apic_id, rdmsr(0x802));
	expect("logical id",
	       (u64)(this_cpu()->apic_id >> 4) << 16 | 1ull << (this_cpu()->apic_id & 15),
	       rdmsr(0x80d));
	wrmsr(0x808, 0x20);
	expect("TPR", 2, read_cr8());
	wrmsr(0x808, 0);
	c = try_wrmsr(0x802, 0); /* read-only */
	expect_trap(&c, GP, 0);
	c = try_wrmsr(0x80e, 0); /* DFR: not there */
	expect_trap(&c, GP, 0);
	c = try_wrmsr(0x80b, 1); /* EOI: only 0 */
	expect_trap(&c, GP, 0);
	c = try_wrmsr(MSR_APIC_BASE, base & ~BIT(10)); /* x2APIC to xAPIC: only through off */
	expect_trap(&c, GP, 0);
	/* Self IPI (MSR 83Fh): pending in IRR, taken by exec() as an unexpected vector. */
	wrmsr(0x83f, 0x62);
	expect("IRR", 4, rdmsr(0x823) & 4);
	c = ctx_kernel(sti_inc);
	exec(&c);
	expect_trap(&c, 0x62, NO_ERROR);
	wrmsr(0x80b, 0);
	expect("ISR after EOI", 0, rdmsr(0x813));
	wrmsr(0x830, (u64)this_cpu()->apic_id << 32 | ICR_FIXED | ICR_ASSERT | 0x63);
	c = ctx_kernel(sti_inc);
	exec(&c);
	expect_trap(&c, 0x63, NO_ERROR);
	wrmsr(0x80b, 0);
	wrmsr(MSR_APIC_BASE, base & ~(BIT(10) | BIT(11)));
	expect("APIC bit of CPUID while disabled", 0, cpuid(1, 0).d & BIT(9));
	wrmsr(MSR_APIC_BASE, base);
	lapic_enable();
	expect("xAPIC again", this_cpu()->apic_id, lapic_read(LAPIC_ID) >> 24);
	test_end();
}

void test_main(void)
{
	test_features();
	test_tsc();
	test_windows();
	test_priority();
	test_nmi();
	test_lapic_timer();
	test_hlt();
	test_pit();
	test_pic();
	test_ioapic();
	test_rtc();
	test_pm_timer();
	test_x2apic();
}
