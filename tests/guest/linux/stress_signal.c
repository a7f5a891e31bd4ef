/* Signals: interrupted programs go on with the registers they had; queued signals all arrive, once.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "stress.h"

static _Atomic unsigned long handled;

/* Leaves nothing of the registers that the interrupted code uses. */
static void on_timer(int sig)
{
	(void)sig;
	atomic_fetch_add(&handled, 1);
	asm volatile(
		"xor %%eax, %%eax\n\txor %%ecx, %%ecx\n\txor %%edx, %%edx\n\txor %%esi, %%esi\n\t"
		"xor %%edi, %%edi\n\txor %%r8d, %%r8d\n\txor %%r9d, %%r9d\n\txor %%r10d, %%r10d\n\t"
		"xor %%r11d, %%r11d\n\tpxor %%xmm0, %%xmm0\n\tpxor %%xmm7, %%xmm7\n\tpxor %%xmm15, "
		"%%xmm15\n\t"
		"fninit\n\tfldpi\n\tfldl2e\n\tfldz"
		:
		:
		: "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "xmm0", "xmm7",
		  "xmm15", "memory", "cc", "st", "st(1)", "st(2)");
}

/*
 * Holds a pattern in 13 general registers, three vector registers and the carry flag through a loop
 * of `n` steps; returns a sum over all of them, which does not depend on n.
 */
uint64_t hold_registers(uint64_t pattern, uint64_t n);
asm(".text\n.globl hold_registers\nhold_registers:\n"
    "	push %rbx\n	push %rbp\n	push %r12\n	push %r13\n	push %r14\n	push %r15\n"
    "	lea 1(%rdi), %rax\n	lea 2(%rdi), %rbx\n	lea 3(%rdi), %rcx\n	lea 4(%rdi), %rdx\n"
    "	lea 5(%rdi), %rbp\n	lea 6(%rdi), %r8\n	lea 7(%rdi), %r9\n	lea 8(%rdi), %r10\n"
    "	lea 9(%rdi), %r11\n	lea 10(%rdi), %r12\n	lea 11(%rdi), %r13\n	lea 12(%rdi), "
    "%r14\n"
    "	lea 13(%rdi), %r15\n"
    "	movq %rdi, %xmm0\n	movq %rax, %xmm7\n	movq %rbx, %xmm15\n"
    "	stc\n"
    "1:	jnc 2f\n"
    "	lea -1(%rsi), %rsi\n" /* lea and jrcxz-like tests keep the carry */
    "	xchg %rcx, %rsi\n	jrcxz 3f\n	xchg %rcx, %rsi\n"
    "	jmp 1b\n"
    "2:	xor %eax, %eax\n	jmp 4f\n" /* the carry was lost */
    "3:	xchg %rcx, %rsi\n"
    "	add %rbx, %rax\n	add %rcx, %rax\n	add %rdx, %rax\n	add %rdi, "
    "%rax\n	add %rbp, %rax\n"
    "	add %r8, %rax\n	add %r9, %rax\n	add %r10, %rax\n	add %r11, %rax\n	add %r12, "
    "%rax\n"
    "	add %r13, %rax\n	add %r14, %rax\n	add %r15, %rax\n"
    "	movq %xmm0, %rcx\n	add %rcx, %rax\n	movq %xmm7, %rcx\n	add %rcx, %rax\n"
    "	movq %xmm15, %rcx\n	add %rcx, %rax\n"
    "4:	pop %r15\n	pop %r14\n	pop %r13\n	pop %r12\n	pop %rbp\n	pop "
    "%rbx\n	ret\n");

static void timer_worker(struct run *r, unsigned index, void *arg)
{
	struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
	struct itimerspec every = {{0, 700000 + 50000 * index}, {0, 700000}};
	uint64_t pattern = 0x0123456789abcdef * (index + 1);
	timer_t timer;

	(void)arg;
	event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
	if (timer_create(CLOCK_MONOTONIC, &event, &timer) ||
	    timer_settime(timer, 0, &every, NULL)) {
		wrong(r, "no timer: %s", strerror(errno));
		return;
	}
	while (going(r)) {
		uint64_t got = hold_registers(pattern, 20000);
		/* 14 general registers with 1..13 added, and three vector registers with 0, 1, 2 */
		uint64_t should = 17 * pattern + 91 + 3;

		if (got != should)
			wrong(r, "registers changed under a signal: sum %#lx instead of %#lx", got,
			      should);
		checked(r, 1);
		pattern = pattern * 5 + 3;
	}
	timer_delete(timer);
}

void stress_timer_signals(struct run *r)
{
	struct sigaction action = {.sa_handler = on_timer, .sa_flags = SA_RESTART};

	atomic_store(&handled, 0);
	sigaction(SIGUSR1, &action, NULL);
	in_parallel(r, r->threads, timer_worker, NULL);
	if (!handled)
		wrong(r, "no timer signal came");
}

/* Each thread queues numbered real-time signals to its neighbour. */
static struct box {
	_Atomic pid_t tid;
	_Atomic uint64_t sum, count;
	uint64_t sent, sent_sum;
	_Atomic int last;
} __attribute__((aligned(64))) boxes[64];
static _Thread_local unsigned own;
static _Atomic unsigned disorder;

static void on_queued(int sig, siginfo_t *info, void *context)
{
	struct box *b = &boxes[own];
	int value = info->si_value.sival_int;

	(void)sig;
	(void)context;
	if (value != atomic_load(&b->last) + 1)
		atomic_fetch_add(&disorder, 1);
	atomic_store(&b->last, value);
	atomic_fetch_add(&b->sum, (unsigned)value);
	atomic_fetch_add(&b->count, 1);
}

static struct meeting ready;

static void queue_worker(struct run *r, unsigned index, void *arg)
{
	struct box *to = &boxes[(index + 1) % r->threads], *mine = &boxes[index];
	unsigned spins = 0;

	(void)arg;
	own = index;
	atomic_store(&mine->tid, (pid_t)syscall(SYS_gettid));
	meet(&ready);
	while (going(r)) {
		siginfo_t info = {.si_code = SI_QUEUE};

		info.si_value.sival_int = (int)to->sent + 1;
		if (syscall(SYS_rt_tgsigqueueinfo, getpid(), to->tid, SIGRTMIN + 1, &info) == 0) {
			to->sent++;
			to->sent_sum += to->sent;
		} else if (errno == EAGAIN) {
			sched_yield(); /* the receiver's queue is full */
		} else {
			wrong(r, "tgsigqueueinfo: %s", strerror(errno));
		}
	}
	/* All that was sent to this thread arrives while it waits here for the others. */
	meet(&ready);
	for (double end = now() + 30; atomic_load(&mine->count) < mine->sent && now() < end;)
		pause_cpu(&spins);
	meet(&ready);
}

void stress_queued_signals(struct run *r)
{
	struct sigaction action = {.sa_sigaction = on_queued, .sa_flags = SA_RESTART | SA_SIGINFO};

	memset(boxes, 0, sizeof(boxes));
	atomic_store(&disorder, 0);
	ready = (struct meeting){.n = r->threads};
	sigaction(SIGRTMIN + 1, &action, NULL);
	in_parallel(r, r->threads, queue_worker, NULL);
	for (unsigned i = 0; i < r->threads; i++) {
		if (boxes[i].count != boxes[i].sent || boxes[i].sum != boxes[i].sent_sum)
			wrong(r, "%lu signals sent, %lu arrived", boxes[i].sent, boxes[i].count);
		checked(r, boxes[i].sent);
	}
	if (disorder)
		wrong(r, "%u signals came out of order", disorder);
}
