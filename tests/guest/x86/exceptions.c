/*
 * Exceptions: which, with which error code, at which instruction (SDM vol. 3A chapter 6, and the
 * exception lists of each instruction in vol. 2).
 */
#include "insn.h"

/* A case that would take QEMU 7.2 down with it. */
#define DEADLY(name, table)                                                                        \
	do {                                                                                       \
		if (argument("qemu", 0))                                                           \
			test_skip(name, "it would kill QEMU");                                     \
		else                                                                               \
			INSN_TABLE(name, table);                                                   \
	} while (0)

#define NONCANON 0x0000800000000000ull

/* ---- #DE ------------------------------------------------------------------------------------ */

static const struct insn divide[] = {
	{"div %cl by 0", U64, CODE("\xf6\xf1"), DE, EX, .rax = 1},
	{"div %cx by 0", U64, CODE("\x66\xf7\xf1"), DE, EX, .rax = 1},
	{"div %ecx by 0", U64, CODE("\xf7\xf1"), DE, EX, .rax = 1},
	{"div %rcx by 0", U64, CODE("\x48\xf7\xf1"), DE, EX, .rax = 1},
	{"div %cl, quotient 0x100", U64, CODE("\xf6\xf1"), DE, EX, .rax = 0x200, .rcx = 2},
	{"div %cl, quotient 0xff", U64, CODE("\xf6\xf1"), VEC_DONE, EX, .rax = 0x1ff, .rcx = 2},
	{"div %cx, quotient 0x10000", U64, CODE("\x66\xf7\xf1"), DE, EX, .rdx = 2, .rcx = 2},
	{"div %cx, quotient 0xffff", U64, CODE("\x66\xf7\xf1"), VEC_DONE, EX, .rax = 0xffff,
	 .rdx = 1, .rcx = 2},
	{"div %ecx, quotient 2^32", U64, CODE("\xf7\xf1"), DE, EX, .rdx = 2, .rcx = 2},
	{"div %ecx, quotient 2^32-1", U64, CODE("\xf7\xf1"), VEC_DONE, EX, .rax = 0xffffffff,
	 .rdx = 1, .rcx = 2},
	{"div %rcx, quotient 2^64", U64, CODE("\x48\xf7\xf1"), DE, EX, .rdx = 2, .rcx = 2},
	{"div %rcx, quotient 2^64-1", U64, CODE("\x48\xf7\xf1"), VEC_DONE, EX, .rax = ~0ull,
	 .rdx = 1, .rcx = 2},
	{"idiv %cl by 0", U64, CODE("\xf6\xf9"), DE, EX, .rax = 1},
	{"idiv %ecx by 0", U64, CODE("\xf7\xf9"), DE, EX, .rax = 1},
	{"idiv %rcx by 0", U64, CODE("\x48\xf7\xf9"), DE, EX, .rax = 1},
	/* INT_MIN / -1 of the quotient's size, and of the dividend's size. */
	{"idiv %cl, -128 / -1", U64, CODE("\xf6\xf9"), DE, EX, .rax = 0xff80, .rcx = 0xff},
	{"idiv %cl, -32768 / -1", U64, CODE("\xf6\xf9"), DE, EX, .rax = 0x8000, .rcx = 0xff},
	{"idiv %cx, -2^15 / -1", U64, CODE("\x66\xf7\xf9"), DE, EX, .rax = 0x8000, .rdx = 0xffff,
	 .rcx = 0xffff},
	{"idiv %ecx, -2^31 / -1", U64, CODE("\xf7\xf9"), DE, EX, .rax = 0x80000000,
	 .rdx = 0xffffffff, .rcx = 0xffffffff},
	{"idiv %rcx, -2^63 / -1", U64, CODE("\x48\xf7\xf9"), DE, EX, .rax = BIT(63), .rdx = ~0ull,
	 .rcx = ~0ull},
	{"idiv %rcx, -2^127 / -1", U64, CODE("\x48\xf7\xf9"), DE, EX, .rdx = BIT(63), .rcx = ~0ull},
	{"idiv %cl, quotient -128", U64, CODE("\xf6\xf9"), VEC_DONE, EX, .rax = 0xff80, .rcx = 1},
	{"idiv %cl, quotient 128", U64, CODE("\xf6\xf9"), DE, EX, .rax = 128, .rcx = 1},
	{"idiv %ecx, quotient -2^31", U64, CODE("\xf7\xf9"), VEC_DONE, EX, .rax = 0x80000000,
	 .rdx = 0xffffffff, .rcx = 1},
	{"idiv %ecx, quotient 2^31", U64, CODE("\xf7\xf9"), DE, EX, .rax = 0x80000000, .rcx = 1},
	{"idiv %rcx, quotient -2^63", U64, CODE("\x48\xf7\xf9"), VEC_DONE, EX, .rax = BIT(63),
	 .rdx = ~0ull, .rcx = 1},
	{"idiv %rcx, quotient 2^63", U64, CODE("\x48\xf7\xf9"), DE, EX, .rax = BIT(63), .rcx = 1},
	{"divl (%rsi) of 0", U64, CODE("\xf7\x36"), DE, EX, .rax = 1},
	{"aam 0", U32, CODE("\xd4\x00"), DE, EX, .rax = 1},
};

/* These end QEMU 7.2 by SIGFPE: "qemu=1" on the command line leaves them out. */
static const struct insn divide_deadly[] = {
	{"idiv %cx, -2^31 / -1", U64, CODE("\x66\xf7\xf9"), DE, EX, .rdx = 0x8000, .rcx = 0xffff},
	{"idiv %ecx, -2^63 / -1", U64, CODE("\xf7\xf9"), DE, EX, .rdx = 0x80000000,
	 .rcx = 0xffffffff},
	{"idiv %ecx, -2^63 / -1", U32, CODE("\xf7\xf9"), DE, EX, .rdx = 0x80000000,
	 .rcx = 0xffffffff},
};

/* ---- #BP #OF #BR ---------------------------------------------------------------------------- */

static const struct insn traps[] = {
	{"int3", U64, CODE("\xcc"), BP, EX},
	{"int3", K64, CODE("\xcc"), BP, EX},
	{"int 3", U64, CODE("\xcd\x03"), BP, EX},
	{"int3", U32, CODE("\xcc"), BP, EX},
	{"into with OF", U32, CODE("\xce"), OF, EX, .rflags = FL_OF},
	{"into without OF", U32, CODE("\xce"), VEC_DONE, EX},
	{"into with OF", K32, CODE("\xce"), OF, EX, .rflags = FL_OF},
	{"int 4", U64, CODE("\xcd\x04"), OF, EX},
	{"int 1", U64, CODE("\xcd\x01"), GP, 1 * 8 + 2},
	{"int 13", U64, CODE("\xcd\x0d"), GP, 13 * 8 + 2},
	{"int 0x30", U64, CODE("\xcd\x30"), GP, 0x30 * 8 + 2},
	{"int 0x30", U32, CODE("\xcd\x30"), GP, 0x30 * 8 + 2},
	/* bound %eax, (%esi): the data are 0, 0. */
	{"bound, in", U32, CODE("\x62\x06"), VEC_DONE, EX, .rax = 0},
	{"bound, above", U32, CODE("\x62\x06"), BR, EX, .rax = 1},
	{"bound, below", U32, CODE("\x62\x06"), BR, EX, .rax = 0xffffffff},
	{"bound 16-bit, in", U32, CODE("\x66\x62\x06"), VEC_DONE, EX, .rax = 0x70000},
	{"bound 16-bit, above", U32, CODE("\x66\x62\x06"), BR, EX, .rax = 1},
	{"bound of a register", U32, CODE("\x62\xc0"), UD, EX},
};

static void test_icebp(void)
{
	static const struct insn icebp[] = {
		{"icebp", K64, CODE("\xf1"), DB, EX},
		{"icebp", U64, CODE("\xf1"), DB, EX}, /* no DPL check: not a software interrupt */
		{"icebp", U32, CODE("\xf1"), DB, EX},
	};

	test_begin("exceptions: ICEBP");
	for (u32 i = 0; i < ARRAY_SIZE(icebp); i++) {
		struct ctx c;

		write_dr6(0xffff0ff0);
		test_context("mode %u", icebp[i].mode);
		c = insn_run(&icebp[i]);
		/* No cause bit: neither BS nor B0-B3 nor BD (vol. 3B 18.2.3). */
		expect("DR6", 0, c.dr6 & 0xe00f);
	}
	test_context(NULL);
	test_end();
}

/* ---- #UD ------------------------------------------------------------------------------------ */

static const struct insn undefined[] = {
	{"ud2", K64, CODE("\x0f\x0b"), UD, EX},
	{"ud2", U64, CODE("\x0f\x0b"), UD, EX},
	{"ud2", U32, CODE("\x0f\x0b"), UD, EX},
	{"ud1", U64, CODE("\x0f\xb9\xc0"), UD, EX},
	{"ud0", U64, CODE("\x0f\xff\xc0"), UD, EX},
	{"push %es", U64, CODE("\x06"), UD, EX},
	{"pop %es", U64, CODE("\x07"), UD, EX},
	{"push %cs", U64, CODE("\x0e"), UD, EX},
	{"push %ss", U64, CODE("\x16"), UD, EX},
	{"pop %ss", U64, CODE("\x17"), UD, EX},
	{"push %ds", U64, CODE("\x1e"), UD, EX},
	{"pop %ds", U64, CODE("\x1f"), UD, EX},
	{"daa", U64, CODE("\x27"), UD, EX},
	{"das", U64, CODE("\x2f"), UD, EX},
	{"aaa", U64, CODE("\x37"), UD, EX},
	{"aas", U64, CODE("\x3f"), UD, EX},
	{"pusha", U64, CODE("\x60"), UD, EX},
	{"popa", U64, CODE("\x61"), UD, EX},
	{"82 /0", U64, CODE("\x82\xc0\x00"), UD, EX},
	{"lcall ptr16:32", U64, CODE("\x9a\0\0\0\0\x2b\0"), UD, EX},
	{"ljmp ptr16:32", U64, CODE("\xea\0\0\0\0\x2b\0"), UD, EX},
	{"into", U64, CODE("\xce"), UD, EX},
	{"aam", U64, CODE("\xd4\x0a"), UD, EX},
	{"aad", U64, CODE("\xd5\x0a"), UD, EX},
	{"salc", U64, CODE("\xd6"), UD, EX},
	{"mov %eax, %cs", U64, CODE("\x8e\xc8"), UD, EX},
	{"mov %eax, sreg 6", U64, CODE("\x8e\xf0"), UD, EX},
	{"mov %eax, sreg 7", U64, CODE("\x8e\xf8"), UD, EX},
	{"mov sreg 6, %eax", U64, CODE("\x8c\xf0"), UD, EX},
	{"lea of a register", U64, CODE("\x8d\xc0"), UD, EX},
	{"cmpxchg8b of a register", U64, CODE("\x0f\xc7\xc8"), UD, EX},
	{"c6 /1", U64, CODE("\xc6\xc8\x00"), UD, EX},
	{"c7 /1", U64, CODE("\xc7\xc8\0\0\0\0"), UD, EX},
	{"fe /2", U64, CODE("\xfe\xd0"), UD, EX},
	{"ff /7", U64, CODE("\xff\xf8"), UD, EX},
	{"lcall of a register", U64, CODE("\xff\xd8"), UD, EX},
	{"ljmp of a register", U64, CODE("\xff\xe8"), UD, EX},
	{"bound of a register as EVEX", U64, CODE("\x62\xf1\x7c\x48\x58\xc0"), UD, EX},
	{"0f 04", U64, CODE("\x0f\x04"), UD, EX},
	{"0f 0a", U64, CODE("\x0f\x0a"), UD, EX},
	{"0f 0c", U64, CODE("\x0f\x0c"), UD, EX},
	{"0f 24", U64, CODE("\x0f\x24\xc0"), UD, EX},
	{"0f 36", U64, CODE("\x0f\x36"), UD, EX},
	{"0f 39", U64, CODE("\x0f\x39"), UD, EX},
	{"0f 3e", U64, CODE("\x0f\x3e"), UD, EX},
	{"0f a6 c0", U64, CODE("\x0f\xa6\xc0"), UD, EX},
	{"0f a7 c0", U64, CODE("\x0f\xa7\xc0"), UD, EX},
	{"0f ba /0", U64, CODE("\x0f\xba\xc0\x00"), UD, EX},
	{"0f ba /3", U64, CODE("\x0f\xba\x1e\x00"), UD, EX},
	{"0f 00 /6", U64, CODE("\x0f\x00\xf0"), UD, EX},
	{"0f 00 /7", U64, CODE("\x0f\x00\xf8"), UD, EX},
	{"sgdt of a register", U64, CODE("\x0f\x01\xc7"), UD, EX},
	{"invlpg of a register", K64, CODE("\x0f\x01\xff"), UD, EX},
	{"rsm outside of SMM", K64, CODE("\x0f\xaa"), UD, EX},
	{"mov %cr1, %rax", K64, CODE("\x0f\x20\xc8"), UD, EX},
	{"mov %rax, %cr1", K64, CODE("\x0f\x22\xc8"), UD, EX},
	{"mov %cr5, %rax", K64, CODE("\x0f\x20\xe8"), UD, EX},
	{"mov %cr6, %rax", K64, CODE("\x0f\x20\xf0"), UD, EX},
	{"mov %cr7, %rax", K64, CODE("\x0f\x20\xf8"), UD, EX},
	{"mov %rax, %cr7", K64, CODE("\x0f\x22\xf8"), UD, EX},
	{"mov %cr9, %rax", K64, CODE("\x44\x0f\x20\xc8"), UD, EX},
	{"mov %cr15, %rax", K64, CODE("\x44\x0f\x20\xf8"), UD, EX},
	{"mov %dr8, %rax", K64, CODE("\x44\x0f\x21\xc0"), UD, EX},
	{"movntps from a register", U64, CODE("\x0f\x2b\xc0"), UD, EX},
	{"movlps store to a register", U64, CODE("\x0f\x13\xc0"), UD, EX},
	{"movnti to a register", U64, CODE("\x0f\xc3\xc0"), UD, EX},
	{"ldmxcsr of a register", U64, CODE("\x0f\xae\xd0"), UD, EX},
	{"fxsave of a register", U64, CODE("\x0f\xae\xc0"), UD, EX},
	{"d9 d1", U64, CODE("\xd9\xd1"), UD, EX},
	{"d9 e2", U64, CODE("\xd9\xe2"), UD, EX},
	{"d9 /1 in memory", U64, CODE("\xd9\x0e"), UD, EX},
	{"da e0", U64, CODE("\xda\xe0"), UD, EX},
	{"lds", U64, CODE("\xc5\x06"), UD, EX},
	{"arpl is movslq", U64, CODE("\x63\x06"), VEC_DONE, EX},
	{"lcall ptr16:32", U32, CODE("\x9a\0\0\0\0\0\0"), GP, 0},
	{"82 /0", U32, CODE("\x82\xc0\x00"), VEC_DONE, EX},
	{"pusha", U32, CODE("\x60"), VEC_DONE, EX},
	{"lds of a register", U32, CODE("\xc5\xc0"), UD, EX}, /* VEX without AVX */
};

/* LOCK (vol. 2 LOCK): only read-modify-write forms with a memory destination. */
static const struct insn lock_bad[] = {
	{"nop", U64, CODE("\xf0\x90"), UD, EX},
	{"mov to memory", U64, CODE("\xf0\x89\x06"), UD, EX},
	{"mov from memory", U64, CODE("\xf0\x8b\x06"), UD, EX},
	{"mov imm", U64, CODE("\xf0\xc7\x06\0\0\0\0"), UD, EX},
	{"add to a register", U64, CODE("\xf0\x01\xc0"), UD, EX},
	{"add from memory", U64, CODE("\xf0\x03\x06"), UD, EX},
	{"add imm to eax", U64, CODE("\xf0\x05\0\0\0\0"), UD, EX},
	{"add imm8 to a register", U64, CODE("\xf0\x83\xc0\x01"), UD, EX},
	{"cmp with memory", U64, CODE("\xf0\x39\x06"), UD, EX},
	{"cmp imm8 with memory", U64, CODE("\xf0\x83\x3e\x01"), UD, EX},
	{"cmp imm with memory", U64, CODE("\xf0\x81\x3e\0\0\0\0"), UD, EX},
	{"cmp byte imm with memory", U64, CODE("\xf0\x80\x3e\0"), UD, EX},
	{"test memory", U64, CODE("\xf0\x85\x06"), UD, EX},
	{"test imm", U64, CODE("\xf0\xf7\x06\0\0\0\0"), UD, EX},
	{"mul memory", U64, CODE("\xf0\xf7\x26"), UD, EX},
	{"div memory", U64, CODE("\xf0\xf7\x36"), UD, EX},
	{"not register", U64, CODE("\xf0\xf7\xd0"), UD, EX},
	{"neg register", U64, CODE("\xf0\xf7\xd8"), UD, EX},
	{"inc register", U64, CODE("\xf0\xff\xc0"), UD, EX},
	{"dec register", U64, CODE("\xf0\xff\xc8"), UD, EX},
	{"inc byte register", U64, CODE("\xf0\xfe\xc0"), UD, EX},
	{"push memory", U64, CODE("\xf0\xff\x36"), UD, EX},
	{"call memory", U64, CODE("\xf0\xff\x16"), UD, EX},
	{"jmp memory", U64, CODE("\xf0\xff\x26"), UD, EX},
	{"xchg registers", U64, CODE("\xf0\x87\xc1"), UD, EX},
	{"cmpxchg register", U64, CODE("\xf0\x0f\xb1\xc0"), UD, EX},
	{"cmpxchg byte register", U64, CODE("\xf0\x0f\xb0\xc0"), UD, EX},
	{"xadd register", U64, CODE("\xf0\x0f\xc1\xc0"), UD, EX},
	{"cmpxchg8b register", U64, CODE("\xf0\x0f\xc7\xc8"), UD, EX},
	{"bt memory", U64, CODE("\xf0\x0f\xa3\x06"), UD, EX},
	{"bt imm memory", U64, CODE("\xf0\x0f\xba\x26\x01"), UD, EX},
	{"shl memory", U64, CODE("\xf0\xd1\x26"), UD, EX},
	{"imul", U64, CODE("\xf0\x0f\xaf\x06"), UD, EX},
	{"shld memory", U64, CODE("\xf0\x0f\xa4\x06\x01"), UD, EX},
	{"setz memory", U64, CODE("\xf0\x0f\x94\x06"), UD, EX},
	{"movs", U64, CODE("\xf0\xa4"), UD, EX},
	{"stos", U64, CODE("\xf0\xab"), UD, EX},
	{"pop memory", U64, CODE("\xf0\x8f\x06"), UD, EX},
	{"lea", U64, CODE("\xf0\x8d\x06"), UD, EX},
	{"int3", U64, CODE("\xf0\xcc"), UD, EX},
	{"int", U64, CODE("\xf0\xcd\x81"), UD, EX},
	{"jmp short", U64, CODE("\xf0\xeb\x00"), UD, EX},
	{"ret", U64, CODE("\xf0\xc3"), UD, EX},
	{"pushf", U64, CODE("\xf0\x9c"), UD, EX},
	{"cpuid", U64, CODE("\xf0\x0f\xa2"), UD, EX},
	{"rdtsc", U64, CODE("\xf0\x0f\x31"), UD, EX},
	{"sfence", U64, CODE("\xf0\x0f\xae\xf8"), UD, EX},
	{"addps", U64, CODE("\xf0\x0f\x58\x06"), UD, EX},
	{"movaps store", U64, CODE("\xf0\x0f\x29\x06"), UD, EX},
	{"fld", U64, CODE("\xf0\xd9\x06"), UD, EX},
	{"cli", K64, CODE("\xf0\xfa"), UD, EX},
	{"invlpg", K64, CODE("\xf0\x0f\x01\x3e"), UD, EX},
	{"mov", U32, CODE("\xf0\x89\x06"), UD, EX},
};

/* These end QEMU 7.2 with "tcg fatal error", or never. */
static const struct insn lock_deadly[] = {
	{"hlt", K64, CODE("\xf0\xf4"), UD, EX},
	{"bt register", U64, CODE("\xf0\x0f\xa3\xc0"), UD, EX},
	{"bts register", U64, CODE("\xf0\x0f\xab\xc0"), UD, EX},
	{"btr register", U64, CODE("\xf0\x0f\xb3\xc0"), UD, EX},
	{"btc register", U64, CODE("\xf0\x0f\xbb\xc0"), UD, EX},
	{"bt imm register", U64, CODE("\xf0\x0f\xba\xe0\x01"), UD, EX},
	{"bts imm register", U64, CODE("\xf0\x0f\xba\xe8\x01"), UD, EX},
	{"btr imm register", U64, CODE("\xf0\x0f\xba\xf0\x01"), UD, EX},
	{"btc imm register", U64, CODE("\xf0\x0f\xba\xf8\x01"), UD, EX},
	{"bts register", K32, CODE("\xf0\x0f\xab\xc0"), UD, EX},
};

static const struct insn lock_good[] = {
	{"add", U64, CODE("\xf0\x01\x06"), VEC_DONE, EX},
	{"or", U64, CODE("\xf0\x09\x06"), VEC_DONE, EX},
	{"adc", U64, CODE("\xf0\x11\x06"), VEC_DONE, EX},
	{"sbb", U64, CODE("\xf0\x19\x06"), VEC_DONE, EX},
	{"and", U64, CODE("\xf0\x21\x06"), VEC_DONE, EX},
	{"sub", U64, CODE("\xf0\x29\x06"), VEC_DONE, EX},
	{"xor", U64, CODE("\xf0\x31\x06"), VEC_DONE, EX},
	{"add imm8", U64, CODE("\xf0\x83\x06\x01"), VEC_DONE, EX},
	{"xor byte imm8", U64, CODE("\xf0\x80\x36\x01"), VEC_DONE, EX},
	{"not", U64, CODE("\xf0\xf7\x16"), VEC_DONE, EX},
	{"neg", U64, CODE("\xf0\xf7\x1e"), VEC_DONE, EX},
	{"inc", U64, CODE("\xf0\xff\x06"), VEC_DONE, EX},
	{"dec byte", U64, CODE("\xf0\xfe\x0e"), VEC_DONE, EX},
	{"xchg", U64, CODE("\xf0\x87\x06"), VEC_DONE, EX},
	{"xchg byte", U64, CODE("\xf0\x86\x06"), VEC_DONE, EX},
	{"cmpxchg", U64, CODE("\xf0\x0f\xb1\x06"), VEC_DONE, EX},
	{"cmpxchg8b", U64, CODE("\xf0\x0f\xc7\x0e"), VEC_DONE, EX},
	{"xadd", U64, CODE("\xf0\x0f\xc1\x06"), VEC_DONE, EX},
	{"bts", U64, CODE("\xf0\x0f\xab\x06"), VEC_DONE, EX},
	{"btr", U64, CODE("\xf0\x0f\xb3\x06"), VEC_DONE, EX},
	{"btc", U64, CODE("\xf0\x0f\xbb\x06"), VEC_DONE, EX},
	{"bts imm", U64, CODE("\xf0\x0f\xba\x2e\x01"), VEC_DONE, EX},
	{"btr imm", U64, CODE("\xf0\x0f\xba\x36\x01"), VEC_DONE, EX},
	{"btc imm", U64, CODE("\xf0\x0f\xba\x3e\x01"), VEC_DONE, EX},
};

/* CR4.OSXSAVE is clear here: VEX and EVEX are not enabled (vol. 2 2.3, 2.4.3). */
static const struct insn vex[] = {
	{"vaddps xmm", U64, CODE("\xc5\xf8\x58\xc0"), UD, EX},
	{"vaddps ymm", U64, CODE("\xc5\xfc\x58\xc0"), UD, EX},
	{"vaddps memory", U64, CODE("\xc5\xf8\x58\x06"), UD, EX},
	{"vmovaps store", U64, CODE("\xc5\xf8\x29\x06"), UD, EX},
	{"vzeroupper", U64, CODE("\xc5\xf8\x77"), UD, EX},
	{"vpshufb", U64, CODE("\xc4\xe2\x79\x00\xc0"), UD, EX},
	{"vpaddd", K64, CODE("\xc5\xf9\xfe\xc0"), UD, EX},
	{"vaddps evex", U64, CODE("\x62\xf1\x7c\x48\x58\xc0"), UD, EX},
	{"vaddps", U32, CODE("\xc5\xf8\x58\xc0"), UD, EX},
	{"lock vaddps", U64, CODE("\xf0\xc5\xf8\x58\xc0"), UD, EX},
	{"rex vaddps", U64, CODE("\x40\xc5\xf8\x58\xc0"), UD, EX},
	{"66 vaddps", U64, CODE("\x66\xc5\xf8\x58\xc0"), UD, EX},
};

/* ---- #NM and friends ------------------------------------------------------------------------ */

/* SDM vol. 3A table 2-2 (x87 and EM/MP/TS), table 13-1 (SSE). */
static void test_device_not_available(void)
{
	enum { ANY = ~0u };
	static const struct {
		const char *name;
		u64 cr0_set, cr0_clear, cr4_clear;
		u32 x87, wait, mmx, sse;
	} rows[] = {
		{"plain", 0, 0, 0, VEC_DONE, VEC_DONE, VEC_DONE, VEC_DONE},
		{"TS", CR0_TS, 0, 0, NM, NM, NM, NM},
		{"TS without MP", CR0_TS, CR0_MP, 0, NM, VEC_DONE, NM, NM},
		{"EM", CR0_EM, 0, 0, NM, VEC_DONE, UD, UD},
		/* #UD and #NM have the same priority (table 6-2): not asked. */
		{"EM and TS", CR0_EM | CR0_TS, 0, 0, NM, NM, ANY, ANY},
		{"no OSFXSR", 0, 0, CR4_FXSR, VEC_DONE, VEC_DONE, VEC_DONE, UD},
	};
	u64 cr0 = read_cr0(), cr4 = read_cr4();

	test_begin("exceptions: #NM and #UD by CR0.TS, EM, MP and CR4.OSFXSR");
	for (u32 i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct insn insns[] = {
			{"fld1", U64, CODE("\xd9\xe8"), rows[i].x87, EX},
			{"fnop", K64, CODE("\xd9\xd0"), rows[i].x87, EX},
			{"fnstsw", U64, CODE("\xdf\xe0"), rows[i].x87, EX},
			{"fwait", U64, CODE("\x9b"), rows[i].wait, EX},
			{"emms", U64, CODE("\x0f\x77"), rows[i].mmx, EX},
			{"paddb mm", U64, CODE("\x0f\xfc\xc0"), rows[i].mmx, EX},
			{"addps", U64, CODE("\x0f\x58\xc0"), rows[i].sse, EX},
			{"movaps (%rsi)", K64, CODE("\x0f\x28\x06"), rows[i].sse, EX},
			{"paddd xmm", U64, CODE("\x66\x0f\xfe\xc0"), rows[i].sse, EX},
			{"cvtsi2sd", U64, CODE("\xf2\x0f\x2a\xc0"), rows[i].sse, EX},
			{"stmxcsr", U64, CODE("\x0f\xae\x1e"), rows[i].sse, EX},
			{"movnti", U64, CODE("\x0f\xc3\x06"), VEC_DONE, EX},
			{"sfence", U64, CODE("\x0f\xae\xf8"), VEC_DONE, EX},
			{"prefetcht0", U64, CODE("\x0f\x18\x0e"), VEC_DONE, EX},
		};

		write_cr4(cr4 & ~rows[i].cr4_clear);
		write_cr0((cr0 | rows[i].cr0_set) & ~rows[i].cr0_clear);
		for (u32 j = 0; j < ARRAY_SIZE(insns); j++) {
			test_context("%s: %s", rows[i].name, insns[j].name);
			if (insns[j].vector == ANY)
				continue;
			insn_run(&insns[j]);
		}
		write_cr0(cr0);
		write_cr4(cr4);
		asm volatile("fninit");
	}
	/* CLTS lets it go on. */
	write_cr0(cr0 | CR0_TS);
	asm volatile("clts");
	expect("CLTS", 0, read_cr0() & CR0_TS);
	test_context(NULL);
	test_end();
}

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

/* ---- non-canonical addresses ------------------------------------------------------------------
 */

SNIPPET(push_rax, "push %rax");
SNIPPET(call_rax, "call *%rax");
SNIPPET(ret_near, "ret");
SNIPPET(load_rbp, "mov (%rbp), %rax");
SNIPPET(load_rsp, "mov 8(%rsp), %rax");
SNIPPET(load_rsi, "mov (%rsi), %rax");
SNIPPET(store_rsi, "mov %rax, (%rsi)");
SNIPPET(load_fs, "mov %fs:(%rsi), %rax");
SNIPPET(load_ds_rbp, "mov %ds:(%rbp), %rax");
SNIPPET(jmp_rax, "jmp *%rax");
SNIPPET(enter_insn, "enter $16, $0");
SNIPPET(movs, "movsq");
SNIPPET(lods, "lodsb");

static void test_noncanonical(void)
{
	static const u64 bad[] = {NONCANON,	      NONCANON - 7,	  0xffff7fffffffffff,
				  0x8000000000000000, 0x0001000000000000, 0xdeadbeefdeadbeef};
	struct ctx c;

	/* NONCANON - 7: the first bytes are canonical (though not mapped), the last is not. */
	test_begin("exceptions: non-canonical data address is #GP(0)");
	for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
		u8 *const code[] = {load_rsi, store_rsi};

		test_context("0x%lx", bad[i]);
		if (bad[i] == NONCANON - 7)
			continue; /* below */
		for (u32 j = 0; j < ARRAY_SIZE(code); j++) {
			c = ctx_user(code[j]);
			c.gpr[RSI] = bad[i];
			exec(&c);
			expect_trap(&c, GP, 0);
			expect("RIP", (u64)user_alias(code[j]), c.rip);
		}
		c = ctx_user(movs);
		c.gpr[RSI] = bad[i];
		c.gpr[RDI] = (u64)user_alias(insn_data);
		exec(&c);
		expect_trap(&c, GP, 0);
		expect("RSI", bad[i], c.gpr[RSI]);
		c = ctx_user(lods);
		c.gpr[RSI] = bad[i];
		exec(&c);
		expect_trap(&c, GP, 0);
	}
	test_context(NULL);
	test_end();

	/* Through RSP, RBP, pushes and pops: #SS(0) (vol. 3A 6.15 interrupt 12; vol. 1 3.3.7.1). An
	 * override to another segment makes it #GP. */
	test_begin("exceptions: non-canonical stack address is #SS(0)");
	u8 *const stack[] = {push_rax, load_rbp, load_rsp, ret_near, enter_insn, call_rax};

	for (u32 i = 0; i < ARRAY_SIZE(stack); i++) {
		c = ctx_user(stack[i]);
		c.gpr[RBP] = c.gpr[RSP] = NONCANON;
		if (stack[i] == push_rax || stack[i] == enter_insn || stack[i] == call_rax)
			c.gpr[RSP] = NONCANON + 0x100;
		c.gpr[RAX] = (u64)user_alias(push_rax);
		exec(&c);
		test_context("snippet %u", i);
		expect_trap(&c, SS, 0);
		expect("RIP", (u64)user_alias(stack[i]), c.rip);
	}
	test_context(NULL);
	test_end();

	test_begin("exceptions: an override decides between #SS and #GP");
	c = ctx_user(load_fs);
	c.gpr[RSI] = NONCANON;
	exec(&c);
	expect_trap(&c, GP, 0);
	/* DS has no effect as an override in 64-bit mode: still the stack segment?  The assembler's
	 * 3e prefix is ignored (vol. 1 3.3.7.1), so RBP means SS. */
	c = ctx_user(load_ds_rbp);
	c.gpr[RBP] = NONCANON;
	exec(&c);
	expect("vector is #SS or #GP", true, c.vector == SS || c.vector == GP);
	expect("error code", 0, c.error);
	test_end();

	/* The address is checked before anything is done: RIP is the branch, the stack untouched.
	 */
	test_begin("exceptions: non-canonical branch target is #GP(0) at the branch");
	for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
		u8 *const code[] = {jmp_rax, call_rax, ret_near};

		if (bad[i] == NONCANON - 7)
			continue;
		for (u32 j = 0; j < ARRAY_SIZE(code); j++) {
			u64 *sp;

			c = ctx_user(code[j]);
			c.gpr[RSP] -= 64;
			c.gpr[RAX] = bad[i];
			sp = (u64 *)(c.gpr[RSP] - USER_ALIAS);
			sp[-1] = 0x5555;
			sp[0] = bad[i];
			u64 rsp = c.gpr[RSP];

			exec(&c);
			test_context("snippet %u, 0x%lx", j, bad[i]);
			expect_trap(&c, GP, 0);
			expect("RIP", (u64)user_alias(code[j]), c.rip);
			expect("RSP", rsp, c.gpr[RSP]);
			expect("stack", 0x5555, sp[-1]);
		}
	}
	test_context(NULL);
	test_end();

	/* An access that begins canonical and ends beyond. Its pages are mapped, or it would be
	 * #PF. */
	test_begin("exceptions: access that runs into the hole");
	u64 *pte = map_page(NONCANON - PAGE_SIZE, (u64)alloc_pages(1), PTE_P | PTE_W | PTE_U);

	flush_tlb();
	c = ctx_user(load_rsi);
	c.gpr[RSI] = NONCANON - 8;
	exec(&c);
	expect_done(&c);
	for (u64 i = 1; i < 8; i++) {
		c = ctx_user(load_rsi);
		c.gpr[RSI] = NONCANON - i;
		exec(&c);
		test_context("load of 8, %lu below", i);
		expect_trap(&c, GP, 0);
		c = ctx_user(store_rsi);
		c.gpr[RSI] = NONCANON - i;
		c.gpr[RAX] = ~0ull;
		exec(&c);
		expect_trap(&c, GP, 0);
	}
	c = ctx_user(load_rsi);
	c.gpr[RSI] = NONCANON - 8;
	exec(&c);
	expect("nothing stored", 0, c.gpr[RAX]);
	*pte = 0;
	flush_tlb();
	test_context(NULL);
	test_end();
}

/* ---- x87, SSE ------------------------------------------------------------------------------- */

SNIPPET(mf_wait, "fninit; fldcw (%rsi); fld1; fldz; fdivrp; nop; mf_wait_at: fwait; nop");
SNIPPET(mf_arith, "fninit; fldcw (%rsi); fld1; fldz; fdivrp; fnstsw %ax; mf_arith_at: fld1; nop");
SNIPPET(mf_mmx, "fninit; fldcw (%rsi); fld1; fldz; fdivrp; inc %rcx; mf_mmx_at: paddb %mm0, %mm0");
SNIPPET(mf_sse, "fninit; fldcw (%rsi); fld1; fldz; fdivrp; addps %xmm0, %xmm0; mf_sse_at: fwait");
SNIPPET(mf_clear, "fninit; fldcw (%rsi); fld1; fldz; fdivrp; fnclex; fwait");
SNIPPET(mf_masked, "fninit; fld1; fldz; fdivrp; fwait; fnstsw %ax");
SNIPPET(mf_control, "fninit; fldcw (%rsi); fld1; fldz; fdivrp; fnstcw 2(%rsi); fnstenv 64(%rsi)\n"
		    "fnclex");
SNIPPET(mf_unmask, "fninit; fld1; fldz; fdivrp; fldcw (%rsi); mf_unmask_at: fwait");
extern u8 mf_wait_at[], mf_arith_at[], mf_mmx_at[], mf_sse_at[], mf_unmask_at[];

/* An unmasked x87 exception is kept until the next waiting instruction (SDM vol. 1 8.6, 8.7; CR0.NE
 * = 1). */
static void test_mf(void)
{
	const struct {
		const char *name;
		u8 *code, *at; /* NULL: no exception */
	} rows[] = {
		{"fwait", mf_wait, mf_wait_at},
		{"next x87 instruction, fnstsw does not wait", mf_arith, mf_arith_at},
		{"MMX", mf_mmx, mf_mmx_at},
		{"SSE does not wait", mf_sse, mf_sse_at},
		{"cleared by fnclex", mf_clear, NULL},
		{"masked", mf_masked, NULL},
		{"control instructions do not wait", mf_control, NULL},
		{"unmasked later by fldcw", mf_unmask, mf_unmask_at},
	};

	test_begin("exceptions: #MF is raised at the next waiting instruction");
	for (u32 i = 0; i < ARRAY_SIZE(rows); i++) {
		struct ctx c = ctx_user(rows[i].code);

		*(u16 *)insn_data = 0x37b; /* ZM = 0 */
		c.gpr[RSI] = (u64)user_alias(insn_data);
		exec(&c);
		test_context("%s", rows[i].name);
		if (rows[i].at) {
			expect_trap(&c, MF, NO_ERROR);
			expect("RIP", (u64)user_alias(rows[i].at), c.rip);
		} else {
			expect_done(&c);
		}
		if (rows[i].code == mf_masked)
			expect("ZE, ES and B of the status word", 4, c.gpr[RAX] & 0x8084);
		asm volatile("fninit");
	}
	test_context(NULL);
	test_end();
}

SNIPPET(xm_div, "ldmxcsr (%rsi); movss 4(%rsi), %xmm0; xorps %xmm1, %xmm1\n"
		"xm_div_at: divss %xmm1, %xmm0; stmxcsr 8(%rsi)");
extern u8 xm_div_at[];

static struct ctx run_xm(u32 mxcsr)
{
	struct ctx c = ctx_user(xm_div);

	((u32 *)insn_data)[0] = mxcsr;
	((u32 *)insn_data)[1] = 0x3f800000;
	c.gpr[RSI] = (u64)user_alias(insn_data);
	exec(&c);
	asm volatile("ldmxcsr %0" ::"m"((u32){0x1f80}));
	return c;
}

static void test_xm(void)
{
	u64 cr4 = read_cr4();
	struct ctx c;

	test_begin("exceptions: masked SSE exception sets its flag");
	c = run_xm(0x1f80);
	expect_done(&c);
	expect("MXCSR.ZE", 0x1f84, ((u32 *)insn_data)[2]);
	test_end();
	test_begin("exceptions: #XM (SDM vol. 1 11.5.2)");
	c = run_xm(0x1d80); /* ZM = 0 */
	expect_trap(&c, XM, NO_ERROR);
	expect("RIP", (u64)user_alias(xm_div_at), c.rip);
	write_cr4(cr4 & ~CR4_XMM);
	c = run_xm(0x1d80);
	expect_trap(&c, UD, NO_ERROR);
	write_cr4(cr4);
	test_end();
	test_begin("exceptions: MXCSR reserved bits are #GP(0)");
	insn_run(&(struct insn){"fine", U64, CODE("\x0f\xae\x56\x40"), VEC_DONE, EX});
	asm volatile("ldmxcsr %0" ::"m"((u32){0x1f80}));
	c = ctx_user(put_code("\x0f\xae\x16", 3));
	*(u32 *)insn_data = 0x11f80;
	c.gpr[RSI] = (u64)user_alias(insn_data);
	exec(&c);
	expect_trap(&c, GP, 0);
	test_end();
}

/* Alignment rules of SSE: vol. 1 11.6.10.4 and each instruction's list (type 1 and 4 against 5). */
static void test_alignment(void)
{
	static const struct insn must[] = {
		{"movaps load", U64, CODE("\x0f\x28\x46\x08"), GP, 0},
		{"movaps load", K64, CODE("\x0f\x28\x46\x01"), GP, 0},
		{"movaps store", U64, CODE("\x0f\x29\x46\x08"), GP, 0},
		{"movapd load", U64, CODE("\x66\x0f\x28\x46\x04"), GP, 0},
		{"movdqa load", U64, CODE("\x66\x0f\x6f\x46\x01"), GP, 0},
		{"movdqa store", U64, CODE("\x66\x0f\x7f\x46\x08"), GP, 0},
		{"movntps", U64, CODE("\x0f\x2b\x46\x08"), GP, 0},
		{"movntdq", U64, CODE("\x66\x0f\xe7\x46\x08"), GP, 0},
		{"addps", U64, CODE("\x0f\x58\x46\x08"), GP, 0},
		{"andps", U64, CODE("\x0f\x54\x46\x04"), GP, 0},
		{"mulpd", U64, CODE("\x66\x0f\x59\x46\x08"), GP, 0},
		{"paddd", U64, CODE("\x66\x0f\xfe\x46\x08"), GP, 0},
		{"pshufd", U64, CODE("\x66\x0f\x70\x46\x08\x00"), GP, 0},
		{"pxor", U64, CODE("\x66\x0f\xef\x46\x0f"), GP, 0},
		{"cvtdq2ps", U64, CODE("\x0f\x5b\x46\x08"), GP, 0},
		{"shufps", U64, CODE("\x0f\xc6\x46\x08\x00"), GP, 0},
		{"fxsave", U64, CODE("\x0f\xae\x46\x08"), GP, 0},
		{"fxrstor", U64, CODE("\x0f\xae\x4e\x08"), GP, 0},
		{"movaps load", U32, CODE("\x0f\x28\x46\x08"), GP, 0},
		{"movaps of the stack", U64, CODE("\x0f\x28\x45\x08"), GP, 0},
	};
	static const struct insn need_not[] = {
		{"movaps aligned", U64, CODE("\x0f\x28\x46\x10"), VEC_DONE, EX},
		{"movups load", U64, CODE("\x0f\x10\x46\x01"), VEC_DONE, EX},
		{"movups store", U64, CODE("\x0f\x11\x46\x01"), VEC_DONE, EX},
		{"movdqu load", U64, CODE("\xf3\x0f\x6f\x46\x01"), VEC_DONE, EX},
		{"movlps", U64, CODE("\x0f\x12\x46\x01"), VEC_DONE, EX},
		{"movss", U64, CODE("\xf3\x0f\x10\x46\x01"), VEC_DONE, EX},
		{"addsd", U64, CODE("\xf2\x0f\x58\x46\x01"), VEC_DONE, EX},
		{"cvtps2pd", U64, CODE("\x0f\x5a\x46\x04"), VEC_DONE, EX},
		{"paddb mm", U64, CODE("\x0f\xfc\x46\x01"), VEC_DONE, EX},
		{"cvtdq2pd", U64, CODE("\xf3\x0f\xe6\x46\x04"), VEC_DONE, EX},
		{"movddup-free: movhps", U64, CODE("\x0f\x16\x46\x03"), VEC_DONE, EX},
	};

	INSN_TABLE("exceptions: misaligned SSE operands are #GP(0)", must);
	INSN_TABLE("exceptions: SSE operands that may be misaligned", need_not);
	asm volatile("fninit");
	if (cpuid(1, 0).c & BIT(13)) {
		static const struct insn cx16[] = {
			{"cmpxchg16b 8(%rsi)", U64, CODE("\x48\x0f\xc7\x4e\x08"), GP, 0},
			{"lock cmpxchg16b 8(%rsi)", U64, CODE("\xf0\x48\x0f\xc7\x4e\x08"), GP, 0},
			{"cmpxchg16b 1(%rsi)", K64, CODE("\x48\x0f\xc7\x4e\x01"), GP, 0},
			{"lock cmpxchg16b 16(%rsi)", U64, CODE("\xf0\x48\x0f\xc7\x4e\x10"),
			 VEC_DONE, EX},
			{"cmpxchg8b 1(%rsi)", U64, CODE("\x0f\xc7\x4e\x01"), VEC_DONE, EX},
			{"lock cmpxchg8b 4(%rsi)", U64, CODE("\xf0\x0f\xc7\x4e\x04"), VEC_DONE, EX},
		};

		INSN_TABLE("exceptions: misaligned CMPXCHG16B is #GP(0)", cx16);
	} else {
		test_skip("exceptions: misaligned CMPXCHG16B is #GP(0)", "no CMPXCHG16B");
	}
}

/* #AC: vol. 3A 6.15 interrupt 17. */
static void test_ac(void)
{
	static const struct insn on[] = {
		{"movw 1(%rsi)", U64, CODE("\x66\x8b\x46\x01"), AC, 0, .rflags = FL_AC},
		{"movl 2(%rsi)", U64, CODE("\x8b\x46\x02"), AC, 0, .rflags = FL_AC},
		{"movl store 1(%rsi)", U64, CODE("\x89\x46\x01"), AC, 0, .rflags = FL_AC},
		{"movq 1(%rsi)", U64, CODE("\x48\x8b\x46\x01"), AC, 0, .rflags = FL_AC},
		{"addl 3(%rsi)", U64, CODE("\x01\x46\x03"), AC, 0, .rflags = FL_AC},
		{"movl 2(%esi)", U32, CODE("\x8b\x46\x02"), AC, 0, .rflags = FL_AC},
		{"push", U64, CODE("\x48\x8d\x64\x24\x01"), VEC_DONE, EX, .rflags = FL_AC},
	};
	static const struct insn off[] = {
		{"byte", U64, CODE("\x8a\x46\x01"), VEC_DONE, EX, .rflags = FL_AC},
		{"aligned", U64, CODE("\x8b\x46\x04"), VEC_DONE, EX, .rflags = FL_AC},
		{"no AC", U64, CODE("\x8b\x46\x02"), VEC_DONE, EX},
		{"CPL 0", K64, CODE("\x8b\x46\x02"), VEC_DONE, EX, .rflags = FL_AC},
	};
	u64 cr0 = read_cr0();

	write_cr0(cr0 | CR0_AM);
	INSN_TABLE("exceptions: #AC(0) at CPL 3 with AM and AC", on);
	INSN_TABLE("exceptions: no #AC without its conditions", off);
	write_cr0(cr0);
	test_begin("exceptions: no #AC without CR0.AM");
	insn_run(&(struct insn){"", U64, CODE("\x8b\x46\x02"), VEC_DONE, EX, .rflags = FL_AC});
	test_end();
}

/* ---- length --------------------------------------------------------------------------------- */

static const struct insn lengths[] = {
	{"15 bytes", U64, CODE("\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x90"),
	 VEC_DONE, EX},
	{"16 bytes", U64, CODE("\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x90"),
	 GP, 0},
	{"16 bytes, long operand", U64,
	 CODE("\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x48\xb8\x88\x77\x66\x55\x44\x33\x22\x11"), GP, 0},
	{"15 bytes, long operand", U64,
	 CODE("\x2e\x2e\x2e\x2e\x2e\x48\xb8\x88\x77\x66\x55\x44\x33\x22\x11"), VEC_DONE, EX},
	{"15 bytes", U32, CODE("\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x90"),
	 VEC_DONE, EX},
	{"16 bytes", U32, CODE("\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x90"),
	 GP, 0},
};

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

/* ---- control, debug and model-specific registers ----------------------------------------------
 */

#define MOV_CR0 CODE("\x0f\x22\xc0")
#define MOV_CR3 CODE("\x0f\x22\xd8")
#define MOV_CR4 CODE("\x0f\x22\xe0")
#define MOV_CR8 CODE("\x44\x0f\x22\xc0")
#define MOV_DR6 CODE("\x0f\x23\xf0")
#define MOV_DR7 CODE("\x0f\x23\xf8")

static void test_control_registers(void)
{
	u64 cr0 = read_cr0(), cr3 = read_cr3(), cr4 = read_cr4();
	u32 phys = cpuid(0x80000000, 0).a >= 0x80000008 ? cpuid(0x80000008, 0).a & 0xff : 36;
	const struct insn cr0_deadly[] = {
		{"PG without PE", K64, MOV_CR0, GP, 0, .rax = cr0 & ~CR0_PE},
		{"PG cleared in 64-bit mode", K64, MOV_CR0, GP, 0, .rax = cr0 & ~CR0_PG},
	};
	const struct insn cr0_table[] = {
		{"NW without CD", K64, MOV_CR0, GP, 0, .rax = cr0 | CR0_NW},
		{"bit 32", K64, MOV_CR0, GP, 0, .rax = cr0 | BIT(32)},
		{"bit 63", K64, MOV_CR0, GP, 0, .rax = cr0 | BIT(63)},
		{"same value", K64, MOV_CR0, VEC_DONE, EX, .rax = cr0},
		{"reserved low bit is ignored", K64, MOV_CR0, VEC_DONE, EX, .rax = cr0 | BIT(7)},
	};
	const struct insn cr4_deadly[] = {
		{"PAE cleared in long mode", K64, MOV_CR4, GP, 0, .rax = cr4 & ~CR4_PAE},
		{"LA57 switched in long mode", K64, MOV_CR4, GP, 0, .rax = cr4 ^ CR4_LA57},
	};
	const struct insn cr4_table[] = {
		{"bit 15", K64, MOV_CR4, GP, 0, .rax = cr4 | BIT(15)},
		{"bit 26", K64, MOV_CR4, GP, 0, .rax = cr4 | BIT(26)},
		{"bit 31", K64, MOV_CR4, GP, 0, .rax = cr4 | BIT(31)},
		{"bit 33", K64, MOV_CR4, GP, 0, .rax = cr4 | BIT(33)},
		{"bit 63", K64, MOV_CR4, GP, 0, .rax = cr4 | BIT(63)},
		{"same value", K64, MOV_CR4, VEC_DONE, EX, .rax = cr4},
	};
	const struct insn cr3_table[] = {
		{"address bit beyond MAXPHYADDR", K64, MOV_CR3, GP, 0, .rax = cr3 | BIT(phys)},
		{"bit 52", K64, MOV_CR3, GP, 0, .rax = cr3 | BIT(52)},
		{"bit 63 without PCID", K64, MOV_CR3, GP, 0, .rax = cr3 | BIT(63)},
		{"PCD and PWT", K64, MOV_CR3, VEC_DONE, EX, .rax = cr3 | 0x18},
		{"same value", K64, MOV_CR3, VEC_DONE, EX, .rax = cr3},
	};
	const struct insn cr8_table[] = {
		{"16", K64, MOV_CR8, GP, 0, .rax = 16},
		{"bit 63", K64, MOV_CR8, GP, 0, .rax = BIT(63)},
		{"5", K64, MOV_CR8, VEC_DONE, EX, .rax = 5},
		{"0", K64, MOV_CR8, VEC_DONE, EX, .rax = 0},
	};
	const struct insn dr_table[] = {
		{"DR6 bit 32", K64, MOV_DR6, GP, 0, .rax = BIT(32)},
		{"DR6 bit 63", K64, MOV_DR6, GP, 0, .rax = BIT(63)},
		{"DR7 bit 32", K64, MOV_DR7, GP, 0, .rax = BIT(32) | 0x400},
		{"DR7", K64, MOV_DR7, VEC_DONE, EX, .rax = 0x400},
	};

	INSN_TABLE("exceptions: MOV to CR0, bad values (vol. 2 MOV CR)", cr0_table);
	test_begin("exceptions: a refused MOV to CR changes nothing");
	expect("CR0", cr0, read_cr0());
	expect("CR4", cr4, read_cr4());
	test_end();
	write_cr0(cr0);
	DEADLY("exceptions: MOV to CR4, bad values", cr4_table);
	DEADLY("exceptions: MOV to CR3, bad values", cr3_table);
	write_cr3(cr3);
	INSN_TABLE("exceptions: MOV to CR8, bad values", cr8_table);
	INSN_TABLE("exceptions: MOV to DR6 and DR7, bad values", dr_table);

	/* A CR4 bit of a feature that CPUID does not have is reserved (vol. 3A 2.5). */
	test_begin("exceptions: CR4 bits of missing features are reserved");
	struct cpuid c1 = cpuid(1, 0), c7 = {0};

	if (cpuid(0, 0).a >= 7)
		c7 = cpuid(7, 0);
	const struct {
		u64 bit;
		bool have;
	} features[] = {
		{CR4_UMIP, c7.c & BIT(2)},  {BIT(13), c1.c & BIT(5)},	 {BIT(14), c1.c & BIT(6)},
		{CR4_FSGS, c7.b & BIT(0)},  {CR4_XSAVE, c1.c & BIT(26)}, {CR4_SMEP, c7.b & BIT(7)},
		{CR4_SMAP, c7.b & BIT(20)}, {CR4_PKE, c7.c & BIT(3)},	 {BIT(23), c7.c & BIT(7)},
		{BIT(24), c7.d & 0},	    {CR4_PCID, c1.c & BIT(17)},
	};

	for (u32 i = 0; i < ARRAY_SIZE(features); i++) {
		struct insn insn = {"",
				    K64,
				    MOV_CR4,
				    features[i].have ? VEC_DONE : GP,
				    features[i].have ? EX : 0,
				    .rax = cr4 | features[i].bit};

		/* CET needs CR0.WP, PKS is in another leaf: only what is simple. */
		if (features[i].bit == BIT(24) || (!features[i].have && argument("qemu", 0)))
			continue;
		test_context("CR4 0x%lx", features[i].bit);
		insn_run(&insn);
		write_cr4(cr4);
	}
	test_context(NULL);
	test_end();

	DEADLY("exceptions: MOV to CR0 that would leave protected or paged mode", cr0_deadly);
	DEADLY("exceptions: MOV to CR4 that would change the paging mode", cr4_deadly);
	/* LMSW may set PE, not clear it (vol. 2 LMSW). */
	test_begin("exceptions: LMSW and SMSW");
	struct ctx c = insn_run(
		&(struct insn){"lmsw", K64, CODE("\x0f\x01\xf0"), VEC_DONE, EX, .rax = cr0 & 0xe});
	expect("PE stays", cr0, read_cr0());
	insn_run(&(struct insn){"lmsw", K64, CODE("\x0f\x01\xf0"), VEC_DONE, EX,
				.rax = (cr0 & 0xf) | CR0_TS});
	expect("TS set", cr0 | CR0_TS, read_cr0());
	c = insn_run(&(struct insn){"smsw", U64, CODE("\x0f\x01\xe0"), VEC_DONE, EX});
	expect("low half", (cr0 | CR0_TS) & 0xffff, c.gpr[RAX] & 0xffff);
	write_cr0(cr0);
	test_end();
}

#define RDMSR CODE("\x0f\x32")
#define WRMSR CODE("\x0f\x30")

static void test_msrs(void)
{
	u32 efer = (u32)rdmsr(MSR_EFER);
	const struct insn bad[] = {
		{"rdmsr of a hole", K64, RDMSR, GP, 0, .rcx = 0x1234567},
		{"wrmsr of a hole", K64, WRMSR, GP, 0, .rcx = 0x1234567},
		{"rdmsr 0xc0001fff", K64, RDMSR, GP, 0, .rcx = 0xc0001fff},
		{"EFER bit 9", K64, WRMSR, GP, 0, .rcx = MSR_EFER, .rax = efer | BIT(9)},
		{"EFER bit 32", K64, WRMSR, GP, 0, .rcx = MSR_EFER, .rax = efer, .rdx = 1},
		{"EFER.LME cleared with paging", K64, WRMSR, GP, 0, .rcx = MSR_EFER,
		 .rax = efer & ~(u32)EFER_LME},
		{"EFER same", K64, WRMSR, VEC_DONE, EX, .rcx = MSR_EFER, .rax = efer},
		{"LSTAR not canonical", K64, WRMSR, GP, 0, .rcx = MSR_LSTAR, .rdx = 0x8000},
		{"CSTAR not canonical", K64, WRMSR, GP, 0, .rcx = MSR_CSTAR, .rdx = 0x8000},
		{"FS base not canonical", K64, WRMSR, GP, 0, .rcx = MSR_FS_BASE, .rdx = 0x8000},
		{"GS base not canonical", K64, WRMSR, GP, 0, .rcx = MSR_GS_BASE, .rdx = 0xffff7fff},
		{"kernel GS base not canonical", K64, WRMSR, GP, 0, .rcx = MSR_KERNEL_GS,
		 .rdx = 0x8000},
		{"SYSENTER_ESP not canonical", K64, WRMSR, GP, 0, .rcx = MSR_SYSENTER_ESP,
		 .rdx = 0x8000},
		{"SYSENTER_EIP not canonical", K64, WRMSR, GP, 0, .rcx = MSR_SYSENTER_EIP,
		 .rdx = 0x8000},
		{"LSTAR canonical high", K64, WRMSR, VEC_DONE, EX, .rcx = MSR_LSTAR,
		 .rdx = 0xffff8000},
		{"PAT type 2", K64, WRMSR, GP, 0, .rcx = MSR_PAT, .rax = 0x00070402,
		 .rdx = 0x00070406},
		{"PAT type 3", K64, WRMSR, GP, 0, .rcx = MSR_PAT, .rax = 0x00070406,
		 .rdx = 0x03070406},
		{"PAT type 8", K64, WRMSR, GP, 0, .rcx = MSR_PAT, .rax = 0x00070408,
		 .rdx = 0x00070406},
		{"PAT reset value", K64, WRMSR, VEC_DONE, EX, .rcx = MSR_PAT, .rax = 0x00070406,
		 .rdx = 0x00070406},
		{"MTRRCAP is read-only", K64, WRMSR, GP, 0, .rcx = 0xfe},
		{"APIC base bit 0", K64, WRMSR, GP, 0, .rcx = MSR_APIC_BASE, .rax = 0xfee00901},
		{"APIC base reserved high bit", K64, WRMSR, GP, 0, .rcx = MSR_APIC_BASE,
		 .rax = 0xfee00900, .rdx = 0x80000000},
	};

	for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
		char name[80];

		/* One case each: they depend on nothing in common. */
		snprintf(name, sizeof(name), "exceptions: MSR: %s", bad[i].name);
		test_begin(name);
		insn_run(&bad[i]);
		test_end();
	}
	wrmsr(MSR_EFER, efer);
}

void test_main(void)
{
	INSN_TABLE("exceptions: #DE", divide);
	DEADLY("exceptions: #DE, IDIV of the most negative by -1", divide_deadly);
	INSN_TABLE("exceptions: #BP, #OF, #BR, INT n", traps);
	test_icebp();
	INSN_TABLE("exceptions: undefined opcodes", undefined);
	INSN_TABLE("exceptions: LOCK where it may not be", lock_bad);
	DEADLY("exceptions: LOCK HLT, LOCK BT, BTS, BTR, BTC of a register", lock_deadly);
	INSN_TABLE("exceptions: LOCK where it may be", lock_good);
	INSN_TABLE("exceptions: VEX and EVEX without XSAVE enabled", vex);
	test_device_not_available();
	test_double_fault();
	test_selectors();
	test_noncanonical();
	test_mf();
	test_xm();
	test_alignment();
	test_ac();
	INSN_TABLE("exceptions: length of 15 bytes", lengths);
	INSN_TABLE("exceptions: privileged instructions at CPL 3", privileged);
	INSN_TABLE("exceptions: IOPL 3", iopl3);
	test_sysexit();
	test_privilege_flags();
	test_io_bitmap();
	test_control_registers();
	test_msrs();
}
