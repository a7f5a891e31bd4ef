/* Local APIC: registers, priorities, destinations, MSRs, LINT0, errors (SDM vol. 3A chapter 11). */
#include "tests/unit/dev_apic.h"

static struct dev_apics a;

static void fixed(unsigned vcpu, unsigned vector)
{
	CHECK_EQ(lapic_msi(a.lapic, APIC | vcpu << 12, vector), 1);
}

static void test_reset(void)
{
	apics_start(&a, 3);
	CHECK_EQ(rdmsr(&a, 0, MSR_BASE), 0xfee00900);
	CHECK_EQ(rdmsr(&a, 1, MSR_BASE), 0xfee00800);
	CHECK_EQ(rd(&a, 2, R_ID), 2u << 24);
	CHECK_EQ(rd(&a, 0, R_VERSION), 0x50014);
	CHECK_EQ(rd(&a, 1, R_SVR), 0xff);
	CHECK_EQ(rd(&a, 1, R_DFR), 0xffffffff);
	for (unsigned reg = R_TIMER; reg <= R_ERROR; reg += 16)
		CHECK_EQ(rd(&a, 1, reg), LVT_MASK);
	CHECK_EQ(rd(&a, 0, R_LINT0), 0x700); /* virtual wire, as firmware leaves it */
	wr(&a, 1, R_ID, 0x55000000);
	CHECK_EQ(rd(&a, 1, R_ID), 1u << 24);
	/* While disabled in the SVR no LVT entry can be unmasked, and nothing is taken. */
	wr(&a, 1, R_ERROR, 0x50);
	CHECK_EQ(rd(&a, 1, R_ERROR), LVT_MASK | 0x50);
	CHECK_EQ(lapic_msi(a.lapic, APIC | 1 << 12, 0x50), 0);
	enable(&a, 1);
	wr(&a, 1, R_ERROR, 0x50);
	CHECK_EQ(rd(&a, 1, R_ERROR), 0x50);
	wr(&a, 1, R_SVR, 0xff);
	CHECK_EQ(rd(&a, 1, R_ERROR), LVT_MASK | 0x50);
	CHECK_EQ(io_space_read(&a.w.mmio, 1, APIC + R_VERSION, 1), 0x14);
	CHECK_EQ(io_space_read(&a.w.mmio, 1, APIC + R_VERSION + 2, 2), 5);
	apics_stop(&a);
}

static void test_priority(void)
{
	apics_start(&a, 1);
	enable(&a, 0);
	fixed(0, 0x51);
	fixed(0, 0x62);
	fixed(0, 0x55);
	CHECK_EQ(rd(&a, 0, R_IRR + 0x20), 1u << 0x11 | 1u << 0x15);
	CHECK_EQ(lapic_ack(a.lapic, 0), 0x62);
	CHECK_EQ(rd(&a, 0, R_PPR), 0x60);
	CHECK_EQ(rd(&a, 0, R_ISR + 0x30), 1u << 2);
	CHECK(!a.cpus.cpu[0].intr);
	fixed(0, 0x6f); /* same class: waits */
	CHECK(!a.cpus.cpu[0].intr);
	fixed(0, 0x70);
	CHECK(a.cpus.cpu[0].intr);
	CHECK_EQ(lapic_ack(a.lapic, 0), 0x70);
	CHECK_EQ(rd(&a, 0, R_PPR), 0x70);
	wr(&a, 0, R_EOI, 0);
	CHECK_EQ(rd(&a, 0, R_PPR), 0x60);
	wr(&a, 0, R_EOI, 0);
	CHECK_EQ(take(&a, 0), 0x6f);
	/* TPR: class 5 is held back, the sub-class does not matter for that. */
	wr(&a, 0, R_TPR, 0x5f);
	CHECK(!a.cpus.cpu[0].intr);
	CHECK_EQ(rd(&a, 0, R_PPR), 0x5f);
	CHECK_EQ(lapic_get_cr8(a.lapic, 0), 5);
	lapic_set_cr8(a.lapic, 0, 4);
	CHECK_EQ(rd(&a, 0, R_TPR), 0x40);
	CHECK_EQ(take(&a, 0), 0x55);
	CHECK_EQ(take(&a, 0), 0x51);
	CHECK_EQ(take(&a, 0), -1);
	wr(&a, 0, R_EOI, 0); /* nothing in service */
	lapic_set_cr8(a.lapic, 0, 15);
	fixed(0, 0xff);
	CHECK(!a.cpus.cpu[0].intr);
	lapic_set_cr8(a.lapic, 0, 0);
	/* Disabled in the SVR: what is pending stays deliverable. */
	wr(&a, 0, R_SVR, 0xff);
	CHECK_EQ(take(&a, 0), 0xff);
	apics_stop(&a);
}

static void ipi(unsigned vcpu, uint32_t dest, uint32_t icr)
{
	wr(&a, vcpu, R_ICR2, dest << 24);
	wr(&a, vcpu, R_ICR, icr);
}

/* Which vCPUs got vector 0x60, as a mask; they take it. */
static unsigned who(void)
{
	unsigned mask = 0;

	for (unsigned i = 0; i < a.vcpus; i++)
		if (a.cpus.cpu[i].intr) {
			CHECK_EQ(take(&a, i), 0x60);
			mask |= 1u << i;
		}
	return mask;
}

static void test_physical(void)
{
	apics_start(&a, 4);
	for (unsigned i = 0; i < 4; i++)
		enable(&a, i);
	ipi(0, 2, 0x4060);
	CHECK_EQ(who(), 4);
	CHECK_EQ(rd(&a, 0, R_ICR), 0x4060); /* the delivery status is idle */
	ipi(1, 1, 0x60);
	CHECK_EQ(who(), 2);
	ipi(1, 9, 0x60);
	CHECK_EQ(who(), 0);
	ipi(1, 0xff, 0x60);
	CHECK_EQ(who(), 15);
	ipi(1, 0, 0x40060);
	CHECK_EQ(who(), 2);
	ipi(1, 0, 0x80060);
	CHECK_EQ(who(), 15);
	ipi(1, 0, 0xc0060);
	CHECK_EQ(who(), 13);
	ipi(1, 3, 0x400);
	CHECK_EQ(a.cpus.cpu[3].nmi, 1);
	ipi(0, 0, 0xc4500); /* INIT to all others */
	ipi(0, 0, 0xc8500); /* its de-assertion does nothing */
	ipi(0, 0, 0xc4612);
	CHECK_EQ(a.cpus.cpu[0].init + a.cpus.cpu[0].sipi, 0);
	for (unsigned i = 1; i < 4; i++) {
		CHECK_EQ(a.cpus.cpu[i].init, 1);
		CHECK_EQ(a.cpus.cpu[i].sipi, 1);
		CHECK_EQ(a.cpus.cpu[i].sipi_vector, 0x12);
	}
	/* Not accepted by one that is software-disabled; INIT and SIPI are. */
	wr(&a, 2, R_SVR, 0xff);
	ipi(0, 2, 0x60);
	CHECK_EQ(who(), 0);
	ipi(0, 2, 0x4500);
	CHECK_EQ(a.cpus.cpu[2].init, 2);
	ipi(0, 1, 0x4200); /* SMI: there is none */
	ipi(0, 1, 0x4700);
	ipi(0, 1, 0x4300);
	CHECK_EQ(who(), 0);
	apics_stop(&a);
}

static void test_logical(void)
{
	apics_start(&a, 8);
	for (unsigned i = 0; i < 8; i++) {
		enable(&a, i);
		wr(&a, i, R_LDR, 1u << (24 + i));
	}
	ipi(0, 0x42, 0x860);
	CHECK_EQ(who(), 0x42);
	ipi(0, 0xff, 0x860);
	CHECK_EQ(who(), 0xff);
	ipi(0, 0, 0x860);
	CHECK_EQ(who(), 0);
	CHECK_EQ(lapic_msi(a.lapic, APIC | 0x81 << 12 | 4, 0x60), 2);
	CHECK_EQ(who(), 0x81);
	/* Cluster model: cluster in the upper, member mask in the lower half. */
	for (unsigned i = 0; i < 8; i++) {
		wr(&a, i, R_DFR, 0x0fffffff);
		wr(&a, i, R_LDR, (i / 4) << 28 | 1u << (24 + i % 4));
	}
	ipi(0, 0x15, 0x860);
	CHECK_EQ(who(), 0x50);
	ipi(0, 0xf2, 0x860); /* all clusters */
	CHECK_EQ(who(), 0x22);
	ipi(0, 0x25, 0x860);
	CHECK_EQ(who(), 0);
	apics_stop(&a);
}

static void test_lowest_priority(void)
{
	unsigned got[4] = {0};

	apics_start(&a, 4);
	for (unsigned i = 0; i < 4; i++) {
		enable(&a, i);
		wr(&a, i, R_LDR, 1u << (24 + i));
		wr(&a, i, R_TPR, i == 2 ? 0x10 : 0x30);
	}
	CHECK_EQ(lapic_msi(a.lapic, APIC | 0x0f << 12 | 4, 0x160), 1);
	CHECK_EQ(who(), 4);
	CHECK_EQ(lapic_msi(a.lapic, APIC | 0x0b << 12 | 4, 0x160), 1);
	CHECK(who() & 0x0b);
	for (unsigned i = 0; i < 4; i++)
		wr(&a, i, R_TPR, 0);
	for (unsigned i = 0; i < 40; i++) {
		ipi(0, 0x0f, 0x960);
		for (unsigned n = 0; n < 4; n++)
			got[n] += take(&a, n) == 0x60;
	}
	for (unsigned n = 0; n < 4; n++)
		CHECK_EQ(got[n], 10); /* equals take turns */
	wr(&a, 1, R_SVR, 0xff);
	CHECK_EQ(lapic_msi(a.lapic, APIC | 0x02 << 12 | 4, 0x160), 0);
	apics_stop(&a);
}

static void test_messages(void)
{
	apics_start(&a, 2);
	enable(&a, 0);
	enable(&a, 1);
	CHECK_EQ(lapic_msi(a.lapic, APIC | 1 << 12, 0xc060), 1); /* level: TMR */
	CHECK_EQ(rd(&a, 1, R_TMR + 0x30), 1);
	CHECK_EQ(who(), 2);
	CHECK_EQ(lapic_msi(a.lapic, APIC | 1 << 12, 0x8060), 0); /* its de-assertion */
	CHECK_EQ(who(), 0);
	CHECK_EQ(lapic_msi(a.lapic, APIC | 1 << 12, 0x60), 1);
	CHECK_EQ(rd(&a, 1, R_TMR + 0x30), 0);
	CHECK_EQ(who(), 2);
	CHECK_EQ(lapic_msi(a.lapic, APIC | 1 << 12, 0x400), 1);
	CHECK_EQ(a.cpus.cpu[1].nmi, 1);
	CHECK_EQ(lapic_msi(a.lapic, 0xfed00000, 0x60), 0);
	CHECK_EQ(lapic_msi(a.lapic, APIC | 0xff << 12, 0x60), 2);
	CHECK_EQ(who(), 3);
	apics_stop(&a);
}

static void test_errors(void)
{
	apics_start(&a, 2);
	enable(&a, 0);
	enable(&a, 1);
	wr(&a, 0, R_ERROR, 0x45);
	ipi(0, 1, 0x05);
	CHECK_EQ(rd(&a, 0, R_ESR), 0); /* not before it is written */
	CHECK_EQ(take(&a, 0), 0x45);
	wr(&a, 0, R_ESR, 0);
	CHECK_EQ(rd(&a, 0, R_ESR), 0x20);
	wr(&a, 0, R_ESR, 0);
	CHECK_EQ(rd(&a, 0, R_ESR), 0);
	lapic_msi(a.lapic, APIC, 0x0f);
	CHECK_EQ(take(&a, 0), 0x45);
	rd(&a, 0, 0x040);
	CHECK_EQ(take(&a, 0), 0x45);
	wr(&a, 0, R_ESR, 0);
	CHECK_EQ(rd(&a, 0, R_ESR), 0xc0);
	wr(&a, 0, R_ERROR, 0x02); /* illegal itself */
	wr(&a, 0, 0x3f0, 1);
	CHECK_EQ(take(&a, 0), -1);
	wr(&a, 0, R_ESR, 0);
	CHECK_EQ(rd(&a, 0, R_ESR), 0xc0);
	apics_stop(&a);
}

static void test_base(void)
{
	const uint64_t page = APIC;

	apics_start(&a, 2);
	CHECK_EQ(wrmsr(&a, 1, MSR_BASE, page | 1 << 10), GP); /* EXTD without EN */
	CHECK_EQ(wrmsr(&a, 1, MSR_BASE, page | 3 << 10 | 1), GP);
	CHECK_EQ(wrmsr(&a, 1, MSR_BASE, page | 3 << 10 | 1ULL << 52), GP);
	CHECK_EQ(wrmsr(&a, 1, X2(R_TPR), 0), GP); /* not in x2APIC mode yet */
	enable(&a, 1);
	fixed(1, 0x71);
	wr(&a, 1, R_ICR2, 0x01000000);
	CHECK_EQ(wrmsr(&a, 1, MSR_BASE, page | 3 << 10), HANDLED);
	CHECK_EQ(rdmsr(&a, 1, MSR_BASE), page | 3 << 10);
	CHECK_EQ(rdmsr(&a, 1, X2(R_SVR)), 0x1ff); /* kept */
	CHECK_EQ(rdmsr(&a, 1, X2(R_ICR)), 0);	  /* the upper half is not */
	CHECK_EQ(take(&a, 1), 0x71);
	CHECK_EQ(rd(&a, 1, R_SVR), 0xffffffff); /* the page is gone */
	wr(&a, 1, R_SVR, 0);
	CHECK_EQ(rdmsr(&a, 1, X2(R_SVR)), 0x1ff);
	CHECK_EQ(wrmsr(&a, 1, MSR_BASE, page | 1 << 11), GP); /* back: only through off */
	CHECK(lapic_enabled(a.lapic, 1));
	CHECK_EQ(wrmsr(&a, 1, MSR_BASE, page), HANDLED);
	CHECK(!lapic_enabled(a.lapic, 1));
	CHECK_EQ(wrmsr(&a, 1, MSR_BASE, page | 3 << 10), GP);
	CHECK_EQ(lapic_msi(a.lapic, APIC | 1 << 12, 0x60), 0);
	ipi(0, 1, 0x4500);
	CHECK_EQ(a.cpus.cpu[1].init, 0);
	CHECK_EQ(wrmsr(&a, 1, MSR_BASE, page | 1 << 11), HANDLED);
	CHECK_EQ(rd(&a, 1, R_SVR), 0xff); /* as after a reset */
	CHECK_EQ(wrmsr(&a, 0, MSR_BASE, page | 1 << 11), HANDLED);
	CHECK_EQ(rdmsr(&a, 0, MSR_BASE), page | 1 << 11 | 1 << 8); /* still the BSP */
	CHECK_EQ(wrmsr(&a, 0, 0x10, 0), NOT_MINE);
	CHECK_EQ(wrmsr(&a, 7, MSR_BASE, 0), NOT_MINE);
	apics_stop(&a);
}

/* Which MSR may be read and written at all, and with which bits (11.12.1.2, 11.12.1.3). */
static void test_x2apic_gp(void)
{
	static const uint16_t readable[] = {
		0x802, 0x803, 0x808, 0x80a, 0x80d, 0x80f, 0x810, 0x811, 0x812, 0x813, 0x814,
		0x815, 0x816, 0x817, 0x818, 0x819, 0x81a, 0x81b, 0x81c, 0x81d, 0x81e, 0x81f,
		0x820, 0x821, 0x822, 0x823, 0x824, 0x825, 0x826, 0x827, 0x828, 0x830, 0x832,
		0x833, 0x834, 0x835, 0x836, 0x837, 0x838, 0x839, 0x83e};
	static const uint16_t writable[] = {0x808, 0x80b, 0x80f, 0x828, 0x830, 0x832, 0x833,
					    0x834, 0x835, 0x836, 0x837, 0x838, 0x83e, 0x83f};
	static const struct {
		uint16_t msr;
		uint64_t good, bad;
	} bits[] = {
		{0x808, 0xff, 0x100},
		{0x80b, 0, 1},
		{0x80f, 0x3ff, 0x1000},
		{0x828, 0, 0x80},
		{0x830, 0x1051, 0x2051},
		{0x830, 0x40051, 0x10051},
		{0x832, 0x300ff, 0x800ff},
		{0x832, 0x10030, 0x10130},
		{0x835, 0x1a7ff, 0x200ff},
		{0x837, 0x100ff, 0x104ff},
		{0x838, 0xffffffff, 1ULL << 32},
		{0x83e, 0x0b, 0x04},
		{0x83f, 0xff, 0x100},
	};
	unsigned r = 0, w = 0;
	uint64_t value;

	apics_start(&a, 1);
	enable_x2apic(&a, 0);
	for (uint32_t msr = 0x800; msr <= 0x8ff; msr++) {
		bool can_read = r < sizeof(readable) / 2 && readable[r] == msr;
		bool can_write = w < sizeof(writable) / 2 && writable[w] == msr;

		r += can_read;
		w += can_write;
		CHECK_EQ(lapic_rdmsr(a.lapic, 0, msr, &value), can_read ? HANDLED : GP);
		/* 0 is a legal value everywhere, but would disable or send. */
		CHECK_EQ(wrmsr(&a, 0, msr,
			       msr == 0x80f   ? 0x1ff
			       : msr == 0x830 ? 0x40050
					      : 0),
			 can_write ? HANDLED : GP);
	}
	for (unsigned i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
		CHECK_EQ(wrmsr(&a, 0, bits[i].msr, bits[i].good), HANDLED);
		CHECK_EQ(wrmsr(&a, 0, bits[i].msr, bits[i].bad), GP);
		CHECK_EQ(wrmsr(&a, 0, bits[i].msr, bits[i].good | 1ULL << 63),
			 bits[i].msr == 0x830 ? HANDLED : GP);
	}
	apics_stop(&a);
}

static void test_x2apic_ipi(void)
{
	apics_start(&a, 34);
	for (unsigned i = 0; i < 34; i++) {
		enable_x2apic(&a, i);
		CHECK_EQ(rdmsr(&a, i, X2(R_ID)), i);
		CHECK_EQ(rdmsr(&a, i, X2(R_LDR)), (i / 16) << 16 | 1u << i % 16);
	}
	wrmsr(&a, 0, 0x830, 33ULL << 32 | 0x60);
	CHECK_EQ(take(&a, 33), 0x60);
	wrmsr(&a, 0, 0x830, (1ULL << 16 | 0x8001) << 32 | 0x860); /* cluster 1: 16 and 31 */
	CHECK_EQ(take(&a, 16), 0x60);
	CHECK_EQ(take(&a, 31), 0x60);
	CHECK_EQ(take(&a, 0), -1);
	wrmsr(&a, 0, 0x830, 0xffULL << 32 | 0x60); /* an ID here, no broadcast */
	for (unsigned i = 0; i < 34; i++)
		CHECK_EQ(take(&a, i), -1);
	wrmsr(&a, 0, 0x830, 0xffffffffULL << 32 | 0x60);
	for (unsigned i = 0; i < 34; i++)
		CHECK_EQ(take(&a, i), 0x60);
	wrmsr(&a, 5, 0x83f, 0x61);
	CHECK_EQ(take(&a, 5), 0x61);
	wrmsr(&a, 5, 0x830, 0x1234ULL << 32 | 0xc0060);
	for (unsigned i = 0; i < 34; i++)
		CHECK_EQ(take(&a, i), i == 5 ? -1 : 0x60);
	CHECK_EQ(rdmsr(&a, 5, 0x830), 0x1234ULL << 32 | 0xc0060);
	/* An MSI has 8 bits; FFh is everybody. */
	CHECK_EQ(lapic_msi(a.lapic, APIC | 33 << 12, 0x60), 1);
	CHECK_EQ(take(&a, 33), 0x60);
	CHECK_EQ(lapic_msi(a.lapic, APIC | 0xff << 12, 0x60), 34);
	CHECK_EQ(lapic_msi(a.lapic, APIC | 0x05 << 12 | 4, 0x60), 2); /* cluster 0: 0 and 2 */
	apics_stop(&a);
}

static void pulse(unsigned n)
{
	const struct irq_line line = pic_line(a.pic, n);

	irq_set(&line, false);
	irq_set(&line, true);
}

static void pic_setup(void)
{
	static const uint8_t words[] = {0x11, 0x30, 0x04, 0x01, 0x00};

	for (unsigned i = 0; i < 5; i++)
		dev_out(&a.w, i ? 0x21 : 0x20, words[i]);
}

/* A kernel with nolapic: the PIC's interrupts arrive with the APIC as it is after reset. */
static void test_extint(void)
{
	apics_start(&a, 2);
	pic_setup();
	pulse(1);
	CHECK(a.cpus.cpu[0].intr && !a.cpus.cpu[1].intr);
	CHECK_EQ(take(&a, 0), 0x31);
	dev_out(&a.w, 0x20, 0x20);
	CHECK(!a.cpus.cpu[0].intr);
	/* Enabled, with the LVT entry masked: as Linux does once the IOAPIC works. */
	enable(&a, 0);
	wr(&a, 0, R_LINT0, 0x10700);
	pulse(1);
	CHECK(!a.cpus.cpu[0].intr);
	wr(&a, 0, R_LINT0, 0x700);
	CHECK(a.cpus.cpu[0].intr);
	fixed(0, 0x60); /* ExtINT comes first */
	CHECK_EQ(take(&a, 0), 0x31);
	CHECK_EQ(take(&a, 0), 0x60);
	dev_out(&a.w, 0x20, 0x20);
	/* TPR does not hold it back. */
	wr(&a, 0, R_TPR, 0xff);
	pulse(1);
	CHECK_EQ(take(&a, 0), 0x31);
	dev_out(&a.w, 0x20, 0x20);
	/* APIC off: LINT0 is INTR. */
	CHECK_EQ(wrmsr(&a, 0, MSR_BASE, APIC | 0x100), HANDLED);
	pulse(1);
	CHECK_EQ(take(&a, 0), 0x31);
	apics_stop(&a);
}

static void test_lint0_modes(void)
{
	apics_start(&a, 2);
	pic_setup();
	enable(&a, 0);
	enable(&a, 1);
	wr(&a, 0, R_LINT0, 0x400); /* the NMI watchdog of old kernels */
	wr(&a, 1, R_LINT0, 0x400);
	pulse(0);
	CHECK_EQ(a.cpus.cpu[0].nmi, 1);
	CHECK_EQ(a.cpus.cpu[1].nmi, 1);
	CHECK(!a.cpus.cpu[0].intr);
	pic_ack(a.pic);
	dev_out(&a.w, 0x20, 0x20);
	wr(&a, 1, R_LINT0, LVT_MASK);
	wr(&a, 0, R_LINT0, 0x60); /* fixed, edge */
	pulse(0);
	CHECK_EQ(take(&a, 0), 0x60);
	CHECK_EQ(take(&a, 0), -1);
	wr(&a, 0, R_LINT0, 0x8061); /* fixed, level: until the PIC is served */
	CHECK(rd(&a, 0, R_LINT0) & 1 << 14);
	CHECK_EQ(take(&a, 0), 0x61);
	CHECK_EQ(lapic_ack(a.lapic, 0), 0x61);
	pic_ack(a.pic);
	dev_out(&a.w, 0x20, 0x20);
	wr(&a, 0, R_EOI, 0);
	CHECK_EQ(take(&a, 0), -1);
	CHECK(!(rd(&a, 0, R_LINT0) & 1 << 14));
	apics_stop(&a);
}

static void test_init_vcpu(void)
{
	apics_start(&a, 2);
	enable_x2apic(&a, 1);
	wrmsr(&a, 1, X2(R_TPR), 0x20);
	wrmsr(&a, 1, X2(R_TIMER), 0x20060);
	wrmsr(&a, 1, X2(R_TMICT), 1000);
	fixed(1, 0x61);
	CHECK(a.cpus.cpu[1].intr);
	lapic_init_vcpu(a.lapic, 1);
	CHECK(!a.cpus.cpu[1].intr);
	CHECK_EQ(dev_next_deadline(&a.w), 0);
	CHECK_EQ(rdmsr(&a, 1, MSR_BASE), APIC | 3 << 10); /* stays in x2APIC mode */
	CHECK_EQ(rdmsr(&a, 1, X2(R_SVR)), 0xff);
	CHECK_EQ(rdmsr(&a, 1, X2(R_TPR)), 0);
	CHECK_EQ(rdmsr(&a, 1, X2(R_TIMER)), LVT_MASK);
	apics_stop(&a);
}

static void poke(void *opaque, uint64_t *seed)
{
	(void)opaque;
	for (unsigned i = 0; i < 60; i++) {
		uint64_t r = dev_random(seed);
		unsigned vcpu = r >> 8 & 1;

		if (r & 3)
			io_space_write(&a.w.mmio, vcpu, APIC + (r >> 16 & 0x3f) * 16, 4, r >> 32);
		else
			wrmsr(&a, vcpu, r & 4 ? MSR_DEADLINE : 0x800 + (r >> 16 & 0x3f), r >> 40);
		if (r >> 60 == 0)
			wrmsr(&a, vcpu, MSR_BASE, APIC | (r >> 20 & 3) << 10);
		if (r >> 60 < 8)
			lapic_ack(a.lapic, vcpu);
		lapic_set_cr8(a.lapic, vcpu, (uint8_t)(r >> 30));
		lapic_tsc_changed(a.lapic, vcpu);
		pulse(r >> 12 & 15);
		dev_advance(&a.w, r >> 50);
	}
	dev_poke(&a.w.mmio, APIC, 4096, 8, seed, 100);
}

/* Everything pending, in service and armed arrives on the other side and goes on there. */
static void test_state(void)
{
	static struct dev_apics b;
	uint64_t seed = 11;
	char err[128];

	apics_start(&a, 2);
	apics_start(&b, 2);
	CHECK_EQ(field_check(a.lapic->state, err, sizeof(err)), 0);
	enable(&a, 0);
	enable_x2apic(&a, 1);
	fixed(0, 0x71);
	fixed(0, 0x81);
	lapic_ack(a.lapic, 0);
	wr(&a, 0, R_TIMER, 0x200a0);
	wr(&a, 0, R_TDCR, 0x0b);
	wr(&a, 0, R_TMICT, 25000); /* 1 ms */
	wrmsr(&a, 1, X2(R_TIMER), 0x400b0);
	wrmsr(&a, 1, MSR_DEADLINE, dev_tsc_read(&a.cpus, 1) + 5000000); /* 2.5 ms */
	dev_advance(&a.w, 300000);
	fixed(1, 0x91);
	dev_move(a.lapic, b.lapic);
	b.w.now = a.w.now;
	CHECK(!b.cpus.cpu[0].intr && b.cpus.cpu[1].intr);
	CHECK_EQ(take(&b, 1), 0x91);
	CHECK_EQ(rd(&b, 0, R_TMCCT), rd(&a, 0, R_TMCCT));
	CHECK_EQ(dev_advance(&b.w, 699999), 0);
	CHECK_EQ(dev_advance(&b.w, 1), 1);
	CHECK_EQ(lapic_ack(b.lapic, 0), 0xa0);
	wr(&b, 0, R_EOI, 0);
	wr(&b, 0, R_EOI, 0); /* of 81h */
	CHECK_EQ(take(&b, 0), 0x71);
	dev_advance(&b.w, 1500000);
	CHECK_EQ(take(&b, 1), 0xb0);
	CHECK_EQ(rdmsr(&b, 1, MSR_DEADLINE), 0);
	for (unsigned i = 0; i < 2; i++)
		a.cpus.cpu[i].repeats = b.cpus.cpu[i].repeats = 0; /* a load drives the pins */
	/* Another number of vCPUs is another machine. */
	{
		struct field_buf buf = {0};
		static struct dev_apics c;

		apics_start(&c, 3);
		CHECK_EQ(field_save(a.lapic->state, a.lapic, &buf), 0);
		CHECK(dev_load(c.lapic, &buf) < 0);
		field_buf_free(&buf);
		apics_stop(&c);
	}
	apics_stop(&b);
	for (unsigned i = 0; i < 300; i++)
		poke(NULL, &seed);
	for (unsigned i = 0; i < 2; i++)
		CHECK_EQ(a.cpus.cpu[i].repeats, 0);
	a.lapic->ops->reset(a.lapic);
	/* A poked state, whatever it is, can be saved and loaded again. */
	apics_start(&b, 2);
	for (unsigned i = 0; i < 300; i++) {
		poke(NULL, &seed);
		dev_move(a.lapic, b.lapic);
	}
	printf("lapic: %u of 1000 damaged states refused\n",
	       dev_corrupt(b.lapic, a.lapic, 1000, poke, NULL));
	for (unsigned i = 0; i < 2; i++)
		a.cpus.cpu[i].repeats = b.cpus.cpu[i].repeats = 0;
	apics_stop(&b);
	apics_stop(&a);
}

int main(void)
{
	test_reset();
	test_priority();
	test_physical();
	test_logical();
	test_lowest_priority();
	test_messages();
	test_errors();
	test_base();
	test_x2apic_gp();
	test_x2apic_ipi();
	test_extint();
	test_lint0_modes();
	test_init_vcpu();
	test_state();
	return dev_result("lapic");
}
