/* Description: A second-stage fault may come at any access: of the page-table walker, of an
 * exception's delivery (IDT, GDT, TSS, stack), of IRET, of a fetch. The run must go on as if
 * nothing had happened; so it must when the state is moved to another engine in between. For each k
 * the guest runs from the start and the k-th question to the second stage is answered with FAULT;
 * the whole memory must end the same. */
#include "test_uc_util.h"

#define FLUSH "	out %al, $0x11\n"

GUEST(life, FLUSH
      "	int $0x50\n" FLUSH "	ud2\n" FLUSH "	incq 0x90800\n" /* not mapped: #PF maps it */
      FLUSH "	out %al, $0x10\n sti\n nop\n nop\n cli\n"	/* an interrupt */
      FLUSH "	xor %ecx, %ecx\n div %ecx\n" FLUSH
      "	mov $0xdead, %ecx\n rdmsr\n" /* #GP with an error code */
      FLUSH "	int3\n" FLUSH
      "	mov $0x80100, %esi\n mov $0x8fff8, %edi\n mov $4, %ecx\n rep movsq\n" /* into the next page
									       */
      FLUSH "	mov 0x8fffb, %rax\n mov %rax, 0x80ffd\n"		      /* two pages each */
      FLUSH "	lock incq 0x80108\n" FLUSH "	fxsave64 0x80ff0\n" /* two pages, aligned to 16 */
      "	mov $0xc0000081, %ecx\n xor %eax, %eax\n mov $0x00100008, %edx\n wrmsr\n" /* STAR: user
										     0x18/0x20 */
      "	mov $0xc0000082, %ecx\n mov $0x10600, %eax\n xor %edx, %edx\n wrmsr\n"
      "	mov $0xc0000084, %ecx\n mov $0x200, %eax\n xor %edx, %edx\n wrmsr\n" FLUSH
      "	pushq $0x1b\n pushq $0x98000\n pushq $0x202\n pushq $0x23\n pushq $0x10400\n" FLUSH
      "	iretq\n"
      ".org 0x400\n"			  /* ring 3 */
      "	mov $0x11, %edx\n out %al, %dx\n" /* #GP: no I/O permission */
      "	push %rax\n int $0x51\n pop %rax\n"
      "	syscall\n"
      "	mov %ecx, 0x80200\n"
      "	incq 0x91000\n" /* #PF from ring 3 */
      "	int $0x52\n"
      "1:	jmp 1b\n"
      ".org 0x600\n" /* SYSCALL */
      "	push %r11\n" FLUSH "	incq 0x80210\n pop %r11\n sysretq\n"
      ".org 0x800\n" /* 0x50 */
      "	incq 0x80000\n" FLUSH "	iretq\n"
      ".org 0x840\n" /* #UD */
      "	addq $2, (%rsp)\n" FLUSH "	iretq\n"
      ".org 0x880\n" /* IRQ */
      "	incq 0x80008\n" FLUSH "	iretq\n"
      ".org 0x8c0\n" /* #DE */
      "	incq 0x80010\n addq $2, (%rsp)\n" FLUSH "	iretq\n"
      ".org 0x900\n" /* #GP: RDMSR is two bytes, OUT DX one */
      "	push %rax\n mov 16(%rsp), %rax\n cmpb $0xee, (%rax)\n je 2f\n incq 16(%rsp)\n2: incq "
      "16(%rsp)\n"
      "	pop %rax\n add $8, %rsp\n" FLUSH "	iretq\n"
      ".org 0x980\n" /* #PF */
      "	push %rax\n mov %cr2, %rax\n push %rbx\n mov %rax, %rbx\n shr $12, %ebx\n and $~0xfff, "
      "%rax\n or $7, %eax\n"
      "	mov %rax, 0x7000(,%rbx,8)\n mov %cr2, %rax\n invlpg (%rax)\n mov 16(%rsp), %rax\n add "
      "%rax, 0x80018\n"
      "	pop %rbx\n pop %rax\n add $8, %rsp\n" FLUSH "	iretq\n"
      ".org 0xa00\n" /* INT3 */
      "	incq 0x80020\n" FLUSH "	iretq\n"
      ".org 0xa40\n" /* 0x51 */
      "	incq 0x80028\n" FLUSH "	iretq\n"
      ".org 0xa80\n" /* 0x52 */
      "	out %eax, $0xf4\n3: jmp 3b\n")

static uint64_t asked, fault_at;
static uint64_t pending, in_walk;

static int s2(struct vm *vm, uint64_t a, uint32_t access, uint32_t walk, uc_vcpu_xlat *x)
{
	(void)vm, (void)a, (void)access, (void)walk, (void)x;
	return ++asked == fault_at ? UC_VCPU_XLAT_FAULT : -1;
}

static void pio_out(struct vm *vm, uint16_t port, uint32_t value)
{
	(void)value;
	if (port == 0x10)
		uc_vcpu_set_irq(vm->uc, true);
	if (port == 0x11)
		uc_vcpu_flush_tlb(vm->uc);
}

static void setup(void)
{
	guest_memory(life_code, life_end);
	idt_gate(0x50, CODE + 0x800, 0, 0);
	idt_gate(6, CODE + 0x840, 0, 1);
	idt_gate(0x40, CODE + 0x880, 0, 0);
	idt_gate(0, CODE + 0x8c0, 0, 0);
	idt_gate(13, CODE + 0x900, 0, 0);
	idt_gate(14, CODE + 0x980, 0, 0);
	idt_gate(3, CODE + 0xa00, 0, 0);
	idt_gate(0x51, CODE + 0xa40, 3, 0);
	idt_gate(0x52, CODE + 0xa80, 3, 0);
	gpa_q(PT + 0x90 * 8, 0);
	gpa_q(PT + 0x91 * 8, 0);
	gpa_q(0x80100, 0x1122334455667788);
}

/* Returns the exits FAULT it took. With two engines the state moves at each. */
static int run(struct vm *vm[2], bool move)
{
	uc_x86_vcpu_state s = guest_state(CODE);
	uc_vcpu_run_info info;
	int faults = 0, cur = 0;

	asked = 0;
	s.gpr[2] = 0x11;
	for (int i = 0; i < 2; i++) {
		vm[i]->done = false;
		uc_vcpu_flush_tlb(vm[i]->uc);
		uc_vcpu_invalidate_code(vm[i]->uc, 0, RAM_SIZE);
	}
	vm_set(vm[0], &s);
	for (int i = 0; i < 10000; i++) {
		CHECK(!uc_vcpu_run(vm[cur]->uc, &info), "run");
		if (info.reason == UC_VCPU_EXIT_KICK && vm[cur]->done)
			return faults;
		CHECK(info.reason == UC_VCPU_EXIT_FAULT, "k %lu: %s at %lx %s",
		      (unsigned long)fault_at, reason_name(info.reason), (unsigned long)info.rip,
		      info.error ? info.error : "");
		CHECK(++faults == 1, "one fault was injected");
		vm_get(vm[cur], &s);
		pending += s.pending_valid;
		in_walk += info.fault.walk;
		if (move) {
			cur ^= 1;
			vm_set(vm[cur], &s);
			uc_vcpu_flush_tlb(vm[cur]->uc);
		}
	}
	CHECK(0, "k %lu: no end", (unsigned long)fault_at);
}

int main(void)
{
	struct vm *vm[2];
	uint8_t *want = malloc(RAM_SIZE);
	uint64_t n, runs = 0;

	setup();
	vm[0] = vm_new(4 << 20, false);
	vm[1] = vm_new(4 << 20, false);
	for (int i = 0; i < 2; i++) {
		vm[i]->s2 = s2;
		vm[i]->pio_out = pio_out;
	}
	fault_at = 0;
	run(vm, false);
	n = asked;
	CHECK(gpa_ldq(0x80000) == 1 && gpa_ldq(0x80008) == 1 && gpa_ldq(0x80010) == 1 &&
		      gpa_ldq(0x80020) == 1 && gpa_ldq(0x80028) == 1 && gpa_ldq(0x80210) == 1 &&
		      gpa_ldq(0x90800) == 1 && gpa_ldq(0x91000) == 1 && gpa_ldq(0x80018) == 0 + 4,
	      "the undisturbed run is wrong: %lx %lx %lx %lx %lx %lx %lx %lx %lx",
	      (long)gpa_ldq(0x80000), (long)gpa_ldq(0x80008), (long)gpa_ldq(0x80010),
	      (long)gpa_ldq(0x80020), (long)gpa_ldq(0x80028), (long)gpa_ldq(0x80210),
	      (long)gpa_ldq(0x90800), (long)gpa_ldq(0x91000), (long)gpa_ldq(0x80018));
	CHECK(n > 150, "only %lu questions: the flushes do nothing", (unsigned long)n);
	memcpy(want, ram, RAM_SIZE);
	for (int move = 0; move < 2; move++)
		for (fault_at = 1; fault_at <= n; fault_at++) {
			setup();
			CHECK(run(vm, move) == 1, "k %lu was not reached", (unsigned long)fault_at);
			if (memcmp(ram, want, RAM_SIZE)) {
				for (uint32_t i = 0; i < RAM_SIZE; i += 8)
					if (memcmp(gpa(i), want + ((uint8_t *)gpa(i) - ram), 8))
						printf("%x: %lx, not %lx\n", i, (long)gpa_ldq(i),
						       *(long *)(want + ((uint8_t *)gpa(i) - ram)));
				CHECK(0, "k %lu move %d: another end", (unsigned long)fault_at,
				      move);
			}
			runs++;
		}
	printf("%lu questions, %lu runs with a fault each: %lu in the walker, %lu with an event "
	       "half delivered\n",
	       (unsigned long)n, (unsigned long)runs, (unsigned long)in_walk,
	       (unsigned long)pending);
	CHECK(pending > 20 && in_walk > 20, "the faults come at dull moments");
	vm_free(vm[0]);
	vm_free(vm[1]);
	free(want);
	return 0;
}
