/* Description: What an x86 under vCPU mode must do by itself, with exact RIP in every callback:
 * MMIO, ports and their permission bitmap, MSRs, halting, triple fault, single step, rights of the
 * second stage. */
#include "test_uc_util.h"

GUEST(dev, "	mov $0xf0000000, %edx\n"
	   "	mov 4(%rdx), %eax\n mov %eax, 0x80010\n" /* 0x10005 */
	   "	mov 3(%rdx), %rax\n mov %rax, 0x80018\n" /* unaligned, as it is */
	   "	movw $0x1234, 9(%rdx)\n"
	   "	movb $0x56, 0xfff(%rdx)\n"
	   "	mov $0x3f8, %edx\n in %dx, %al\n mov %al, 0x80020\n insl\n"
	   "	mov $0x8000, %edi\n"
	   "	mov $0xf4, %edx\n out %eax, %dx\n1: jmp 1b\n")
GUEST(user, /* ring 3, a bitmap that allows port 0x70 and 0x72-0x73 */
      "	mov $0x70, %edx\n out %al, %dx\n"
      "	mov $0x72, %edx\n out %ax, %dx\n"
      "	mov $0x71, %edx\n out %al, %dx\n" /* #GP */
      "	mov $0x73, %edx\n out %ax, %dx\n" /* #GP: 0x74 is not allowed */
      "	cli\n hlt\n"			  /* #GP, #GP */
      "	int $0x52\n"
      ".org 0x900\n push %rax\n mov 16(%rsp), %rax\n cmpb $0x66, (%rax)\n jne 1f\n incq "
      "16(%rsp)\n1: incq 16(%rsp)\n"
      "	incq 0x80000\n mov (%rax), %al\n mov %al, 0x80100\n pop %rax\n add $8, %rsp\n iretq\n"
      ".org 0xa80\n mov $0xf4, %edx\n out %eax, %dx\n2: jmp 2b\n")
GUEST(steps, "	nop\n mov $5, %eax\n add %eax, %eax\n jmp 1f\n nop\n1: push %rax\n pop %rcx\n nop\n"
	     "	lea 1f(%rip), %rdx\n jmp *%rdx\n1: int $0x50\n hlt\n.org 0x800\n iretq\n")

struct seen {
	uint64_t rip[16], gpa[16], value[16];
	unsigned size[16];
	int n;
};
static struct seen seen;

static void note(struct vm *vm, uint64_t a, unsigned size, uint64_t value)
{
	uc_x86_vcpu_state s;

	if (seen.n == 16)
		return;
	vm_get(vm, &s);
	seen.rip[seen.n] = s.rip - CODE;
	seen.gpa[seen.n] = a;
	seen.size[seen.n] = size;
	seen.value[seen.n++] = value;
}

static uint64_t mmio_read(void *o, uint64_t a, unsigned size)
{
	note(o, a, size, 0);
	return 0x1122334455667788;
}

static void mmio_write(void *o, uint64_t a, unsigned size, uint64_t v)
{
	note(o, a, size, v);
}

static uint32_t pio_read(void *o, uint16_t port, unsigned size)
{
	note(o, port, size, 0);
	return 0xaabbccdd;
}

static void pio_write(void *o, uint16_t port, unsigned size, uint32_t v)
{
	note(o, port, size, v);
	op_pio_write(o, port, size, v);
}

static uc_vcpu_ops ops;

static void devices(void)
{
	static const uint64_t want[][4] = {
		{5, 0xf0000004, 4, 0},	     {0xf, 0xf0000003, 8, 0}, {0x1b, 0xf0000009, 2, 0x1234},
		{0x21, 0xf0000fff, 1, 0x56}, {0x2d, 0x3f8, 1, 0},     {0x35, 0x3f8, 4, 0},
		{0x40, 0xf4, 4, 0}};
	uc_vcpu_run_info info;

	guest_memory(dev_code, dev_end);
	struct vm *vm = vm_new_ops(&ops, 0, false);
	uc_x86_vcpu_state s = guest_state(CODE);
	s.gpr[7] = 0x80030;
	vm_set(vm, &s);
	seen.n = 0;
	CHECK(!uc_vcpu_run(vm->uc, &info) && vm->done, "%s at %lx", reason_name(info.reason),
	      (long)info.rip);
	CHECK(seen.n == 7, "%d accesses", seen.n);
	for (int i = 0; i < 7; i++)
		CHECK((i == 6 || seen.rip[i] == want[i][0]) && seen.gpa[i] == want[i][1] &&
			      seen.size[i] == want[i][2] && (i == 6 || seen.value[i] == want[i][3]),
		      "access %d: rip +%lx address %lx size %u value %lx", i, (long)seen.rip[i],
		      (long)seen.gpa[i], seen.size[i], (long)seen.value[i]);
	CHECK(gpa_ldq(0x80010) == 0x55667788 && gpa_ldq(0x80018) == 0x1122334455667788 &&
		      gpa_ldq(0x80020) == 0xdd && gpa_ldq(0x80030) == 0xaabbccdd,
	      "values");
	vm_free(vm);
}

static void permissions(void)
{
	uc_vcpu_run_info info;

	guest_memory(user_code, user_end);
	idt_gate(13, CODE + 0x900, 0, 0);
	idt_gate(0x52, CODE + 0xa80, 3, 0);
	gpa_q(GDT + 0x28, 0x00008900000000ffull | (uint64_t)TSS << 16);
	memset(gpa(TSS + 0x68), 0xff, 0x98);
	gpa_write(TSS + 0x66, "\x68", 2);
	*(uint8_t *)gpa(TSS + 0x68 + 0x70 / 8) = 0xf2; /* 0x70, 0x72, 0x73 */
	struct vm *vm = vm_new_ops(&ops, 0, false);
	uc_x86_vcpu_state s = guest_state(CODE);
	s.seg[1] = (uc_x86_vcpu_seg){0, 0xffffffff, 0x23, 0xafb};
	s.seg[2] = (uc_x86_vcpu_seg){0, 0xffffffff, 0x1b, 0xcf3};
	s.tr.limit = 0xff;
	vm_set(vm, &s);
	seen.n = 0;
	CHECK(!uc_vcpu_run(vm->uc, &info) && vm->done, "%s at %lx", reason_name(info.reason),
	      (long)info.rip);
	CHECK(seen.n == 3 && seen.gpa[0] == 0x70 && seen.gpa[1] == 0x72 && seen.gpa[2] == 0xf4,
	      "%d writes", seen.n);
	CHECK(gpa_ldq(0x80000) == 4, "%ld #GP", (long)gpa_ldq(0x80000));
	vm_free(vm);
}

static void shutdown_and_halt(void)
{
	uc_vcpu_run_info info;

	guest_memory("\xf4\x0f\x0b", "\xf4\x0f\x0b" + 0);
	gpa_write(CODE, "\xf4\x0f\x0b", 3); /* hlt; ud2 */
	struct vm *vm = vm_new_ops(&ops, 0, false);
	uc_x86_vcpu_state s = guest_state(CODE);
	vm_set(vm, &s);
	for (int i = 0; i < 3; i++) {
		CHECK(!uc_vcpu_run(vm->uc, &info) && info.reason == UC_VCPU_EXIT_HLT, "%s",
		      reason_name(info.reason));
		vm_get(vm, &s);
		CHECK(s.halted && s.rip == CODE + 1, "halted");
	}
	uc_vcpu_set_irq(vm->uc, true); /* IF is clear */
	CHECK(!uc_vcpu_run(vm->uc, &info) && info.reason == UC_VCPU_EXIT_HLT, "%s",
	      reason_name(info.reason));
	uc_vcpu_nmi(vm->uc); /* wakes; its gate is missing: triple fault */
	CHECK(!uc_vcpu_run(vm->uc, &info) && info.reason == UC_VCPU_EXIT_SHUTDOWN, "%s",
	      reason_name(info.reason));
	/* an interrupt that waits when HLT is reached in the shadow of STI: taken, and no exit */
	gpa_write(CODE, "\xfb\xf4", 2);			/* sti; hlt */
	gpa_write(CODE + 0x800, "\xe7\xf4\xeb\xfe", 4); /* out %eax, $0xf4; jmp . */
	idt_gate(vm->vector, CODE + 0x800, 0, 0);
	uc_vcpu_invalidate_code(vm->uc, 0, RAM_SIZE);
	s = guest_state(CODE);
	vm_set(vm, &s);
	uc_vcpu_set_irq(vm->uc, true);
	CHECK(!uc_vcpu_run(vm->uc, &info) && info.reason == UC_VCPU_EXIT_KICK && vm->done, "%s",
	      reason_name(info.reason));
	vm_free(vm);
}

static void steps_one_by_one(void)
{
	uc_vcpu_run_info info;
	uc_x86_vcpu_state s = guest_state(CODE);
	uint64_t last = CODE;
	int n = 0;

	guest_memory(steps_code, steps_end);
	idt_gate(0x50, CODE + 0x800, 0, 0);
	struct vm *vm = vm_new_ops(&ops, 0, false);
	for (int round = 0; round < 2; round++) { /* once more with everything translated */
		vm_set(vm, &s);
		n = 0;
		last = CODE;
		for (;;) {
			CHECK(!uc_vcpu_step(vm->uc, &info), "step");
			if (info.reason == UC_VCPU_EXIT_HLT)
				break;
			CHECK(info.reason == UC_VCPU_EXIT_DEBUG && info.rip != last,
			      "step %d: %s at %lx", n, reason_name(info.reason), (long)info.rip);
			last = info.rip;
			n++;
		}
		/* nop mov add jmp push pop nop lea jmp int iret; then hlt */
		CHECK(n == 11, "%d steps", n);
		vm_set(vm, &s);
		CHECK(!uc_vcpu_run(vm->uc, &info) && info.reason == UC_VCPU_EXIT_HLT, "%s",
		      reason_name(info.reason));
	}
	vm_free(vm);
}

/* The second stage grants by access; a right that was not given is asked for, and refused as a
 * fault. */
static uint32_t grant;
static uint64_t asked_w, asked_r;

static int s2_rights(struct vm *vm, uint64_t a, uint32_t access, uint32_t walk, uc_vcpu_xlat *x)
{
	(void)vm, (void)walk;
	if (a / PAGE != 0x90)
		return -1;
	asked_w += access == UC_VCPU_WRITE;
	asked_r += access == UC_VCPU_READ;
	x->prot = grant;
	return (grant & UC_PROT_WRITE) || access == UC_VCPU_READ ? UC_VCPU_XLAT_RAM
								 : UC_VCPU_XLAT_FAULT;
}

static void rights(void)
{
	static const uint8_t code[] = {0x8b, 0x04, 0x25, 0, 0, 9, 0, /* mov 0x90000, %eax */
				       0xff, 0x04, 0x25, 0, 0, 9, 0, /* incl 0x90000 */
				       0xff, 0x04, 0x25, 0, 0, 9, 0, 0xf4};
	uc_vcpu_run_info info;
	uc_x86_vcpu_state s = guest_state(CODE);

	guest_memory(code, code + sizeof(code));
	struct vm *vm = vm_new_ops(&ops, 0, false);
	vm->s2 = s2_rights;
	vm_set(vm, &s);
	grant = UC_PROT_READ;
	for (int i = 0; i < 3; i++) {
		CHECK(!uc_vcpu_run(vm->uc, &info) && info.reason == UC_VCPU_EXIT_FAULT &&
			      info.rip == CODE + 7 && info.fault.gpa == 0x90000 &&
			      info.fault.gva == 0x90000 && info.fault.access == UC_VCPU_WRITE &&
			      !info.fault.walk,
		      "%s at %lx", reason_name(info.reason), (long)info.rip);
		CHECK(asked_r == 1 && asked_w == (uint64_t)i + 1, "asked %lu %lu", (long)asked_r,
		      (long)asked_w);
	}
	grant = UC_PROT_READ | UC_PROT_WRITE;
	CHECK(!uc_vcpu_run(vm->uc, &info) && info.reason == UC_VCPU_EXIT_HLT, "%s",
	      reason_name(info.reason));
	CHECK(*(uint32_t *)gpa(0x90000) == 2 && asked_w == 4, "asked %lu", (long)asked_w);
	/* Taken back: the entry must go, by its physical page. */
	grant = UC_PROT_READ;
	uc_vcpu_flush_hpa(vm->uc, (uint64_t)((uint8_t *)gpa(0x90000) - ram), PAGE);
	vm_set(vm, &s);
	CHECK(!uc_vcpu_run(vm->uc, &info) && info.reason == UC_VCPU_EXIT_FAULT, "%s",
	      reason_name(info.reason));
	vm_free(vm);
}

int main(void)
{
	ops = guest_ops;
	ops.mmio_read = mmio_read;
	ops.mmio_write = mmio_write;
	ops.pio_read = pio_read;
	ops.pio_write = pio_write;
	devices();
	permissions();
	shutdown_and_halt();
	steps_one_by_one();
	rights();
	printf("devices, permissions, halt and triple fault, single step, rights: right\n");
	return 0;
}
