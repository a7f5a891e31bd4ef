/* Description: The state is complete: a guest that is moved between two engines at any block
 * boundary, thousands of times, ends like one that ran undisturbed. Also: what cannot be is
 * refused, and get(set(x)) is x. */
#include <signal.h>

#include "test_uc_util.h"

GUEST(mix, "	fninit\n fldpi\n fld1\n xorps %xmm5, %xmm5\n mov $0x3fb9999a, %eax\n movd %eax, "
	   "%xmm1\n cvtss2sd %xmm1, %xmm1\n"
	   "	movapd %xmm1, %xmm15\n"
	   "1:	fadd %st(0), %st(1)\n fld %st(1)\n fsqrt\n fstpl 0x80100\n fxch\n"
	   "	addsd %xmm1, %xmm5\n mulsd %xmm15, %xmm1\n addsd %xmm15, %xmm1\n movsd %xmm5, "
	   "0x80108\n jmp 2f\n"
	   "2:	mov 0x80100, %rax\n adc %rax, %rbx\n rcl $3, %rbx\n pushfq\n jmp 3f\n"
	   "3:	popfq\n adc $0, %r12\n sbb %r13, %r13\n std\n mov $0x80207, %edi\n mov %rbx, "
	   "%rax\n mov $2, %ecx\n"
	   "	rep stosb\n jmp 4f\n"
	   "4:	cld\n int $0x50\n test $15, %r10b\n jnz 5f\n ud2\n"
	   "5:	test $31, %r10b\n jnz 6f\n out %al, $0x10\n sti\n nop\n nop\n cli\n"
	   "6:	test $63, %r10b\n jnz 7f\n pushq $0x1b\n pushq $0x98000\n pushq $0x202\n pushq "
	   "$0x23\n lea 9f(%rip), %rax\n"
	   "	push %rax\n iretq\n"
	   "9:	int $0x51\n" /* ring 3 */
	   "7:	mov %gs:0x80000, %rax\n add %rax, %r14\n wrgsbase %r10\n mov $0, %eax\n wrgsbase "
	   "%rax\n"
	   "	xor %r10, %r15\n rol $5, %r15\n dec %r10\n jnz 1b\n"
	   "	fstpl 0x80110\n fstpl 0x80118\n movapd %xmm5, 0x80120\n"
	   "	mov %rbx, 0x80140\n mov %r12, 0x80148\n mov %r13, 0x80150\n mov %r14, 0x80158\n "
	   "mov %r15, 0x80160\n"
	   "	mov $0xf4, %edx\n out %eax, %dx\n8: jmp 8b\n"
	   ".org 0x800\n add %rsp, 0x80000\n stc\n jmp 1f\n1: iretq\n"
	   ".org 0x840\n addq $2, (%rsp)\n jmp 1f\n1: incq 0x80008\n iretq\n"
	   ".org 0x880\n incq 0x80010\n jmp 1f\n1: iretq\n"
	   ".org 0x8c0\n add $40, %rsp\n mov $0xa0000, %esp\n jmp 7b\n")

static void pio_out(struct vm *vm, uint16_t port, uint32_t value)
{
	(void)value;
	if (port == 0x10)
		uc_vcpu_set_irq(vm->uc, true);
}

static struct vm *vm[2];
static volatile int cur;
static timer_t timer;

/* In the thread that runs the guest: it needs no second processor. */
static void on_timer(int sig)
{
	static uint64_t r = 88172645463325252ull;
	struct itimerspec t = {0};

	(void)sig;
	uc_vcpu_kick(vm[cur]->uc);
	r ^= r << 13, r ^= r >> 7, r ^= r << 17;
	t.it_value.tv_nsec = (long)(1000 + r % 40000);
	timer_settime(timer, 0, &t, NULL);
}

static void setup(void)
{
	guest_memory(mix_code, mix_end);
	idt_gate(0x50, CODE + 0x800, 3, 0);
	idt_gate(6, CODE + 0x840, 0, 1);
	idt_gate(0x40, CODE + 0x880, 0, 0);
	idt_gate(0x51, CODE + 0x8c0, 3, 0);
	for (int i = 0; i < 2; i++) {
		vm[i]->done = false;
		uc_vcpu_invalidate_code(vm[i]->uc, 0, RAM_SIZE);
	}
}

static uint64_t run(uint64_t n, bool move)
{
	uc_x86_vcpu_state s = guest_state(CODE), back;
	uc_vcpu_run_info info;
	uint64_t moves = 0;

	s.cr4 |= 1 << 16; /* FSGSBASE */
	s.gpr[10] = n;
	cur = 0;
	vm_set(vm[0], &s);
	for (;;) {
		CHECK(!uc_vcpu_run(vm[cur]->uc, &info), "run");
		CHECK(info.reason == UC_VCPU_EXIT_KICK, "%s at %lx", reason_name(info.reason),
		      (long)info.rip);
		if (vm[cur]->done)
			return moves;
		if (!move)
			continue;
		vm_get(vm[cur], &s);
		vm_set(vm[!cur], &s);
		vm_get(vm[!cur], &back);
		CHECK(!memcmp(&s, &back, sizeof(s)), "get(set(x)) is not x");
		cur = !cur;
		moves++;
	}
}

static void refused(void)
{
	uc_x86_vcpu_state ok = guest_state(CODE), s, after;
	int n = 0;

	vm_set(vm[0], &ok);
	vm_get(vm[0], &ok);
#define BAD(change)                                                                                \
	s = ok;                                                                                    \
	change;                                                                                    \
	CHECK(uc_x86_vcpu_set_state(vm[0]->uc, &s) == UC_ERR_ARG, "accepted: " #change);           \
	n++;
	BAD(s.cr0 &= ~1ull)	 /* PG without PE */
	BAD(s.efer &= ~0x400ull) /* LME and PG, but no LMA */
	BAD(s.cr4 &= ~0x20ull)	 /* LMA without PAE */
	BAD(s.cr0 |= 1ull << 40)
	BAD(s.cr4 |= 1ull << 40)
	BAD(s.efer |= 1 << 12)	 /* SVME: not here */
	BAD(s.rflags |= 1 << 17) /* VM in long mode */
	BAD(s.dr[7] |= 1ull << 32)
	BAD(s.lstar = 1ull << 62)
	BAD(s.seg[4].base = 1ull << 62)
	BAD(s.tr.attr = 0x82)	     /* an LDT in TR */
	BAD(s.xcr0 = 7)		     /* AVX */
	BAD(s.seg[1].attr |= 3 << 9) /* L and D */
	BAD((s.pending_valid = 1, s.pending_vector = 256))
	BAD((s.pending_valid = 1, s.pending_type = 1))
	BAD((s.pending_valid = 1, s.pending_vector = 32, s.pending_type = 3))
	BAD(s.fxsave[26] = 1) /* MXCSR bit 16 */
	BAD(s.smm = 1)
	vm_get(vm[0], &after);
	CHECK(!memcmp(&ok, &after, sizeof(ok)), "a refused state changed something");
	printf("%d impossible states refused\n", n);
}

int main(void)
{
	uint8_t *want = malloc(RAM_SIZE);
	uint64_t n = 200000, moves;
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
	struct sigaction sa = {.sa_handler = on_timer, .sa_flags = SA_RESTART};

	guest_memory(mix_code, mix_end);
	for (int i = 0; i < 2; i++) {
		vm[i] = vm_new(4 << 20, false);
		vm[i]->pio_out = pio_out;
	}
	refused();
	setup();
	run(n, false);
	CHECK(gpa_ldq(0x80008) == n / 16 && gpa_ldq(0x80010) == n / 32,
	      "the undisturbed run is wrong: %lu %lu", (unsigned long)gpa_ldq(0x80008),
	      (unsigned long)gpa_ldq(0x80010));
	memcpy(want, ram, RAM_SIZE);
	setup();
	sigaction(SIGALRM, &sa, NULL);
	CHECK(!timer_create(CLOCK_MONOTONIC, &ev, &timer), "timer");
	raise(SIGALRM);
	moves = run(n, true);
	signal(SIGALRM, SIG_IGN);
	timer_delete(timer);
	for (uint32_t i = 0; i < RAM_SIZE; i += 8)
		CHECK(!memcmp(gpa(i), want + ((uint8_t *)gpa(i) - ram), 8),
		      "%lu moves: %x is %lx, not %lx", (unsigned long)moves, i, (long)gpa_ldq(i),
		      *(long *)(want + ((uint8_t *)gpa(i) - ram)));
	printf("%lu turns, moved %lu times\n", (unsigned long)n, (unsigned long)moves);
	CHECK(moves > 200, "hardly moved");
	vm_free(vm[0]);
	vm_free(vm[1]);
	free(want);
	return 0;
}
