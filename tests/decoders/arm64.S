/* arm64 at EL2: start, vectors, and the way into EL1 and back. */
	.section .start, "ax"
	.globl _start
_start:
	adr	x0, stack_top
	mov	sp, x0
	adr	x0, vectors
	msr	vbar_el2, x0
	isb
	b	bare_main

	/* uint64_t guest_enter(uint64_t pc, uint64_t x1, uint64_t x0): runs EL1 until it traps here;
	 * returns its x0. */
	.text
	.globl guest_enter
guest_enter:
	stp	x29, x30, [sp, #-96]!
	stp	x19, x20, [sp, #16]
	stp	x21, x22, [sp, #32]
	stp	x23, x24, [sp, #48]
	stp	x25, x26, [sp, #64]
	stp	x27, x28, [sp, #80]
	msr	elr_el2, x0
	mov	x3, #0x3c5		/* EL1h, DAIF masked */
	msr	spsr_el2, x3
	mov	x0, x2
	eret
guest_left:
	ldp	x19, x20, [sp, #16]
	ldp	x21, x22, [sp, #32]
	ldp	x23, x24, [sp, #48]
	ldp	x25, x26, [sp, #64]
	ldp	x27, x28, [sp, #80]
	ldp	x29, x30, [sp], #96
	ret

	/* What EL1 runs: a read and a write of what x1 points to. */
	.globl stub_read, stub_write
stub_read:
	ldr	w0, [x1]
	hvc	#0
stub_write:
	str	w0, [x1]
	hvc	#0

	.balign 2048
vectors:
	.rept 8
	b	trapped			/* from EL2 itself */
	.balign 128
	.endr
	b	guest_left		/* from EL1: synchronous */
	.balign 128
	.rept 7
	b	trapped
	.balign 128
	.endr

	.bss
	.balign 16
	.skip	0x10000
stack_top:
