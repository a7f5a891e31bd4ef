/* A firmware of 64 KiB below 1 MiB, for a machine that loads no ELF file: from the reset vector to flat
 * 32-bit mode, then to what lies at 1 MiB. */
	.code16
	.globl _start
_start:
	cli
	mov	%cs, %ax
	mov	%ax, %ds
	in	$0x92, %al
	or	$2, %al			/* A20 */
	out	%al, $0x92
	lgdtl	gdt_ptr - _start
	mov	%cr0, %eax
	or	$1, %al
	mov	%eax, %cr0
	ljmpl	$0x08, $0xf0000 + 1f - _start
	.code32
1:	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	$0x100000, %eax
	jmp	*%eax
	.balign 8
gdt:	.quad	0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_ptr:
	.word	gdt_ptr - gdt - 1
	.long	0xf0000 + gdt - _start
	.org	0xfff0
	.code16
	ljmpw	$0xf000, $0
	.org	0x10000
