/*
 * From multiboot (32-bit protected mode, no paging) or a SIPI (real mode) into long mode with the map that
 * guest.h draws. The image is a 64-bit one in a 32-bit ELF container, because that is what multiboot 1
 * loaders take.
 */
#define MB_MAGIC 0x1badb002
#define MB_FLAGS 3

	.section .multiboot, "a"
	.balign 4
	.long MB_MAGIC, MB_FLAGS, -(MB_MAGIC + MB_FLAGS)

	.text
	.code32
	.globl _start
_start:
	cli
	cld
	mov	$boot_stack_top, %esp
	mov	%ebx, multiboot_info
	lgdtl	boot_gdt_ptr
	ljmp	$0x38, $1f
1:	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss

	/* PML4[0] -> PDPT; PDPT[0, 1, 3] -> page directories of 2 MiB pages. */
	movl	$boot_pdpt + 7, boot_pml4
	movl	$boot_pd + 0x0007, boot_pdpt
	movl	$boot_pd + 0x1007, boot_pdpt + 8
	movl	$boot_pd + 0x3007, boot_pdpt + 24
	mov	$0x83, %eax		/* P W PS */
	mov	$boot_pd, %edi
	mov	$512, %ecx
1:	mov	%eax, (%edi)		/* physical memory, supervisor */
	mov	%eax, %edx
	or	$4, %edx
	mov	%edx, 0x1000(%edi)	/* and user */
	mov	%eax, %edx
	add	$0xc0000010, %edx	/* devices: uncached */
	mov	%edx, 0x3000(%edi)
	add	$0x200000, %eax
	add	$8, %edi
	loop	1b

enter_long:
	mov	$0x20, %eax		/* CR4.PAE */
	mov	%eax, %cr4
	mov	$boot_pml4, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx	/* EFER.LME */
	rdmsr
	or	$0x100, %eax
	wrmsr
	mov	$0x80010033, %eax	/* PG WP NE ET MP PE; after INIT CD and NW are set */
	mov	%eax, %cr0
	ljmp	$0x08, $1f
	.code64
1:	xor	%eax, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %fs
	mov	%eax, %gs
	mov	$0x10, %eax
	mov	%eax, %ss
	/* Every processor takes the next area; the first one here is the boot processor. */
	mov	$1, %edi
	lock xadd %edi, cpu_next
	mov	%edi, %eax
	inc	%eax
	shl	$17, %eax		/* CPU_AREA */
	lea	cpu_areas(%rax), %rsp
	sub	$0x10000, %rsp		/* STACK_MAIN */
	test	%edi, %edi
	jnz	1f
	mov	multiboot_info, %esi
	call	start_boot
	ud2
1:	call	start_ap
	ud2

	.code32
ap_start32:
	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	jmp	enter_long

	/* Copied to 0x8000; SIPI vector 8 starts at 0x800:0 (SDM vol. 3A 9.4.4). */
	.code16
	.globl ap_trampoline, ap_trampoline_end
ap_trampoline:
	cli
	mov	%cs, %ax
	mov	%ax, %ds
	lgdtl	ap_gdt_ptr - ap_trampoline
	mov	$0x33, %eax
	mov	%eax, %cr0
	ljmpl	$0x38, $ap_start32
ap_gdt_ptr:
	.word	boot_gdt_end - boot_gdt - 1
	.long	boot_gdt
ap_trampoline_end:

	.data
	.balign 8
boot_gdt:
	.quad	0
	.quad	0x00af9b000000ffff	/* 08 64-bit code */
	.quad	0x00cf93000000ffff	/* 10 data */
	.quad	0, 0, 0, 0
	.quad	0x00cf9b000000ffff	/* 38 32-bit code */
boot_gdt_end:
boot_gdt_ptr:
	.word	boot_gdt_end - boot_gdt - 1
	.long	boot_gdt
multiboot_info:
	.long	0
	.globl	cpu_next
cpu_next:
	.long	0

	.bss
	.balign 4096
	.globl boot_pml4, boot_pdpt, boot_pd
boot_pml4:
	.skip	0x1000
boot_pdpt:
	.skip	0x1000
boot_pd:
	.skip	0x4000
	.skip	0x1000
boot_stack_top:
	.balign	0x20000
	.globl	cpu_areas
cpu_areas:
	.skip	0x20000 * 8
	.section .note.GNU-stack, "", @progbits
