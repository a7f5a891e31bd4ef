/* Guests that show what their TLB holds: pages whose contents are a number, which the host maps
 * elsewhere at the guest's word. Included once. */
#ifndef TESTS_UNIT_UC_TLB_H
#define TESTS_UNIT_UC_TLB_H

#include "test_uc_util.h"

/* Entries of page tables; pages of a large one. */
enum { G = 1 << 8, LARGE = 512 };

#define MAP(which) "	mov $" which ", %eax\n out %eax, $0x21\n"
#define LOAD_CR3   "	mov %cr3, %rax\n mov %rax, %cr3\n"
#define FLIP_PGE   "	mov %cr4, %rax\n xor $0x80, %al\n mov %rax, %cr4\n"
/* The sum of the numbers of all pages of a large one, executed and read. */
#define SUM(at)                                                                                    \
	"	mov $" at ", %esi\n mov $512, %ecx\n xor %ebx, %ebx\n"                             \
	"1:	call *%rsi\n add %eax, %ebx\n add 1(%rsi), %ebx\n add $0x1000, %rsi\n dec %ecx\n "     \
	"jnz 1b\n"                                                                                 \
	"	mov %ebx, %eax\n out %eax, $0x20\n"
#define END "	mov $0xf4, %edx\n out %eax, %dx\n1: jmp 1b\n"

static uint32_t seen[256];
static unsigned n_seen;

/* Does what MAP() asks for. */
static void (*tlb_map)(uint32_t which);

/* "mov $VALUE, %eax; ret": executed and read, it says which page is mapped. */
static void number(uint64_t at, uint32_t value)
{
	const uint8_t code[] = {
		0xb8, (uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16), 0, 0xc3};

	gpa_write(at, code, sizeof(code));
}

/* At 2 MiB the numbers 0.., at 4 MiB twice those: their SUM() is LARGE * (LARGE - 1), or twice it.
 */
static void number_large(void)
{
	for (uint32_t i = 0; i < LARGE; i++) {
		number(0x200000 + i * PAGE, i);
		number(0x400000 + i * PAGE, 2 * i);
	}
}

static void tlb_pio_out(struct vm *vm, uint16_t port, uint32_t value)
{
	(void)vm;
	if (port == 0x20 && n_seen < sizeof(seen) / sizeof(*seen))
		seen[n_seen++] = value;
	if (port == 0x21)
		tlb_map(value);
}

/* Without them MOV to CR4 refuses the bits that are set already. */
static void tlb_cpuid(void *o, uint32_t leaf, uint32_t sub, uint32_t out[4])
{
	op_cpuid(o, leaf, sub, out);
	if (leaf == 1)
		out[3] = 1 << 6 | 1 << 7 | 1 << 13 | 1 << 24 | 1 << 25; /* PAE MCE PGE FXSR SSE */
}

/* Runs what guest memory holds to its end; fills `seen`. */
static void tlb_run(int parallel, void (*map)(uint32_t which))
{
	uc_vcpu_ops ops = guest_ops;
	uc_x86_vcpu_state s;
	uc_vcpu_run_info info;
	struct vm *vm;

	ops.cpuid = tlb_cpuid;
	vm = vm_new_ops(&ops, 8 << 20, parallel);
	vm->pio_out = tlb_pio_out;
	n_seen = 0;
	tlb_map = map;
	s = guest_state(CODE);
	vm_set(vm, &s);
	CHECK(!uc_vcpu_run(vm->uc, &info) && vm->done, "%s at %lx", reason_name(info.reason),
	      (long)info.rip);
	vm_free(vm);
}

#endif
