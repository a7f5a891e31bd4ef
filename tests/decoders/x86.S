/* x86: from multiboot or a boot sector (32 bits, no paging, flat segments) to long mode with all below
 * 4 GiB mapped as it is, with 5 levels if the processor has them; the ways into a guest and back. */
	.section .start, "ax"
	.code32
	.globl _start
_start:
	jmp	1f
	.balign 4
	.long 0x1badb002, 0, -0x1badb002	/* multiboot 1 */
1:	cli
	cld
	mov	$stack_top, %esp
	mov	$pd, %edi
	mov	$0x83, %eax			/* P W PS */
	mov	$2048, %ecx
2:	mov	%eax, (%edi)
	movl	$0, 4(%edi)
	add	$8, %edi
	add	$0x200000, %eax
	loop	2b
	mov	$pdpt, %edi
	mov	$pd + 3, %eax
	mov	$4, %ecx
3:	mov	%eax, (%edi)
	movl	$0, 4(%edi)
	add	$8, %edi
	add	$0x1000, %eax
	loop	3b
	movl	$pdpt + 3, pml4
	movl	$pml4 + 3, pml5
	mov	$0x20, %esi			/* CR4.PAE */
	mov	$pml4, %ebp
	xor	%eax, %eax
	cpuid
	cmp	$7, %eax
	jb	4f
	mov	$7, %eax
	xor	%ecx, %ecx
	cpuid
	bt	$16, %ecx			/* LA57 */
	jnc	4f
	or	$0x1000, %esi
	mov	$pml5, %ebp
4:	mov	%esi, %cr4
	mov	%ebp, %cr3
	mov	$0xc0000080, %ecx
	rdmsr
	or	$0x900, %eax			/* EFER.LME, NXE */
	wrmsr
	mov	$0x80010033, %eax		/* PG WP NE ET MP PE */
	mov	%eax, %cr0
	lgdt	gdt_ptr
	ljmp	$0x08, $5f
	.code64
5:	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	xor	%eax, %eax
	mov	%eax, %fs
	mov	%eax, %gs
	lidt	idt_ptr
	mov	$stack_top, %rsp
	call	bare_main

	.macro save
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	.endm
	.macro restore
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	.endm

	.text
	/* void svm_enter(uint64_t vmcb, uint64_t rbx) */
	.globl svm_enter
svm_enter:
	save
	mov	%rdi, %rax
	mov	%rsi, %rbx
	vmrun	%rax
	restore
	ret

	/* uint64_t vmx_enter(uint64_t launched, uint64_t rbx, uint64_t rax): the guest's rax; with
	 * *vmx_failed set there was none. */
	.globl vmx_enter
vmx_enter:
	save
	mov	$0x6c14, %eax			/* host RSP */
	vmwrite	%rsp, %rax
	mov	$0x6c16, %eax			/* host RIP */
	mov	$1f, %ecx
	vmwrite	%rcx, %rax
	mov	%rsi, %rbx
	mov	%rdx, %rax
	test	%rdi, %rdi
	jnz	2f
	vmlaunch
	jmp	3f
2:	vmresume
3:	movl	$1, vmx_failed
1:	restore
	ret

	.data
	.balign 8
gdt:
	.quad	0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00008b0000000067
gdt_ptr:
	.word	gdt_ptr - gdt - 1
	.long	gdt, 0
idt_ptr:
	.word	0				/* any exception ends the machine */
	.quad	0
	.globl	vmx_failed
vmx_failed:
	.long	0

	.bss
	.balign 4096
pml5:	.skip	0x1000
pml4:	.skip	0x1000
pdpt:	.skip	0x1000
pd:	.skip	0x4000
	.skip	0x10000
stack_top:
	.section .note.GNU-stack, "", @progbits
