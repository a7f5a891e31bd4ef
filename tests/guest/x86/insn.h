/* Tables of single instructions and what each must raise: insn.c. */
#ifndef GUEST_INSN_H
#define GUEST_INSN_H

#include "guest.h"

enum insn_mode {
	K64, /* CPL 0, 64-bit */
	U64, /* CPL 3 */
	K32, /* CPL 0, compatibility mode */
	U32,
};

/*
 * The instruction is a string of bytes. RSI, RDI, RBX and RBP point at INSN_DATA zeroed bytes (RSI
 * and RBX at a multiple of 64), RAX, RCX and RDX are as given, R8 to R15 hold patterns. vector
 * VEC_DONE: it must simply execute.
 */
struct insn {
	const char *name;
	enum insn_mode mode;
	const char *bytes;
	u32 len;
	u32 vector;
	u64 error;
	u64 rax, rcx, rdx, rflags;
	u64 rsi; /* 0: the data */
};

#define INSN_DATA 1024
#define CODE(s)	  s, sizeof(s) - 1
#define E0	  0ull
#define EX	  NO_ERROR

extern u8 insn_data[];

/* Runs one; expects vector, error code, and the place: a fault at the instruction with all
 * registers as before, #BP and #OF behind it. */
struct ctx insn_run(const struct insn *i);
void insn_table(const char *test, const struct insn *table, size_t n);
#define INSN_TABLE(test, table) insn_table(test, table, ARRAY_SIZE(table))

#endif
