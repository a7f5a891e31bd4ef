/* PIC, PIT, IOAPIC. */
#include "system.h"

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

void test_lines(void)
{
	test_pit();
	test_pic();
	test_ioapic();
}
