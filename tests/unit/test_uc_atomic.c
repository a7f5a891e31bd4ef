/* Description: Two engines on two threads and one memory: every locked form does its work exactly
 * once. Unaligned ones that a page's end splits need the world stopped (exit ATOMIC,
 * uc_vcpu_step_exclusive). */
#include <unistd.h>

#include "test_uc_util.h"

GUEST(smp, "1:	lock incq 0x80000\n"
	   "	mov $3, %eax\n lock xadd %rax, 0x80008\n"
	   "	mov 0x80010, %rax\n2: lea 1(%rax), %rdx\n lock cmpxchg %rdx, 0x80010\n jne 2b\n"
	   "	mov 0x80020, %rax\n mov 0x80028, %rdx\n"
	   "3:	lea 1(%rax), %rbx\n lea 2(%rdx), %rcx\n lock cmpxchg16b 0x80020\n jne 3b\n"
	   "	mov 0x80030, %eax\n mov 0x80034, %edx\n"
	   "3:	lea 1(%rax), %ebx\n lea 3(%rdx), %ecx\n lock cmpxchg8b 0x80030\n jne 3b\n"
	   "	mov $1, %eax\n4: xchg %rax, 0x80040\n test %rax, %rax\n jz 5f\n pause\n jmp 4b\n"
	   "5:	incq 0x80048\n movq $0, 0x80040\n" /* a spin lock of XCHG */
	   "6:	lock btsl $5, 0x80050\n jnc 7f\n pause\n jmp 6b\n7: incq 0x80058\n lock btrl $5, "
	   "0x80050\n"
	   "	mov $1, %al\n8: xchgb %al, 0x80060\n test %al, %al\n jnz 8b\n incl 0x80064\n movb "
	   "$0, 0x80060\n"
	   "	lock addw $1, 0x80068\n lock subl $-1, 0x8006c\n lock decq 0x80070\n lock negq "
	   "0x80078\n lock notq 0x80078\n"
	   "	test $15, %edi\n jnz 9f\n"
	   "	lock addl $1, 0x800be\n" /* over a cache line's end */
	   "	lock incq 0x80ffc\n"	 /* over a page's end */
	   "9:	dec %rdi\n jnz 1b\n"
	   "	mov $0xf4, %edx\n out %eax, %dx\n1: jmp 1b\n")

/* Nothing but two spin locks of XCHG: what a load and a store in its place get wrong is a matter of
 * a nanosecond. */
GUEST(locks, "1:	mov $1, %eax\n2: xchg %rax, 0x80040\n test %rax, %rax\n jnz 2b\n"
	     "	incq 0x80048\n movq $0, 0x80040\n"
	     "	mov $1, %al\n3: xchgb %al, 0x80060\n test %al, %al\n jnz 3b\n"
	     "	incq 0x80068\n movb $0, 0x80060\n"
	     "	dec %rdi\n jnz 1b\n"
	     "	mov $0xf4, %edx\n out %eax, %dx\n4: jmp 4b\n")

static pthread_mutex_t world = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static int running, stopping;
static struct vm *vms[2];
static uint64_t exclusive;

static void *cpu(void *o)
{
	struct vm *vm = o, *other = vms[vm == vms[0]];
	uc_vcpu_run_info info;

	while (!vm->done) {
		pthread_mutex_lock(&world);
		while (stopping)
			pthread_cond_wait(&cond, &world);
		running++;
		pthread_mutex_unlock(&world);
		CHECK(!uc_vcpu_run(vm->uc, &info), "run");
		pthread_mutex_lock(&world);
		running--;
		pthread_cond_broadcast(&cond);
		if (info.reason == UC_VCPU_EXIT_ATOMIC) {
			while (stopping)
				pthread_cond_wait(&cond, &world);
			stopping = 1;
			uc_vcpu_kick(other->uc);
			while (running)
				pthread_cond_wait(&cond, &world);
			do
				CHECK(!uc_vcpu_step_exclusive(vm->uc, &info), "step");
			while (info.reason == UC_VCPU_EXIT_KICK);
			CHECK(info.reason == UC_VCPU_EXIT_DEBUG, "%s", reason_name(info.reason));
			exclusive++;
			stopping = 0;
			pthread_cond_broadcast(&cond);
		} else
			CHECK(info.reason == UC_VCPU_EXIT_KICK, "%s at %lx",
			      reason_name(info.reason), (long)info.rip);
		pthread_mutex_unlock(&world);
	}
	return NULL;
}

static uint32_t l(uint64_t a)
{
	uint32_t v;
	for (unsigned i = 0; i < 4; i++)
		((uint8_t *)&v)[i] = *(uint8_t *)gpa(a + i);
	return v;
}

static void two(const void *code, const void *end, uint64_t n)
{
	pthread_t t[2];

	guest_memory(code, end);
	for (int i = 0; i < 2; i++) {
		vms[i] = vm_new(4 << 20, true);
		uc_x86_vcpu_state s = guest_state(CODE);
		s.gpr[7] = n;
		s.gpr[4] -= (uint64_t)i * 0x8000;
		vm_set(vms[i], &s);
	}
	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, cpu, vms[i]);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
}

int main(void)
{
	alarm(120); /* a lock that two have taken is never let go */
	uint64_t n = 100000, both = 2 * n;

	two(smp_code, smp_end, n);
	uint64_t got[] = {gpa_ldq(0x80000),
			  gpa_ldq(0x80008) / 3,
			  gpa_ldq(0x80010),
			  gpa_ldq(0x80020),
			  gpa_ldq(0x80028) / 2,
			  l(0x80030),
			  l(0x80034) / 3,
			  gpa_ldq(0x80048),
			  gpa_ldq(0x80058),
			  l(0x80064),
			  l(0x80068) + (both & ~0xffffull),
			  l(0x8006c),
			  0 - gpa_ldq(0x80070),
			  (uint64_t)l(0x800be) * 16,
			  (l(0x80ffc) | (uint64_t)l(0x81000) << 32) * 16};
	for (size_t i = 0; i < sizeof(got) / sizeof(*got); i++)
		CHECK(got[i] == both, "counter %zu: %lu, not %lu", i, (unsigned long)got[i],
		      (unsigned long)both);
	printf("%lu of each of 15 locked forms by two threads, %lu of them alone in the machine\n",
	       (unsigned long)both, (unsigned long)exclusive);
	CHECK(exclusive == both / 16 * 2, "exclusive steps");
	vm_free(vms[0]);
	vm_free(vms[1]);
	n = 3000000;
	two(locks_code, locks_end, n);
	CHECK(gpa_ldq(0x80048) == 2 * n && gpa_ldq(0x80068) == 2 * n, "locks: %lu and %lu, not %lu",
	      (unsigned long)gpa_ldq(0x80048), (unsigned long)gpa_ldq(0x80068),
	      (unsigned long)(2 * n));
	printf("%lu turns behind two spin locks\n", (unsigned long)(2 * n));
	vm_free(vms[0]);
	vm_free(vms[1]);
	return 0;
}
