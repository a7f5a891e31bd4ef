/* Exceptions: which, with which error code, at which instruction (SDM vol. 3A chapter 6, and the
 * exception lists of each instruction in vol. 2). One file for each subject. */
#ifndef GUEST_EXCEPTIONS_H
#define GUEST_EXCEPTIONS_H

#include "insn.h"

#define NONCANON 0x0000800000000000ull

/* A case that would take QEMU 7.2 down with it. */
#define DEADLY(name, table)                                                                        \
	do {                                                                                       \
		if (argument("qemu", 0))                                                           \
			test_skip(name, "it would kill QEMU");                                     \
		else                                                                               \
			INSN_TABLE(name, table);                                                   \
	} while (0)

void test_opcodes(void);
void test_fpu(void);
void test_delivery(void);
void test_noncanonical(void);
void test_privilege(void);
void test_registers(void);

#endif
