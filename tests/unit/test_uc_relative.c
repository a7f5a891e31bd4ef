/* Description: Blocks of 64-bit user code serve every address that their page is mapped at. One
 * program runs at four, by blocks and one instruction at a time, and must see the same each time
 * but for where it is: what it computes from RIP, return addresses, exceptions, system calls,
 * exits, code that changes or is mapped elsewhere between two CR3 loads. And it is translated once.
 */
#include "test_uc_util.h"

enum {
	USER = 0x100000, /* guest-physical: two pages of code, a copy of the second */
	COPY = USER + 2 * PAGE,
	LANDING = 0x110000,
	OWN = 0x120000, /* a page of data for each mapping */
	TABLES = 0x40000,
	MAX = 128
};

#define HERE(reg)  "	mov " reg ", %rax\n out %eax, $0x22\n shr $32, %rax\n out %eax, $0x23\n"
#define VALUE(reg) "	mov " reg ", %eax\n out %eax, $0x20\n"
#define SKIP(n)	   "	mov $" #n ", %r15d\n"

/* Handlers report where they came from; R15 is what to add to it. The system call reloads CR3. */
GUEST(kernel,
      "	jmp call\n .balign 64\n"
      "	add $8, %rsp\n jmp 1f\n .balign 64\n"
      "1:	push %rax\n mov 8(%rsp), %rax\n out %eax, $0x22\n shr $32, %rax\n out %eax, $0x23\n"
      "	pop %rax\n add %r15, (%rsp)\n iretq\n"
      "call:\n" HERE("%rcx") "	mov %cr3, %rax\n mov %rax, %cr3\n sysretq\n")

#define OWN_DATA "user_code+0x2000(%rip)"
#define CHANGE	 "	out %eax, $0x24\n syscall\n call number\n" VALUE("%ebx")

/* clang-format off */
/* R12: a number of this run; R14: an address where nothing is. */
GUEST(user,
      "	lea 0(%rip), %rbx\n" HERE("%rbx") VALUE(OWN_DATA)
      "	addl $5, " OWN_DATA "\n lock addl $6, " OWN_DATA "\n" VALUE(OWN_DATA)
      "	lea 0(%eip), %rbx\n lea user_code(%rip), %edx\n sub %rdx, %rbx\n" VALUE("%ebx")
      /* return addresses */
      "	call 1f\n1:	pop %rbx\n" HERE("%rbx")
      "	lea near(%rip), %rdx\n call *%rdx\n call near\n"
      "	push far(%rip)\n add $8, %rsp\n call far\n"
      /* exceptions: of the instruction, behind it, in a block's middle, in a helper */
      SKIP(2) "	ud2\n" SKIP(0) "	int3\n"
      SKIP(3) "	xor %ebx, %ebx\n inc %ebx\n mov (%r14), %ecx\n inc %ebx\n" VALUE("%ebx")
      SKIP(2) "	xor %ecx, %ecx\n div %ecx\n"
      SKIP(2) "	lea user_code(%rip), %rsi\n lea -100(%r14), %rdi\n mov $200, %ecx\n rep movsb\n"
      VALUE("%ecx")
      /* a system call, x87's instruction pointer */
      "	syscall\n fld1\n fnstenv user_code+0x2100(%rip)\n"
      "	mov user_code+0x210c(%rip), %ebx\n lea user_code(%rip), %rdx\n"
      "	sub %edx, %ebx\n and $0xffff, %ebx\n" VALUE("%ebx")
      /* an exit at a block's start, thrice; the owner looks where it is */
      "	out %eax, $0x21\n mov $2, %edx\n2:	out %eax, $0x21\n dec %edx\n jnz 2b\n"
      /* 16 bits of operand size cut the target off */
      "	lea 3f(%rip), %r13\n .byte 0x66, 0xe9\n .word 0x0f00\n"
      "3:	xor %ebx, %ebx\n lea 4f(%rip), %r13\n cmp %ebx, %ebx\n"
      "	.byte 0x66, 0x0f, 0x84\n .word 0x0f00\n4:\n"
      /* this code changes, for all of its addresses */
      "	mov %r12d, patch+1(%rip)\n call patch\n" VALUE("%ebx")
      /* the second page becomes the copy, and the first one again */
      "	call number\n" VALUE("%ebx") CHANGE CHANGE "	jmp end\n"
      "near:	mov (%rsp), %rbx\n" HERE("%rbx") "	ret\n"
      /* over the page's end: a jump, and an instruction */
      ".org 0xff0\nend:	cmp %eax, %eax\n jz 5f\n ud2\n"
      ".org 0xffd\n5:	mov $0x12345678, %ebx\n" VALUE("%ebx")
      "	mov $0xf4, %edx\n out %eax, %dx\n6: jmp 6b\n"
      ".org 0x1100\nfar:	mov (%rsp), %rbx\n" HERE("%rbx") "	jmp near\n"
      ".org 0x1200\npatch: mov $0, %ebx\n ret\n"
      ".org 0x1300\nnumber: mov $1, %ebx\n ret\n")
/* clang-format on */

struct seen {
	unsigned n, exits;
	uint64_t what[MAX], exit[8];
};

static const uint64_t bases[] = {USER, 0x18b000, 0x7f0000009000, 0x7f007fffd000};
enum { NBASES = sizeof(bases) / sizeof(bases[0]) };
static struct seen seen;
static uint64_t base, low;
static uint64_t *second; /* the entry of the second page at base */

static void see(uint64_t what)
{
	CHECK(seen.n < MAX, "too much");
	seen.what[seen.n++] = what;
}

static uint64_t rip(struct vm *vm)
{
	uc_x86_vcpu_state s;

	vm_get(vm, &s);
	return s.rip;
}

static void pio_out(struct vm *vm, uint16_t port, uint32_t value)
{
	switch (port) {
	case 0x20: see(value); break;
	case 0x21:
		see(rip(vm) - base);
		uc_vcpu_kick(vm->uc);
		break;
	case 0x22: low = value; break;
	case 0x23: see(((uint64_t)value << 32 | low) - base); break;
	case 0x24: *second ^= (uint64_t)(USER + PAGE) ^ COPY; break;
	}
}

/* Two pages of code and one of data at each of them; 16 bits of an address lead to LANDING. */
static void setup(void)
{
	static const uint8_t landing[] = {0x41, 0xff, 0xe5}; /* jmp *%r13 */
	const uint8_t other[] = {0xbb, 2};

	guest_memory(kernel_code, kernel_end);
	gpa_write(USER, user_code, (size_t)(user_end - user_code));
	gpa_write(COPY, user_code + PAGE, (size_t)(user_end - user_code) - PAGE);
	gpa_write(COPY + 0x300, other, sizeof(other));
	memset(gpa(LANDING), 0x90, PAGE - 8);
	gpa_write(LANDING + PAGE - 8, landing, sizeof(landing));
	for (unsigned i = 0; i < NBASES; i++) {
		uint64_t pt = PT;

		if (bases[i] >> 32) {
			const uint64_t pdpt = TABLES, pd = TABLES + PAGE * (1 + 2 * i);

			pt = pd + PAGE;
			gpa_q(PML4 + (bases[i] >> 39 & 511) * 8, pdpt | 7);
			gpa_q(pdpt + (bases[i] >> 30 & 511) * 8, pd | 7);
			gpa_q(pd + (bases[i] >> 21 & 511) * 8, pt | 7);
		}
		for (unsigned page = 0; page < 3; page++)
			gpa_q(pt + (((bases[i] >> 12) + page) & 511) * 8,
			      (page < 2 ? USER + page * PAGE : OWN + i * PAGE) | 7);
		gpa_q(OWN + i * PAGE, 1000);
	}
	for (unsigned i = 0; i < NBASES; i++)
		for (unsigned page = 0; page < 2; page++) /* at the low 16 bits of bases[i] */
			gpa_q(PT + ((bases[i] >> 12 & 15) + page) * 8, LANDING | 7);
	gpa_q(PT + 0x1ff * 8, 0);
	for (int v = 0; v < 15; v++)
		idt_gate(v, CODE + (v == 14 || v == 13 ? 64 : 128), 3, 0);
}

/* The program at bases[i]; what it saw is in `seen`. */
static void run(struct vm *vm, unsigned i, bool step, uint32_t number)
{
	const uint64_t page = (bases[i] >> 12) + 1, pt = TABLES + PAGE * (2 + 2 * i);
	uc_x86_vcpu_state s = guest_state(bases[i]);
	uc_vcpu_run_info info;

	base = bases[i];
	second = gpa((base >> 32 ? pt : PT) + (page & 511) * 8);
	gpa_q(OWN + i * PAGE, 1000);
	for (int j = 0; j < 6; j++)
		s.seg[j] = (uc_x86_vcpu_seg){0, 0xffffffff, 0x1b, 0xcf3};
	s.seg[1] = (uc_x86_vcpu_seg){0, 0xffffffff, 0x23, 0xafb};
	s.rflags = 0x3002; /* IOPL 3 */
	s.lstar = CODE, s.star = 8ull << 32 | 0x10ull << 48;
	s.gpr[12] = number, s.gpr[14] = 0x1ff000;
	vm_set(vm, &s);
	uc_vcpu_flush_tlb(vm->uc);
	memset(&seen, 0, sizeof(seen));
	vm->done = false;
	do {
		CHECK(!(step ? uc_vcpu_step(vm->uc, &info) : uc_vcpu_run(vm->uc, &info)), "run");
		CHECK(info.reason == UC_VCPU_EXIT_KICK ||
			      (step && info.reason == UC_VCPU_EXIT_DEBUG),
		      "%s at %lx", reason_name(info.reason), (long)info.rip);
		if (info.reason == UC_VCPU_EXIT_KICK && seen.exits < 8)
			seen.exit[seen.exits++] = rip(vm) - base;
	} while (!vm->done);
}

static void compare(const struct seen *want, bool exits, const char *how, unsigned round)
{
	CHECK(seen.n == want->n, "%s %u: %u numbers, not %u", how, round, seen.n, want->n);
	for (unsigned i = 0; i < want->n; i++)
		CHECK(seen.what[i] == want->what[i], "%s %u, number %u: %lx, not %lx", how, round,
		      i, (long)seen.what[i], (long)want->what[i]);
	CHECK(!exits || (seen.exits == want->exits &&
			 !memcmp(seen.exit, want->exit, sizeof(seen.exit))),
	      "%s %u: %u exits, or elsewhere", how, round, seen.exits);
}

int main(void)
{
	for (int parallel = 0; parallel < 2; parallel++) {
		uc_vcpu_stats start, first, end;
		struct seen want;
		struct vm *vm;

		setup();
		vm = vm_new(8 << 20, parallel);
		vm->pio_out = pio_out;
		uc_vcpu_get_stats(vm->uc, &start);
		run(vm, 0, false, 7);
		want = seen;
		uc_vcpu_get_stats(vm->uc, &first);
		for (unsigned i = 0; i < 3 * NBASES; i++) {
			run(vm, i % NBASES, false, 7);
			compare(&want, true, "round", i);
		}
		uc_vcpu_get_stats(vm->uc, &end);
		/* What was translated again is code that changes. */
		first.tb_translated -= start.tb_translated,
			end.tb_translated -= start.tb_translated;
		CHECK(end.tb_translated < 2 * first.tb_translated, "%lu blocks, then %lu",
		      (unsigned long)first.tb_translated, (unsigned long)end.tb_translated);
		/* Blocks of one instruction know their address. */
		for (unsigned i = 0; i < NBASES; i++) {
			run(vm, i, true, 7);
			compare(&want, false, "single steps", i);
		}
		/* Other numbers in the changed code: seen at every address. */
		for (uint32_t i = 0; i < 2 * NBASES; i++) {
			bool found = false;

			run(vm, i % NBASES, false, 0x5000 + i);
			for (unsigned j = 0; j < seen.n; j++)
				found |= seen.what[j] == 0x5000 + i;
			CHECK(found, "round %u: stale code", i);
		}
		printf("parallel %d: %u numbers, the same at %u addresses; %lu blocks, %lu after "
		       "13 "
		       "rounds\n",
		       parallel, want.n, (unsigned)NBASES, (unsigned long)first.tb_translated,
		       (unsigned long)end.tb_translated);
		vm_free(vm);
	}
	return 0;
}
