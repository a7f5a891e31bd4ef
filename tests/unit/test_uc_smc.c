/* Description: Self-modifying code goes by physical page: in the block that runs, over a page's
 * end, through another virtual address of the page, by REP MOVS, by a locked store, by somebody
 * outside (uc_vcpu_invalidate_code). And nothing that watches code stays behind. */
#include "test_uc_util.h"

#define MAGIC 0x11111111

/* 0x400000 is a second virtual page for CODE's physical page (host sets the tables up). Each piece
 * patches the immediate of a MOV and adds what it then loads to RBX: right sums mean that no stale
 * code ran. */
GUEST(smc, "	xor %ebx, %ebx\n mov $1, %r8d\n"
	   "outer:\n"
	   /* in the same block, forward, the next instruction */
	   "	mov %r8d, a1+1(%rip)\n"
	   "a1:	mov $0x11111111, %eax\n add %rax, %rbx\n"
	   /* a byte at a time, in the same block, two instructions ahead */
	   "	lea 3(%r8), %ecx\n mov %cl, a2+1(%rip)\n nop\n"
	   "a2:	mov $0x11111100, %eax\n movzbl %al, %eax\n add %rax, %rbx\n"
	   /* behind, run again through a loop */
	   "	mov $2, %edx\n"
	   "l3:	nop\n"
	   "a3:	mov $0x11111111, %eax\n add %rax, %rbx\n mov %r8d, a3+1(%rip)\n addl %edx, "
	   "a3+1(%rip)\n dec %edx\n jnz l3\n"
	   "	movl $0x11111111, a3+1(%rip)\n"
	   /* another block, through the alias */
	   "	mov $0x400000, %esi\n lea a4+1(%rip), %rdi\n and $0xfff, %edi\n mov %r8d, "
	   "(%rsi,%rdi)\n call f4\n add %rax, %rbx\n"
	   /* locked, unaligned or not as it falls */
	   "	lea f5+1(%rip), %rdi\n and $~7, %rdi\n lock orq $0, (%rdi)\n mov %r8d, %ecx\n xchg "
	   "%ecx, f5+1(%rip)\n call f5\n add %rax, %rbx\n"
	   /* REP MOVSB over a function */
	   "	lea new6(%rip), %rsi\n mov %r8d, 1(%rsi)\n lea f6(%rip), %rdi\n mov $6, %ecx\n rep "
	   "movsb\n call f6\n add %rax, %rbx\n"
	   /* an instruction over a page's end: bytes of it on both pages */
	   "	mov %r8d, 0x10ffe\n call *%r9\n add %rax, %rbx\n"
	   "	inc %r8d\n dec %rdi\n"
	   "	dec %r10\n jnz outer\n"
	   "	mov $0xf4, %edx\n out %eax, %dx\n1: jmp 1b\n"
	   ".balign 64\nf4: nop\na4:	mov $0x11111111, %eax\n ret\n"
	   ".balign 64\nf5:	mov $0x11111111, %eax\n ret\n"
	   ".balign 64\nf6:	mov $0x11111111, %eax\n ret\n"
	   ".balign 64\nnew6:	mov $0x11111111, %eax\n ret\n"
	   ".org 0xffd\n mov $0x11111111, %eax\n ret\n")

/* What the guest must come to. */
static uint64_t expect(uint64_t n)
{
	uint64_t sum = 0;

	for (uint64_t i = 1; i <= n; i++) {
		sum += i;		/* a1 */
		sum += (i + 3) & 0xff;	/* a2 */
		sum += MAGIC + (i + 2); /* a3: before, and after the first patch */
		sum += i;		/* f4 */
		sum += i;		/* f5 */
		sum += i;		/* f6 */
		sum += i;		/* over the page's end */
	}
	return sum;
}

static uint64_t run(struct vm *vm, uint64_t n)
{
	uc_x86_vcpu_state s = guest_state(CODE);
	uc_vcpu_run_info info;

	s.gpr[9] = CODE + 0xffd;
	s.gpr[10] = n;
	vm_set(vm, &s);
	vm->done = false;
	do {
		CHECK(!uc_vcpu_run(vm->uc, &info), "run");
		if (info.reason == UC_VCPU_EXIT_ATOMIC) /* the XCHG, where it is unaligned */
			CHECK(!uc_vcpu_step_exclusive(vm->uc, &info) &&
				      info.reason == UC_VCPU_EXIT_DEBUG,
			      "step: %s", reason_name(info.reason));
		else
			CHECK(info.reason == UC_VCPU_EXIT_KICK, "%s at %lx",
			      reason_name(info.reason), (long)info.rip);
	} while (!vm->done);
	vm_get(vm, &s);
	return s.gpr[3];
}

/* Data beside code, and the end of the engine: the bitmap of such a page goes with it. (The address
 * sanitizer's leak detection looks.) */
static void bitmap_at_the_end(void)
{
	/* 1: incl CODE + 0x800; dec %ecx; jnz 1b; hlt */
	static const uint8_t code[] = {0xff, 0x04, 0x25, 0,    0x08, 1,
				       0,    0xff, 0xc9, 0x75, 0xf5, 0xf4};
	uc_vcpu_run_info info;

	guest_memory(code, code + sizeof(code));
	struct vm *vm = vm_new(0, false);
	for (int i = 0; i < 2; i++) { /* a new translation drops the bitmap: the second has none */
		uc_x86_vcpu_state s = guest_state(CODE);
		s.gpr[1] = 100;
		vm_set(vm, &s);
		CHECK(!uc_vcpu_run(vm->uc, &info) && info.reason == UC_VCPU_EXIT_HLT, "%s",
		      reason_name(info.reason));
	}
	CHECK(*(uint32_t *)gpa(CODE + 0x800) == 200, "%x", *(uint32_t *)gpa(CODE + 0x800));
	vm_free(vm);
}

int main(void)
{
	uint64_t n = 20000, drops = 0;
	uc_vcpu_stats st;

	for (int parallel = 0; parallel < 2; parallel++) {
		guest_memory(smc_code, smc_end);
		gpa_q(PD + 2 * 8, 0xe000 | 7); /* 0x400000: a page table of its own */
		gpa_q(0xe000, CODE | 7);
		struct vm *vm = vm_new(4 << 20, parallel);
		uint64_t got = run(vm, n);
		CHECK(got == expect(n), "parallel %d: %lx, not %lx", parallel, (long)got,
		      (long)expect(n));

		/* Somebody else writes the code: stale until told, right after. */
		for (uint32_t i = 1; i <= 2000; i++) {
			uint64_t at = CODE + 0xffe;
			uc_x86_vcpu_state s = guest_state(CODE + 0xffd);
			uc_vcpu_run_info info;
			gpa_write(at, &i, 4);
			uc_vcpu_invalidate_code(vm->uc, (uint64_t)((uint8_t *)gpa(at) - ram), 2);
			uc_vcpu_invalidate_code(vm->uc, (uint64_t)((uint8_t *)gpa(at + 2) - ram),
						2);
			s.gpr[4] = STACK - 8;
			gpa_q(STACK - 8, CODE + 0xf00); /* an OUT to the end */
			gpa_write(CODE + 0xf00, "\xe7\xf4\xeb\xfe", 4);
			vm->done = false;
			vm_set(vm, &s);
			CHECK(!uc_vcpu_run(vm->uc, &info) && vm->done, "%s",
			      reason_name(info.reason));
			CHECK(vm->last_out == i, "written from outside: %lx, not %x",
			      (long)vm->last_out, i);
			drops++;
		}
		uc_vcpu_get_stats(vm->uc, &st);
		printf("parallel %d: %lu turns of 7 kinds right, %lu translations, %lu slow "
		       "stores, %lu writes from outside\n",
		       parallel, (unsigned long)n, (unsigned long)st.tb_translated,
		       (unsigned long)st.smc_writes, (unsigned long)drops);
		CHECK(st.smc_writes > n, "no store met translated code");
		vm_free(vm);
	}
	bitmap_at_the_end();
	return 0;
}
