/* Exception entry, and exec(): see guest.h. */
#include "stubs.inc"

	.text
	.code64

	.balign 16
	.globl trap_stubs
trap_stubs:
	vector_stubs trap_common

	.balign 16
trap_common:
	push	%r15
	push	%r14
	push	%r13
	push	%r12
	push	%r11
	push	%r10
	push	%r9
	push	%r8
	push	%rdi
	push	%rsi
	push	%rbp
	push	$0			/* RSP: the frame has it */
	push	%rbx
	push	%rdx
	push	%rcx
	push	%rax
	cld
	mov	%rsp, %rdi
	mov	%rsp, %rbp
	and	$-16, %rsp
	call	trap
	/* 0: go on; otherwise the stack of exec() to return to */
	test	%rax, %rax
	jnz	exec_return
	mov	%rbp, %rsp
	pop	%rax
	pop	%rcx
	pop	%rdx
	pop	%rbx
	lea	8(%rsp), %rsp
	pop	%rbp
	pop	%rsi
	pop	%rdi
	pop	%r8
	pop	%r9
	pop	%r10
	pop	%r11
	pop	%r12
	pop	%r13
	pop	%r14
	pop	%r15
	add	$16, %rsp
	iretq

/* void exec(struct ctx *c) */
	.globl exec
exec:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	pushfq
	cli
	mov	%rsp, %rax
	and	$-0x20000, %rax		/* this_cpu() */
	mov	%rsp, (%rax)		/* exec_rsp */
	mov	%rdi, 8(%rax)		/* exec_ctx */
	movzwl	148(%rdi), %eax
	mov	%eax, %ds
	movzwl	150(%rdi), %eax
	mov	%eax, %es
	movzwl	152(%rdi), %eax
	mov	%eax, %fs
	movzwl	154(%rdi), %eax
	mov	%eax, %gs
	movzwl	146(%rdi), %eax
	push	%rax			/* SS */
	push	32(%rdi)		/* RSP */
	push	136(%rdi)		/* RFLAGS */
	movzwl	144(%rdi), %eax
	push	%rax			/* CS */
	push	128(%rdi)		/* RIP */
	mov	0(%rdi), %rax
	mov	8(%rdi), %rcx
	mov	16(%rdi), %rdx
	mov	24(%rdi), %rbx
	mov	40(%rdi), %rbp
	mov	48(%rdi), %rsi
	mov	64(%rdi), %r8
	mov	72(%rdi), %r9
	mov	80(%rdi), %r10
	mov	88(%rdi), %r11
	mov	96(%rdi), %r12
	mov	104(%rdi), %r13
	mov	112(%rdi), %r14
	mov	120(%rdi), %r15
	mov	56(%rdi), %rdi
	/* A fault of this IRETQ belongs to the context too: the tests of IRET use their own. */
	.globl exec_iret
exec_iret:
	iretq

	.globl exec_return
exec_return:
	mov	%rax, %rsp
	xor	%eax, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %fs
	mov	%eax, %gs
	mov	$0x10, %eax
	mov	%eax, %ss
	popfq
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret
	.section .note.GNU-stack, "", @progbits
