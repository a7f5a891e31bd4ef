/* A debugger's work: single steps through known code, breakpoints written into it, watchpoints. */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "stress.h"

/* The traced program: stops itself, then runs `stepped` for ever. Its length in steps is known. */
void stepped(void);
extern char stepped_loop[], stepped_break[], stepped_end[];
asm(".text\n.globl stepped, stepped_loop, stepped_break, stepped_end\n"
    "stepped:\n"
    "stepped_loop:\n"
    "	mov $39, %eax\n" /* getpid: a step over a system call */
    "	syscall\n"
    "	pushfq\n	pop %rax\n"
    "	mov $3, %ecx\n	lea traced_buffer(%rip), %rdi\n	mov $0x77, %al\n"
    "	rep stosb\n" /* one step per byte, or fewer on the last */
    "	xor %edx, %edx\n"
    "stepped_break:\n"
    "	inc %rdx\n"
    "	incq traced_word(%rip)\n"
    "	jmp stepped_loop\n"
    "stepped_end:\n");

uint64_t traced_word;
char traced_buffer[8];

static void child(void)
{
	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	raise(SIGSTOP);
	stepped();
	_exit(0);
}

static bool stopped(pid_t pid, int sig)
{
	int status;

	return waitpid(pid, &status, 0) == pid && WIFSTOPPED(status) && WSTOPSIG(status) == sig;
}

static bool resume(struct run *r, pid_t pid, int request)
{
	if (ptrace(request, pid, NULL, NULL) || !stopped(pid, SIGTRAP)) {
		wrong(r, "the traced program did not stop with SIGTRAP");
		return false;
	}
	return true;
}

/* Steps one turn of the loop and returns how many steps it took; 0 on errors. */
static unsigned step_turn(struct run *r, pid_t pid)
{
	struct user_regs_struct regs;
	unsigned steps = 0;

	do {
		if (!resume(r, pid, PTRACE_SINGLESTEP) || ptrace(PTRACE_GETREGS, pid, NULL, &regs))
			return 0;
		if (regs.rip < (uintptr_t)stepped || regs.rip >= (uintptr_t)stepped_end) {
			wrong(r, "a step ended at %#llx", regs.rip);
			return 0;
		}
		checked(r, 1);
	} while (++steps < 100 && regs.rip != (uintptr_t)stepped_loop);
	return steps;
}

static bool breakpoint(struct run *r, pid_t pid)
{
	struct user_regs_struct regs;
	long old = ptrace(PTRACE_PEEKTEXT, pid, stepped_break, NULL);
	long count;

	ptrace(PTRACE_POKETEXT, pid, stepped_break, (old & ~0xffl) | 0xcc);
	count = ptrace(PTRACE_PEEKDATA, pid, &traced_word, NULL);
	for (unsigned k = 0; k < 3; k++) {
		if (!resume(r, pid, PTRACE_CONT) || ptrace(PTRACE_GETREGS, pid, NULL, &regs))
			return false;
		if (regs.rip != (uintptr_t)stepped_break + 1 || regs.rdx != 0) {
			wrong(r, "breakpoint hit at %#llx, not %p", regs.rip, stepped_break + 1);
			return false;
		}
		/* Over it: the old byte back, one step, the breakpoint again. */
		regs.rip--;
		ptrace(PTRACE_SETREGS, pid, NULL, &regs);
		ptrace(PTRACE_POKETEXT, pid, stepped_break, old);
		if (!resume(r, pid, PTRACE_SINGLESTEP) || ptrace(PTRACE_GETREGS, pid, NULL, &regs))
			return false;
		if (regs.rdx != 1)
			wrong(r, "the instruction under a breakpoint did not run (rdx %llu)",
			      regs.rdx);
		if (k < 2)
			ptrace(PTRACE_POKETEXT, pid, stepped_break, (old & ~0xffl) | 0xcc);
	}
	if (ptrace(PTRACE_PEEKDATA, pid, &traced_word, NULL) != count + 2)
		wrong(r, "the loop between breakpoints did not run once each");
	checked(r, 3);
	return true;
}

static long debug_register(int n)
{
	return (long)(offsetof(struct user, u_debugreg) + (unsigned)n * sizeof(long));
}

/* A data watchpoint on writes to traced_word: stops after the instruction that wrote. */
static bool watchpoint(struct run *r, pid_t pid)
{
	struct user_regs_struct regs;
	long count = ptrace(PTRACE_PEEKDATA, pid, &traced_word, NULL), dr6;

	errno = 0;
	if (ptrace(PTRACE_POKEUSER, pid, debug_register(0), &traced_word) ||
	    ptrace(PTRACE_POKEUSER, pid, debug_register(7), 1l | 1l << 16 | 2l << 18)) {
		wrong(r, "no debug registers: %s", strerror(errno));
		return false;
	}
	for (unsigned k = 0; k < 3; k++) {
		if (!resume(r, pid, PTRACE_CONT) || ptrace(PTRACE_GETREGS, pid, NULL, &regs))
			return false;
		dr6 = ptrace(PTRACE_PEEKUSER, pid, debug_register(6), NULL);
		if (!(dr6 & 1) || ptrace(PTRACE_PEEKDATA, pid, &traced_word, NULL) != ++count)
			wrong(r, "watchpoint: dr6 %#lx at %#llx", dr6, regs.rip);
	}
	ptrace(PTRACE_POKEUSER, pid, debug_register(7), 0);
	checked(r, 3);
	return true;
}

static void worker(struct run *r, unsigned index, void *arg)
{
	(void)index;
	(void)arg;
	while (going(r)) {
		pid_t pid = fork();
		unsigned turn;

		if (pid == 0)
			child();
		if (pid < 0 || !stopped(pid, SIGSTOP)) {
			wrong(r, "no traced child");
			return;
		}
		if (breakpoint(r, pid) && watchpoint(r, pid) && step_turn(r, pid)) {
			turn = step_turn(r, pid);
			/* 11 instructions and three rounds of rep stosb */
			if (turn != 14)
				wrong(r, "one turn took %u steps instead of 14", turn);
		}
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
}

void stress_ptrace(struct run *r)
{
	in_parallel(r, r->threads, worker, NULL);
}
