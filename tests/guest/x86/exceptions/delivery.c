/* Faults in the delivery of faults, bad gates, bad selectors. */
#include "exceptions.h"

/* ---- faults in the delivery of faults ---------------------------------------------------------
 */

#define VEC_TEST 0x90

static void gate_absent(u32 vector)
{
	idt[vector].type &= 0x7f;
}

static void test_double_fault(void)
{
	static const struct insn ud2 = {"ud2", U64, CODE("\x0f\x0b"), NP, UD * 8 + 3};
	static const struct insn div0 = {"div", U64, CODE("\xf6\xf1"), DF, 0};
	static const struct insn soft = {"int3", U64, CODE("\xcc"), NP, BP * 8 + 2};
	static const struct insn hlt = {"hlt", U64, CODE("\xf4"), DF, 0};
	static const struct insn load = {"load", U64, CODE("\x8b\x06"), DF, 0, .rsi = TEST_HIGH};
	static const struct insn badds = {"mov ds", U64, CODE("\x8e\xd8"), DF, 0, .rax = 0xfff8};
	struct cpu *cpu = this_cpu();

	/* Table 6-5: benign, contributory, page fault. Error code bits: vol. 3A 6.13 (EXT is set
	 * when an exception, not a software interrupt, was being delivered). */
	test_begin("exceptions: benign exception, faulting delivery: second is delivered");
	gate_absent(UD);
	insn_run(&ud2);
	idt_set(UD, NULL, 1, 0);
	test_end();

	test_begin("exceptions: software interrupt, faulting delivery: EXT clear");
	gate_absent(BP);
	insn_run(&soft);
	idt_set(BP, NULL, 1, 3);
	test_end();

	test_begin("exceptions: #DF from contributory exceptions");
	gate_absent(DE);
	insn_run(&div0);
	idt_set(DE, NULL, 1, 0);
	gate_absent(GP);
	insn_run(&hlt);
	insn_run(&badds);
	idt_set(GP, NULL, 1, 0);
	gate_absent(PF);
	insn_run(&load);
	idt_set(PF, NULL, 1, 0);
	test_end();

	test_begin("exceptions: #DF from a page fault in the delivery of a page fault");
	cpu->tss.ist[6] = TEST_HIGH + 0x1000; /* not mapped */
	idt_set(PF, NULL, 7, 0);
	insn_run(&load);
	idt_set(PF, NULL, 1, 0);
	test_end();

	/* Contributory, then page fault: handled serially (table 6-5). */
	test_begin(
		"exceptions: page fault in the delivery of a contributory exception is delivered");
	idt_set(GP, NULL, 7, 0);
	struct ctx c = insn_run(&(struct insn){"hlt", U64, CODE("\xf4"), PF, PF_W});
	expect("CR2 on the stack that is missing", TEST_HIGH, c.cr2 & ~0xfffull);
	idt_set(GP, NULL, 1, 0);
	test_end();
	cpu->tss.ist[6] = 0;

	test_begin("exceptions: no handler may be entered through a bad gate");
	idt_set(VEC_TEST, NULL, 1, 3);
	idt[VEC_TEST].selector = 0;
	insn_run(&(struct insn){"null CS", U64, CODE("\xcd\x90"), GP, 0});
	idt[VEC_TEST].selector = SEL_KDATA;
	insn_run(&(struct insn){"data CS", U64, CODE("\xcd\x90"), GP, SEL_KDATA});
	idt[VEC_TEST].selector = SEL_KCODE32; /* the target must be 64-bit */
	insn_run(&(struct insn){"32-bit CS", U64, CODE("\xcd\x90"), GP, SEL_KCODE32});
	idt[VEC_TEST].selector = 0xfff8 & ~7;
	insn_run(&(struct insn){"beyond the GDT", U64, CODE("\xcd\x90"), GP, 0xfff8});
	cpu->gdt[SEL_TEST / 8] = descriptor(0, 0xfffff, 0x1b, 0xa);
	idt[VEC_TEST].selector = SEL_TEST;
	insn_run(&(struct insn){"CS not present", U64, CODE("\xcd\x90"), NP, SEL_TEST});
	idt_set(VEC_TEST, NULL, 1, 3);
	idt[VEC_TEST].type = 0xe5; /* task gate: not in long mode (6.14.1) */
	insn_run(&(struct insn){"task gate", U64, CODE("\xcd\x90"), GP, VEC_TEST * 8 + 2});
	idt[VEC_TEST].type = 0xec; /* call gate */
	insn_run(&(struct insn){"call gate", U64, CODE("\xcd\x90"), GP, VEC_TEST * 8 + 2});
	idt[VEC_TEST].type = 0x6e; /* not present */
	insn_run(&(struct insn){"absent", U64, CODE("\xcd\x90"), NP, VEC_TEST * 8 + 2});
	idt_set(VEC_TEST, NULL, 1, 3);
	idt[VEC_TEST].offset2 = 0x8000; /* entry not canonical */
	insn_run(&(struct insn){"entry not canonical", U64, CODE("\xcd\x90"), GP, 0});
	idt_set(VEC_TEST, NULL, 1, 3);
	test_end();

	test_begin("exceptions: beyond the limit of the IDT");
	struct table_ptr small = {0x82 * 16 - 1, (u64)idt}, full = {sizeof(idt) - 1, (u64)idt};

	asm volatile("lidt %0" ::"m"(small));
	insn_run(&(struct insn){"int 0x90", U64, CODE("\xcd\x90"), GP, VEC_TEST * 8 + 2});
	asm volatile("lidt %0" ::"m"(full));
	test_end();

	test_begin("exceptions: bad stacks of the TSS");
	idt_set(VEC_TEST, NULL, 0, 3);
	cpu->tss.rsp[0] = NONCANON;
	insn_run(&(struct insn){"RSP0 not canonical", U64, CODE("\xcd\x90"), SS, 0});
	cpu->tss.rsp[0] = TEST_HIGH + 0x1000;
	c = insn_run(&(struct insn){"RSP0 not mapped", U64, CODE("\xcd\x90"), PF, PF_W});
	expect("CR2", TEST_HIGH, c.cr2 & ~0xfffull);
	cpu->tss.rsp[0] = (u64)cpu + STACK_IST1;
	test_end();

	/* The stack pointer lies beyond the limit of the TSS: #TS(selector of the TSS) (vol. 2 INT
	 * n). */
	test_begin("exceptions: #TS");
	idt_set(VEC_TEST, NULL, 7, 3);
	set_tss_descriptor(cpu);
	cpu->gdt[SEL_TSS / 8] = (cpu->gdt[SEL_TSS / 8] & ~0xf00000000ffffull) | 0x5a;
	asm volatile("ltr %w0" ::"r"(SEL_TSS));
	insn_run(&(struct insn){"IST7 beyond the limit", U64, CODE("\xcd\x90"), TS, SEL_TSS});
	set_tss_descriptor(cpu);
	asm volatile("ltr %w0" ::"r"(SEL_TSS));
	idt_set(VEC_TEST, NULL, 1, 3);
	test_end();
}

/* ---- selectors ------------------------------------------------------------------------------ */

/* Loads of data segments (vol. 2 MOV, table of exceptions; vol. 3A 5.6). Slots of the GDT: */
enum { S_ABSENT, S_EXEC_ONLY, S_SYSTEM, S_RING0, S_CODE_R, S_RO, S_CONFORMING, S_DATA3 };
#define SLOT(i) (SEL_TEST + 8 * (i))

static void test_selectors(void)
{
	struct cpu *cpu = this_cpu();
	const struct insn table[] = {
		/* mov %eax, %ds / %es / %ss / %fs */
		{"ds: null", U64, CODE("\x8e\xd8"), VEC_DONE, EX, .rax = 0},
		{"ds: null with RPL 3", U64, CODE("\x8e\xd8"), VEC_DONE, EX, .rax = 3},
		{"ds: beyond the limit", U64, CODE("\x8e\xd8"), GP, 0x1ff8, .rax = 0x1ffb},
		{"ds: no LDT", U64, CODE("\x8e\xd8"), GP, 0x0c, .rax = 0x0f},
		{"ds: not present", U64, CODE("\x8e\xd8"), NP, SLOT(S_ABSENT),
		 .rax = SLOT(S_ABSENT) | 3},
		{"es: not present", U64, CODE("\x8e\xc0"), NP, SLOT(S_ABSENT),
		 .rax = SLOT(S_ABSENT) | 3},
		{"ds: execute-only code", U64, CODE("\x8e\xd8"), GP, SLOT(S_EXEC_ONLY),
		 .rax = SLOT(S_EXEC_ONLY) | 3},
		{"ds: system segment", U64, CODE("\x8e\xd8"), GP, SLOT(S_SYSTEM),
		 .rax = SLOT(S_SYSTEM) | 3},
		{"ds: ring 0 data", U64, CODE("\x8e\xd8"), GP, SLOT(S_RING0), .rax = SLOT(S_RING0)},
		{"ds: readable code", U64, CODE("\x8e\xd8"), VEC_DONE, EX,
		 .rax = SLOT(S_CODE_R) | 3},
		{"fs: read-only data", U64, CODE("\x8e\xe0"), VEC_DONE, EX, .rax = SLOT(S_RO) | 3},
		{"gs: conforming ring 0 code", U64, CODE("\x8e\xe8"), VEC_DONE, EX,
		 .rax = SLOT(S_CONFORMING) | 3},
		{"ss: null", U64, CODE("\x8e\xd0"), GP, 0, .rax = 0},
		{"ss: null with RPL 3", U64, CODE("\x8e\xd0"), GP, 0, .rax = 3},
		{"ss: RPL 0 at CPL 3", U64, CODE("\x8e\xd0"), GP, SLOT(S_DATA3),
		 .rax = SLOT(S_DATA3)},
		{"ss: not present", U64, CODE("\x8e\xd0"), SS, SLOT(S_ABSENT),
		 .rax = SLOT(S_ABSENT) | 3},
		{"ss: read-only", U64, CODE("\x8e\xd0"), GP, SLOT(S_RO), .rax = SLOT(S_RO) | 3},
		{"ss: code", U64, CODE("\x8e\xd0"), GP, SLOT(S_CODE_R), .rax = SLOT(S_CODE_R) | 3},
		{"ss: beyond the limit", U64, CODE("\x8e\xd0"), GP, 0x1ff8, .rax = 0x1ffb},
		{"ss: null at CPL 0, 64-bit", K64, CODE("\x8e\xd0"), VEC_DONE, EX, .rax = 0},
		{"ss: null with RPL 1 at CPL 0", K64, CODE("\x8e\xd0"), GP, 0, .rax = 1},
		{"ss: null", U32, CODE("\x8e\xd0"), GP, 0, .rax = 0},
		{"pop %ds, not present", U32, CODE("\x68\x53\0\0\0\x1f"), NP, 0x50},
		{"lldt: null", K64, CODE("\x0f\x00\xd0"), VEC_DONE, EX, .rax = 0},
		{"lldt: data", K64, CODE("\x0f\x00\xd0"), GP, SEL_KDATA, .rax = SEL_KDATA},
		{"lldt: in the LDT", K64, CODE("\x0f\x00\xd0"), GP, 0x14, .rax = 0x14},
		{"lldt: beyond the limit", K64, CODE("\x0f\x00\xd0"), GP, 0x1ff8, .rax = 0x1ff8},
		{"ltr: busy", K64, CODE("\x0f\x00\xd8"), GP, SEL_TSS, .rax = SEL_TSS},
		{"ltr: data", K64, CODE("\x0f\x00\xd8"), GP, SEL_KDATA, .rax = SEL_KDATA},
		{"ltr: LDT descriptor", K64, CODE("\x0f\x00\xd8"), GP, SLOT(S_SYSTEM),
		 .rax = SLOT(S_SYSTEM)},
	};

	cpu->gdt[SLOT(S_ABSENT) / 8] = descriptor(0, 0xfffff, 0x73, 0xc);
	cpu->gdt[SLOT(S_EXEC_ONLY) / 8] = descriptor(0, 0xfffff, 0xf9, 0xc);
	cpu->gdt[SLOT(S_SYSTEM) / 8] = descriptor(0, 0xfff, 0xe2, 0);
	cpu->gdt[SLOT(S_RING0) / 8] = descriptor(0, 0xfffff, 0x93, 0xc);
	cpu->gdt[SLOT(S_CODE_R) / 8] = descriptor(0, 0xfffff, 0xfb, 0xc);
	cpu->gdt[SLOT(S_RO) / 8] = descriptor(0, 0xfffff, 0xf1, 0xc);
	cpu->gdt[SLOT(S_CONFORMING) / 8] = descriptor(0, 0xfffff, 0x9f, 0xc);
	cpu->gdt[SLOT(S_DATA3) / 8] = descriptor(0, 0xfffff, 0xf3, 0xc);
	test_begin("exceptions: selectors: #GP, #NP, #SS and their error codes");
	for (u32 i = 0; i < ARRAY_SIZE(table); i++) {
		struct insn t = table[i];

		test_context("%s", t.name);
		if (t.bytes[0] == '\x68') { /* push, then pop %ds: the fault is at the second */
			struct ctx c = ctx_user32(put_code(t.bytes, t.len));
			u64 start = c.rip;

			exec(&c);
			expect_trap(&c, t.vector, t.error);
			expect("RIP", start + 5, c.rip);
			expect("RSP", ctx_user32(NULL).gpr[RSP] - 4, c.gpr[RSP]);
			continue;
		}
		insn_run(&t);
	}
	test_context(NULL);
	test_end();

	/* QEMU 7.2 takes it and dies of the next interrupt with a stack switch. */
	static const struct insn null_tr[] = {
		{"ltr: null", K64, CODE("\x0f\x00\xd8"), GP, 0, .rax = 0},
		{"ltr: null with RPL", K64, CODE("\x0f\x00\xd8"), GP, 0, .rax = 3},
	};
	DEADLY("exceptions: LTR of a null selector", null_tr);

	test_begin("exceptions: LTR of an absent TSS");
	cpu->gdt[SLOT(0) / 8] = descriptor(0, 0xfff, 0x09, 0);
	cpu->gdt[SLOT(1) / 8] = 0;
	insn_run(&(struct insn){"ltr", K64, CODE("\x0f\x00\xd8"), NP, SLOT(0), .rax = SLOT(0)});
	cpu->gdt[SLOT(0) / 8] = descriptor(0, 0xfff, 0x02, 0);
	insn_run(&(struct insn){"lldt", K64, CODE("\x0f\x00\xd0"), NP, SLOT(0), .rax = SLOT(0)});
	test_end();
}

void test_delivery(void)
{
	test_double_fault();
	test_selectors();
}
