/* Description: A guest with one vCPU and a thread of the host (a device) tell each other something:
 * each stores its word, issues a barrier and loads the other's word. One of the two must see the
 * other's, whatever the barrier: MFENCE and every locked form. */
#include <sched.h>
#include <stdatomic.h>

#include "test_uc_util.h"

/* Words of the two, each in its own cache line. */
enum {
	GO = DATA,
	GUESTS = DATA + 0x100,
	HOSTS = DATA + 0x200,
	SEEN = DATA + 0x300,
	OVER = DATA + 0x400
};

/* r8 counts the rounds; rsi: rounds; the barrier may use rax to rdx, and 0xc0 bytes from SCRATCH.
 */
#define SCRATCH "0x80500"
#define ORDER(name, barrier)                                                                       \
	GUEST(name, "	xor %r8, %r8\n"                                                              \
		    "1:	inc %r8\n"                                                                 \
		    "2:	cmp 0x80000, %r8\n jne 2b\n"                                               \
		    "	mov %r8, 0x80100\n" barrier "\n	mov 0x80200, %rdi\n"                       \
		    "	mov %rdi, 0x80300\n mov %r8, 0x80400\n"                                      \
		    "	cmp %rsi, %r8\n jne 1b\n"                                                    \
		    "	mov $0xf4, %edx\n out %eax, %dx\n3: jmp 3b\n")
ORDER(mfence, "mfence")
ORDER(add, "lock addl $0, -4(%rsp)")
ORDER(or, "lock orb $0, -4(%rsp)")
ORDER(xadd, "lock xadd %rax, " SCRATCH)
ORDER(exchange, "xchg %rax, " SCRATCH)
ORDER(exchange32, "xchg %eax, " SCRATCH)
ORDER(compare, "lock cmpxchg %rcx, " SCRATCH)
ORDER(compare32, "lock cmpxchg %ecx, " SCRATCH)
ORDER(compare8, "lock cmpxchg8b " SCRATCH)
ORDER(compare16, "lock cmpxchg16b " SCRATCH)
ORDER(bit, "lock btsl $5, " SCRATCH)

static const struct form {
	const char *name;
	const void *code, *end;
} forms[] = {
#define FORM(name)                                                                                 \
	{                                                                                          \
#name, name##_code, name##_end                                                     \
	}
	FORM(mfence),	FORM(add),	  FORM(or),	 FORM(xadd),
	FORM(exchange), FORM(exchange32), FORM(compare), FORM(compare32),
	FORM(compare8), FORM(compare16),  FORM(bit),
};

enum { ROUNDS = 100000, SECONDS_NS = 300000000 };

static atomic_bool enough;

static void *cpu(void *opaque)
{
	struct vm *vm = opaque;
	uc_vcpu_run_info info;

	while (!atomic_load(&enough))
		CHECK(!uc_vcpu_run(vm->uc, &info) && info.reason == UC_VCPU_EXIT_KICK, "%s at %lx",
		      reason_name(info.reason), (long)info.rip);
	return NULL;
}

static _Atomic uint64_t *word(uint64_t at)
{
	return gpa(at);
}

/* Of rounds 1 to *done: how often neither saw the other. */
static unsigned host(uint64_t *done)
{
	const uint64_t until = now_ns() + SECONDS_NS;
	unsigned lost = 0, delay = 0;

	for (*done = 1;; ++*done) {
		const uint64_t round = *done;
		/* The last one in any case: the guest waits for it. */
		const bool last = round == ROUNDS;
		uint64_t guests;

		atomic_store_explicit(word(GO), round, memory_order_release);
		/* The two shall meet, wherever the guest is in its loop. */
		delay = (delay + 7) % 256;
		for (volatile unsigned i = 0; i < delay; i++)
			;
		/* The thread sanitizer knows no fences. */
		(void)atomic_exchange(word(HOSTS), round);
		guests = atomic_load(word(GUESTS));
		for (unsigned spins = 0; atomic_load(word(OVER)) != round; spins++)
			if (spins > 10000)
				sched_yield();
		if (guests != round && atomic_load(word(SEEN)) != round)
			lost++;
		if (last || now_ns() > until)
			return lost;
	}
}

int main(void)
{
	alarm(120);
	for (size_t i = 0; i < sizeof(forms) / sizeof(*forms); i++) {
		uc_x86_vcpu_state state;
		struct vm *vm;
		pthread_t thread;
		uint64_t done;
		unsigned lost;

		guest_memory(forms[i].code, forms[i].end);
		vm = vm_new(4 << 20, false);
		state = guest_state(CODE);
		state.gpr[6] = ROUNDS;
		vm_set(vm, &state);
		atomic_store(&enough, false);
		pthread_create(&thread, NULL, cpu, vm);
		lost = host(&done);
		atomic_store(&enough, true);
		uc_vcpu_kick(vm->uc);
		pthread_join(thread, NULL);
		vm_free(vm);
		printf("%s: %lu rounds\n", forms[i].name, (unsigned long)done);
		CHECK(!lost, "%s: in %u of %lu rounds neither saw the other's word", forms[i].name,
		      lost, (unsigned long)done);
	}
	return 0;
}
