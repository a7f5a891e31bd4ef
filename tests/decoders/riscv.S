/* RISC-V in machine mode: start, the trap vector, and the way into VS mode and back; 32 and 64 bits. */
#if __riscv_xlen == 64
#define STORE sd
#define LOAD  ld
#define WORD  8
#else
#define STORE sw
#define LOAD  lw
#define WORD  4
#endif
	.section .start, "ax"
	.option norvc
	.globl _start
_start:
	la	sp, stack_top
	la	t0, trap
	csrw	mtvec, t0
	csrw	mscratch, zero
	tail	bare_main

	/* uintptr_t guest_enter(uintptr_t pc, uintptr_t a1, uintptr_t a0): runs VS mode until it traps;
	 * returns its a0. mstatus says where mret goes. */
	.text
	.globl guest_enter
guest_enter:
	addi	sp, sp, -16*WORD
	STORE	ra, 0*WORD(sp)
	STORE	s0, 1*WORD(sp)
	STORE	s1, 2*WORD(sp)
	STORE	s2, 3*WORD(sp)
	STORE	s3, 4*WORD(sp)
	STORE	s4, 5*WORD(sp)
	STORE	s5, 6*WORD(sp)
	STORE	s6, 7*WORD(sp)
	STORE	s7, 8*WORD(sp)
	STORE	s8, 9*WORD(sp)
	STORE	s9, 10*WORD(sp)
	STORE	s10, 11*WORD(sp)
	STORE	s11, 12*WORD(sp)
	csrw	mscratch, sp
	csrw	mepc, a0
	mv	a0, a2
	mret

	.balign 4
trap:
	csrrw	sp, mscratch, zero
	beqz	sp, 1f
	LOAD	ra, 0*WORD(sp)
	LOAD	s0, 1*WORD(sp)
	LOAD	s1, 2*WORD(sp)
	LOAD	s2, 3*WORD(sp)
	LOAD	s3, 4*WORD(sp)
	LOAD	s4, 5*WORD(sp)
	LOAD	s5, 6*WORD(sp)
	LOAD	s6, 7*WORD(sp)
	LOAD	s7, 8*WORD(sp)
	LOAD	s8, 9*WORD(sp)
	LOAD	s9, 10*WORD(sp)
	LOAD	s10, 11*WORD(sp)
	LOAD	s11, 12*WORD(sp)
	addi	sp, sp, 16*WORD
	ret
1:	la	sp, stack_top			/* machine mode's own */
	tail	trapped

	/* What VS mode runs: a read and a write of what a1 points to. */
	.balign 16
	.globl stub_read
stub_read:
	lw	a0, 0(a1)
	ecall
	sw	a0, 0(a1)
	ecall

	.bss
	.balign 16
	.skip	0x10000
stack_top:
