/* 32-bit programs. */
#include "segments.h"

/* ---- 32-bit programs ---------------------------------------------------------------------------
 */

SNIPPET32(fib32, "mov $15, %eax; call 1f; jmp 9f\n"
		 "1: push %ebx; push %esi; mov %eax, %ebx; cmp $2, %eax; jb 2f\n"
		 "lea -1(%ebx), %eax; call 1b; mov %eax, %esi; lea -2(%ebx), %eax; call 1b\n"
		 "add %esi, %eax\n"
		 "2: pop %esi; pop %ebx; ret\n"
		 "9:");
SNIPPET32(bcd32, "mov $0x38, %al; add $0x45, %al; daa; movzbl %al, %ebx\n"	     /* 83 */
		 "mov $0x83, %al; sub $0x45, %al; das; mov %al, %bh\n"		     /* 38 */
		 "mov $0x0009, %ax; add $8, %al; aaa; movzwl %ax, %ecx\n"	     /* 0107 */
		 "mov $0x0205, %ax; sub $6, %al; aas; shl $16, %ecx; mov %ax, %cx\n" /* 0109 */
		 "mov $97, %al; aam; movzwl %ax, %edx\n"			     /* 0907 */
		 "mov $0x0907, %ax; aad; shl $16, %edx; mov %ax, %dx");		     /* 97 */
SNIPPET32(stack32, "mov $1, %eax; mov $2, %ecx; mov $3, %edx; mov $4, %ebx\n"
		   "mov $6, %esi; mov $7, %edi; mov %esp, %ebp; pusha\n"
		   "xor %eax, %eax; xor %ebx, %ebx; xor %edi, %edi; addl $10, 24(%esp); popa\n"
		   "push %es; pop %ds; pushw $0x1234; pop %ax; enter $16, $1; leave\n"
		   "inc %esi; dec %edi; sub %esp, %ebp");
SNIPPET32(les32, "les (%esi), %ebx; lds 8(%esi), %edi; mov %es, %eax; mov %ds, %ecx");
SNIPPET32(addr16, "mov $0x12340010, %esi; xor %ebx, %ebx; addr16 lea 0x7ff8(%si), %edi\n"
		  "mov $0xffff, %ecx; 1: inc %edi; addr16 loop 1b; mov %ecx, %ebx");

void test_programs(void)
{
	struct ctx c;

	test_begin("segments: 32-bit user programs");
	c = ctx_user32(fib32);
	exec(&c);
	test_context("recursion");
	expect_done(&c);
	expect("fib(15)", 610, (u32)c.gpr[RAX]);
	expect("ESP", ctx_user32(NULL).gpr[RSP], c.gpr[RSP]);
	c = ctx_user32(bcd32);
	exec(&c);
	test_context("decimal instructions");
	expect_done(&c);
	expect("DAA, DAS", 0x3883, (u32)c.gpr[RBX]);
	expect("AAA, AAS", 0x01070109, (u32)c.gpr[RCX]);
	expect("AAM, AAD", 0x09070061, (u32)c.gpr[RDX]);
	c = ctx_user32(stack32);
	exec(&c);
	test_context("stack instructions");
	expect_done(&c);
	expect("EAX: 1, low half popped", 0x1234, (u32)c.gpr[RAX]);
	expect("ECX: 12", 12, (u32)c.gpr[RCX]);
	expect("EBX", 4, (u32)c.gpr[RBX]);
	expect("ESI", 7, (u32)c.gpr[RSI]);
	expect("EDI", 6, (u32)c.gpr[RDI]);
	expect("stack level", 0, (u32)c.gpr[RBP]);
	*(u32 *)insn_data = 0x11223344;
	*(u16 *)(insn_data + 4) = SEL_UDATA;
	*(u32 *)(insn_data + 8) = 0x55667788;
	*(u16 *)(insn_data + 12) = SEL_UDATA;
	c = ctx_user32(les32);
	c.gpr[RSI] = (u64)user_alias(insn_data);
	c.es = c.fs = 0;
	exec(&c);
	test_context("LES, LDS");
	expect_done(&c);
	expect("EBX", 0x11223344, (u32)c.gpr[RBX]);
	expect("EDI", 0x55667788, (u32)c.gpr[RDI]);
	expect("ES", SEL_UDATA, (u32)c.gpr[RAX] & 0xffff);
	c = ctx_user32(addr16);
	exec(&c);
	test_context("16-bit addresses");
	expect_done(&c);
	expect("LEA wraps at 64 KiB; LOOP counts CX", 0x8008 + 0xffff, (u32)c.gpr[RDI]);
	expect("ECX", 0, (u32)c.gpr[RBX]);
	test_context(NULL);
	test_end();
}
