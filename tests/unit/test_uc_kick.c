/* Description: Kicks from another thread: an exit is at a block's start with nothing half done (the
 * block's stores and registers agree), none is lost, and each is consumed by exactly one exit. */
#include "test_uc_util.h"

/* One block of many stores; a stop in its middle, run again from its start, leaves the counters
 * apart. */
GUEST(loop, "1:	incq 0x80000\n incq 0x80800\n incq 0x81000\n mov (%rsp), %rax\n push %rbx\n incq "
	    "0x80008\n pop %rcx\n"
	    "	lea 1(%rbx), %rbx\n incq 0x81ff8\n jmp 1b\n")

static struct vm *vm;
static uint64_t sent, seen; /* handshake: the kicker waits for each */
static bool finish;

static bool late(const struct timespec *start)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec - start->tv_sec > 120;
}

static void *kicker(void *o)
{
	uint64_t n = *(uint64_t *)o, state = 88172645463325252ull;
	struct timespec start;

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (uint64_t i = 0; i < n; i++) {
		/* The guest moves on first: however slow this machine is, the kick comes in its
		 * middle. */
		uint64_t was = __atomic_load_n((uint64_t *)gpa(0x80000), __ATOMIC_RELAXED);
		while (__atomic_load_n((uint64_t *)gpa(0x80000), __ATOMIC_RELAXED) == was &&
		       !late(&start))
			;
		state ^= state << 13, state ^= state >> 7, state ^= state << 17;
		for (volatile uint64_t d = state % 400; d; d--)
			;
		__atomic_store_n(&sent, i + 1, __ATOMIC_SEQ_CST);
		uc_vcpu_kick(vm->uc);
		while (__atomic_load_n(&seen, __ATOMIC_SEQ_CST) != i + 1) {
			if (late(&start)) {
				printf("kick %lu was lost\n", (unsigned long)i);
				exit(1);
			}
		}
	}
	__atomic_store_n(&finish, true, __ATOMIC_SEQ_CST);
	uc_vcpu_kick(vm->uc);
	return NULL;
}

static void *storm(void *o)
{
	while (!__atomic_load_n((bool *)o, __ATOMIC_SEQ_CST))
		uc_vcpu_kick(vm->uc);
	return NULL;
}

static void exact(uint64_t exits)
{
	uc_x86_vcpu_state s;

	vm_get(vm, &s);
	uint64_t n = s.gpr[3];
	CHECK(s.rip == CODE, "exit %lu: rip %lx is no block's start", (unsigned long)exits,
	      (unsigned long)s.rip);
	CHECK(s.gpr[4] == STACK && gpa_ldq(0x80000) == n && gpa_ldq(0x80800) == n &&
		      gpa_ldq(0x81000) == n && gpa_ldq(0x80008) == n && gpa_ldq(0x81ff8) == n,
	      "exit %lu: half done: %lu %lu %lu %lu %lu %lu", (unsigned long)exits,
	      (unsigned long)n, (unsigned long)gpa_ldq(0x80000), (unsigned long)gpa_ldq(0x80800),
	      (unsigned long)gpa_ldq(0x81000), (unsigned long)gpa_ldq(0x80008),
	      (unsigned long)gpa_ldq(0x81ff8));
}

int main(void)
{
	uc_x86_vcpu_state s = guest_state(CODE);
	uc_vcpu_run_info info;
	uint64_t n = 15000, exits = 0, turns = 0, last = 0;
	pthread_t t;
	bool stop = false;

	guest_memory(loop_code, loop_end);
	vm = vm_new(4 << 20, false);
	vm_set(vm, &s);

	/* Before a run: sticky, once. */
	for (int i = 0; i < 3; i++)
		uc_vcpu_kick(vm->uc);
	CHECK(!uc_vcpu_run(vm->uc, &info) && info.reason == UC_VCPU_EXIT_KICK && info.rip == CODE,
	      "sticky");
	CHECK(gpa_ldq(0x80000) == 0, "the guest ran");

	pthread_create(&t, NULL, kicker, &n);
	while (!__atomic_load_n(&finish, __ATOMIC_SEQ_CST)) {
		CHECK(!uc_vcpu_run(vm->uc, &info) && info.reason == UC_VCPU_EXIT_KICK, "%s",
		      reason_name(info.reason));
		exact(exits++);
		turns += gpa_ldq(0x80000) != last;
		last = gpa_ldq(0x80000);
		/* One kick, one exit: the next has not been sent before this one is seen. */
		__atomic_store_n(&seen, __atomic_load_n(&sent, __ATOMIC_SEQ_CST), __ATOMIC_SEQ_CST);
	}
	pthread_join(t, NULL);
	CHECK(exits == n || exits == n + 1, "%lu kicks, %lu exits", (unsigned long)n,
	      (unsigned long)exits);

	pthread_create(&t, NULL, storm, &stop);
	for (uint64_t i = 0; i < n; i++) {
		CHECK(!uc_vcpu_run(vm->uc, &info) && info.reason == UC_VCPU_EXIT_KICK, "%s",
		      reason_name(info.reason));
		exact(i);
	}
	__atomic_store_n(&stop, true, __ATOMIC_SEQ_CST);
	pthread_join(t, NULL);
	printf("%lu kicks, %lu exits, guest moved on between %lu of them; %lu exits in a storm; "
	       "%lu turns\n",
	       (unsigned long)n, (unsigned long)exits, (unsigned long)turns, (unsigned long)n,
	       (unsigned long)gpa_ldq(0x80000));
	CHECK(turns > n / 2, "the guest hardly ran: nothing was tested");
	vm_free(vm);
	return 0;
}
