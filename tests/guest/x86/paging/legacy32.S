/* legacy_run(): see legacy.h. SDM vol. 3A 10.8.5.4 (leaving IA-32e mode), 10.8.5 (entering it). */
#include "stubs.inc"

	.text
	.code64
	.globl legacy_run
legacy_run:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	pushfq
	cli
	mov	%rsp, 64(%rdi)
	mov	%cr3, %rax
	mov	%rax, 72(%rdi)
	mov	%cr4, %rax
	mov	%rax, 80(%rdi)
	mov	$0xc0000080, %ecx
	rdmsr
	mov	%eax, 88(%rdi)
	mov	%edi, %ebx
	mov	%edi, legacy_current
	pushq	$0x38
	pushq	$1f
	lretq
	.code32
1:	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	%esp, 60(%ebx)
	mov	%cr0, %eax
	and	$0x7fffffff, %eax
	mov	%eax, %cr0
	mov	$0xc0000080, %ecx
	rdmsr
	and	$~0x900, %eax		/* LME, NXE */
	cmpl	$0, 12(%ebx)
	je	1f
	or	$0x800, %eax
1:	wrmsr
	mov	8(%ebx), %eax
	mov	%eax, %cr4
	mov	4(%ebx), %eax
	mov	%eax, %cr3
	mov	0(%ebx), %eax
	mov	%eax, %cr0
	jmp	1f
1:	lidtl	legacy_idt_ptr
	mov	$0x60, %eax
	ltr	%ax
	mov	20(%ebx), %eax
	mov	%eax, %ds
	mov	%eax, %es
	testl	$3, 16(%ebx)
	jz	1f
	pushl	20(%ebx)
	pushl	28(%ebx)
1:	pushl	32(%ebx)
	pushl	16(%ebx)
	pushl	24(%ebx)
	mov	36(%ebx), %eax
	mov	40(%ebx), %esi
	mov	44(%ebx), %ebx
	iret

	.balign 16
	.globl legacy_stubs
legacy_stubs:
	vector_stubs legacy_common

legacy_common:
	cld
	push	%eax
	push	%ebx
	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	legacy_current, %ebx
	mov	4(%esp), %eax
	mov	%eax, 36(%ebx)
	mov	%esi, 40(%ebx)
	mov	8(%esp), %eax
	mov	%eax, 48(%ebx)
	mov	12(%esp), %eax
	mov	%eax, 52(%ebx)
	mov	16(%esp), %eax
	mov	%eax, 24(%ebx)
	mov	24(%esp), %eax
	mov	%eax, 32(%ebx)
	mov	%cr2, %eax
	mov	%eax, 56(%ebx)
	mov	60(%ebx), %esp
	mov	$0x10, %eax
	mov	%eax, %ss

	mov	%cr0, %eax
	and	$0x7fffffff, %eax
	mov	%eax, %cr0
	mov	80(%ebx), %eax
	mov	%eax, %cr4
	mov	72(%ebx), %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx
	rdmsr
	mov	88(%ebx), %eax
	and	$~0x400, %eax		/* LMA is read-only */
	wrmsr
	mov	$0x80010033, %eax
	mov	%eax, %cr0
	ljmp	$0x08, $1f
	.code64
1:	mov	%ebx, %eax
	mov	64(%rax), %rsp
	xor	%ecx, %ecx
	mov	%ecx, %ds
	mov	%ecx, %es
	mov	%ecx, %fs
	mov	%ecx, %gs
	popfq
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret

	.data
	.globl legacy_idt_ptr
	.balign 8
legacy_current:
	.long	0
legacy_idt_ptr:
	.word	256 * 8 - 1
	.long	legacy_idt
	.bss
	.balign 16
	.globl	legacy_idt
legacy_idt:
	.skip	256 * 8
	.section .note.GNU-stack, "", @progbits
