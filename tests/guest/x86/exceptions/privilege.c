/* Privileged instructions, IOPL, the I/O bitmap. */
#include "exceptions.h"

/* ---- privilege ------------------------------------------------------------------------------ */

static const struct insn privileged[] = {
	{"hlt", U64, CODE("\xf4"), GP, 0},
	{"cli", U64, CODE("\xfa"), GP, 0},
	{"sti", U64, CODE("\xfb"), GP, 0},
	{"in %dx, %al", U64, CODE("\xec"), GP, 0, .rdx = 0x80},
	{"out %al, %dx", U64, CODE("\xee"), GP, 0, .rdx = 0x80},
	{"in $0x80, %al", U64, CODE("\xe4\x80"), GP, 0},
	{"out %eax, $0x80", U64, CODE("\xe7\x80"), GP, 0},
	{"insb", U64, CODE("\x6c"), GP, 0, .rdx = 0x80},
	{"outsb", U64, CODE("\x6e"), GP, 0, .rdx = 0x80},
	{"lgdt", U64, CODE("\x0f\x01\x16"), GP, 0},
	{"lidt", U64, CODE("\x0f\x01\x1e"), GP, 0},
	{"lldt", U64, CODE("\x0f\x00\xd0"), GP, 0},
	{"ltr", U64, CODE("\x0f\x00\xd8"), GP, 0},
	{"lmsw", U64, CODE("\x0f\x01\xf0"), GP, 0, .rax = 0x33},
	{"clts", U64, CODE("\x0f\x06"), GP, 0},
	{"invd", U64, CODE("\x0f\x08"), GP, 0},
	{"wbinvd", U64, CODE("\x0f\x09"), GP, 0},
	{"invlpg", U64, CODE("\x0f\x01\x3e"), GP, 0},
	{"mov %cr0, %rax", U64, CODE("\x0f\x20\xc0"), GP, 0},
	{"mov %rax, %cr0", U64, CODE("\x0f\x22\xc0"), GP, 0},
	{"mov %cr2, %rax", U64, CODE("\x0f\x20\xd0"), GP, 0},
	{"mov %rax, %cr3", U64, CODE("\x0f\x22\xd8"), GP, 0},
	{"mov %rax, %cr4", U64, CODE("\x0f\x22\xe0"), GP, 0},
	{"mov %cr8, %rax", U64, CODE("\x44\x0f\x20\xc0"), GP, 0},
	{"mov %dr0, %rax", U64, CODE("\x0f\x21\xc0"), GP, 0},
	{"mov %rax, %dr7", U64, CODE("\x0f\x23\xf8"), GP, 0},
	{"rdmsr", U64, CODE("\x0f\x32"), GP, 0, .rcx = MSR_EFER},
	{"wrmsr", U64, CODE("\x0f\x30"), GP, 0, .rcx = MSR_TSC},
	{"rdpmc", U64, CODE("\x0f\x33"), GP, 0},
	{"swapgs", U64, CODE("\x0f\x01\xf8"), GP, 0},
	{"sysretq", U64, CODE("\x48\x0f\x07"), GP, 0},
	{"hlt", U32, CODE("\xf4"), GP, 0},
	{"cli", U32, CODE("\xfa"), GP, 0},
	{"in", U32, CODE("\xec"), GP, 0, .rdx = 0x80},
	{"mov %cr0, %eax", U32, CODE("\x0f\x20\xc0"), GP, 0},
	{"rdmsr", U32, CODE("\x0f\x32"), GP, 0, .rcx = MSR_EFER},
};

/* Vol. 2 SYSEXIT. AMD has it in legacy mode only (APM vol. 3). */
static void test_sysexit(void)
{
	if (cpuid(0, 0).b != 0x756e6547) { /* "Genu" */
		test_skip("exceptions: SYSEXIT at CPL 3", "not of Intel's kind");
		return;
	}
	test_begin("exceptions: SYSEXIT at CPL 3");
	insn_run(&(struct insn){"sysexit", U64, CODE("\x0f\x35"), GP, 0});
	insn_run(&(struct insn){"sysexit", U32, CODE("\x0f\x35"), GP, 0});
	test_end();
}

static const struct insn iopl3[] = {
	{"cli", U64, CODE("\xfa"), VEC_DONE, EX, .rflags = FL_IOPL3},
	{"sti", U64, CODE("\xfb\xfa"), VEC_DONE, EX, .rflags = FL_IOPL3},
	{"in", U64, CODE("\xec"), VEC_DONE, EX, .rdx = 0x80, .rflags = FL_IOPL3},
	{"out", U64, CODE("\xee"), VEC_DONE, EX, .rdx = 0x80, .rflags = FL_IOPL3},
	{"hlt all the same", U64, CODE("\xf4"), GP, 0, .rflags = FL_IOPL3},
	{"in", U32, CODE("\xec"), VEC_DONE, EX, .rdx = 0x80, .rflags = FL_IOPL3},
};

SNIPPET(popf_all, "push %rax; popfq; pushfq; pop %rax");
SNIPPET(tsd, "rdtsc");
SNIPPET(umip, "sgdt (%rsi)");

static void test_privilege_flags(void)
{
	u64 cr4 = read_cr4();
	struct ctx c;

	/* Vol. 2 POPF: IF needs CPL <= IOPL, IOPL needs CPL 0; no fault. */
	test_begin("exceptions: POPF changes IF and IOPL silently not");
	c = ctx_user(popf_all);
	c.gpr[RAX] = FL_IF | FL_IOPL3 | FL_CF | FL_DF | FL_AC | FL_ID | FL_FIXED;
	exec(&c);
	expect_done(&c);
	expect("flags", FL_CF | FL_DF | FL_AC | FL_ID | FL_FIXED, c.gpr[RAX]);
	c = ctx_user(popf_all);
	c.rflags |= FL_IOPL3;
	c.gpr[RAX] = FL_FIXED; /* IF was clear and stays; IOPL stays */
	exec(&c);
	expect_done(&c);
	expect("flags", FL_IOPL3 | FL_FIXED, c.gpr[RAX]);
	c = ctx_kernel(popf_all);
	c.gpr[RAX] = FL_IOPL3 | FL_NT | FL_AC | 0x8028 | FL_VM; /* fixed bits; VM is ignored */
	exec(&c);
	expect_done(&c);
	expect("flags", FL_IOPL3 | FL_NT | FL_AC | FL_FIXED, c.gpr[RAX]);
	test_end();

	test_begin("exceptions: RDTSC with CR4.TSD");
	write_cr4(cr4 | CR4_TSD);
	c = ctx_user(tsd);
	exec(&c);
	expect_trap(&c, GP, 0);
	c = ctx_kernel(tsd);
	exec(&c);
	expect_done(&c);
	write_cr4(cr4);
	c = ctx_user(tsd);
	exec(&c);
	expect_done(&c);
	test_end();

	if (cpuid(0, 0).a >= 7 && (cpuid(7, 0).c & BIT(2))) {
		static const struct insn table[] = {
			{"sgdt", U64, CODE("\x0f\x01\x06"), GP, 0},
			{"sidt", U64, CODE("\x0f\x01\x0e"), GP, 0},
			{"sldt", U64, CODE("\x0f\x00\xc0"), GP, 0},
			{"str", U64, CODE("\x0f\x00\xc8"), GP, 0},
			{"smsw", U64, CODE("\x0f\x01\xe0"), GP, 0},
			{"sgdt", K64, CODE("\x0f\x01\x06"), VEC_DONE, EX},
		};

		write_cr4(cr4 | CR4_UMIP);
		INSN_TABLE("exceptions: UMIP", table);
		write_cr4(cr4);
	} else {
		test_skip("exceptions: UMIP", "no UMIP");
	}
}

/* The bitmap in the TSS: vol. 1 19.5.2. */
static void test_io_bitmap(void)
{
	struct cpu *cpu = this_cpu();
	static const struct insn table[] = {
		{"inb 0x80, allowed", U64, CODE("\xec"), VEC_DONE, EX, .rdx = 0x80},
		{"inb 0x81, denied", U64, CODE("\xec"), GP, 0, .rdx = 0x81},
		{"outb 0x80", U64, CODE("\xee"), VEC_DONE, EX, .rdx = 0x80},
		{"outb 0x81", U64, CODE("\xee"), GP, 0, .rdx = 0x81},
		{"inw 0x80: the second byte is denied", U64, CODE("\x66\xed"), GP, 0, .rdx = 0x80},
		{"inw 0x86: over two bytes of the map", U64, CODE("\x66\xed"), VEC_DONE, EX,
		 .rdx = 0x86},
		{"inl 0x86: fourth is denied", U64, CODE("\xed"), GP, 0, .rdx = 0x86},
		{"inl 0x84", U64, CODE("\xed"), VEC_DONE, EX, .rdx = 0x84},
		{"inb immediate", U64, CODE("\xe4\x80"), VEC_DONE, EX},
		{"outb immediate", U64, CODE("\xe6\x81"), GP, 0},
		{"insb", U64, CODE("\x6c"), VEC_DONE, EX, .rdx = 0x80},
		{"outsb denied", U64, CODE("\x6e"), GP, 0, .rdx = 0x81},
		{"CPL 0 is not asked", K64, CODE("\xec"), VEC_DONE, EX, .rdx = 0x81},
		{"inb 0x80", U32, CODE("\xec"), VEC_DONE, EX, .rdx = 0x80},
		{"inb 0x81", U32, CODE("\xec"), GP, 0, .rdx = 0x81},
	};

	cpu->tss.iomap = offsetof(struct tss, bitmap);
	memset(cpu->tss.bitmap, 0xff, sizeof(cpu->tss.bitmap));
	cpu->tss.bitmap[0x80 / 8] = (u8)~0xf1; /* 0x80, 0x84 to 0x87 free */
	cpu->tss.bitmap[0x80 / 8] = 0x0e;
	cpu->tss.bitmap[0x88 / 8] = 0xfe; /* 0x88 free */
	INSN_TABLE("exceptions: I/O permission bitmap", table);

	test_begin("exceptions: I/O beyond the limit of the TSS");
	set_tss_descriptor(cpu);
	/* Limit: the last byte is the map's byte for 0x80-0x87; two bytes are always read. */
	cpu->gdt[SEL_TSS / 8] = (cpu->gdt[SEL_TSS / 8] & ~0xf00000000ffffull) |
				(offsetof(struct tss, bitmap) + 0x80 / 8 + 1);
	asm volatile("ltr %w0" ::"r"(SEL_TSS));
	insn_run(&(struct insn){"last byte", U64, CODE("\xec"), VEC_DONE, EX, .rdx = 0x80});
	insn_run(&(struct insn){"behind", U64, CODE("\xec"), GP, 0, .rdx = 0x88});
	insn_run(&(struct insn){"far behind", U64, CODE("\xec"), GP, 0, .rdx = 0x3f8});
	set_tss_descriptor(cpu);
	asm volatile("ltr %w0" ::"r"(SEL_TSS));
	cpu->tss.iomap = sizeof(cpu->tss);
	insn_run(&(struct insn){"no bitmap", U64, CODE("\xec"), GP, 0, .rdx = 0x80});
	test_end();
}

void test_privilege(void)
{
	INSN_TABLE("exceptions: privileged instructions at CPL 3", privileged);
	INSN_TABLE("exceptions: IOPL 3", iopl3);
	test_sysexit();
	test_privilege_flags();
	test_io_bitmap();
}
