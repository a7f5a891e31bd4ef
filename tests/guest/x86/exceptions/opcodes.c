/* #DE, #BP, #OF, #BR, #UD: what the instruction itself raises. */
#include "exceptions.h"

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

void test_opcodes(void)
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
	INSN_TABLE("exceptions: length of 15 bytes", lengths);
}
