/*
 * What a signal that nobody expected looks like: "segmentation fault" alone does not tell a lost
 * mapping from a wrong CR2, or from a bug of this suite. The handler uses neither the C library's
 * buffers nor the thread's own memory, since these may be what was lost.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "stress.h"

enum { AROUND = 1 << 20 };

_Thread_local struct expected_fault *volatile expected_fault;

static const struct run *running;
static struct line {
	char text[512];
	size_t used;
} line;

static void add(const char *s)
{
	while (*s && line.used < sizeof(line.text))
		line.text[line.used++] = *s++;
}

static void add_number(const char *name, uint64_t value)
{
	int shift = 60;

	add(name);
	add("0x");
	while (shift && !(value >> shift))
		shift -= 4;
	for (; shift >= 0; shift -= 4)
		add((char[]){"0123456789abcdef"[value >> shift & 15], 0});
}

static void print_line(void)
{
	add("\n");
	if (write(STDOUT_FILENO, line.text, line.used) < 0)
		_exit(2);
	line.used = 0;
}

/* The start and the end of a line of /proc/self/maps: "start-end ...". */
static void parse_range(const char *s, uint64_t range[2])
{
	for (int i = 0; i < 2; i++, s++)
		for (range[i] = 0; (*s >= '0' && *s <= '9') || (*s >= 'a' && *s <= 'f'); s++)
			range[i] = range[i] << 4 | (uint64_t)(*s <= '9' ? *s - '0' : *s - 'a' + 10);
}

static bool is_near(const uint64_t range[2], uint64_t address)
{
	return address + AROUND >= range[0] && address < range[1] + AROUND;
}

/* The lines of /proc/self/maps that are near one of the addresses. */
static void print_maps(uint64_t a, uint64_t b, uint64_t c)
{
	int file = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	char ch;

	while (file >= 0 && read(file, &ch, 1) == 1) {
		uint64_t range[2];

		if (ch != '\n') {
			add((char[]){ch, 0});
			continue;
		}
		parse_range(line.text, range);
		if (is_near(range, a) || is_near(range, b) || is_near(range, c))
			print_line();
		line.used = 0;
	}
	close(file);
}

static void on_fault(int sig, siginfo_t *info, void *opaque)
{
	const ucontext_t *context = opaque;
	const greg_t *regs = context->uc_mcontext.gregs;
	const bool nested = (uint64_t)regs[REG_RSP] - (uint64_t)context->uc_stack.ss_sp <
			    context->uc_stack.ss_size;
	/* A fault in here: the thread's own memory is gone. */
	struct expected_fault *expected = nested ? NULL : expected_fault;
	static atomic_flag reported;

	if (sig == SIGSEGV && expected && info->si_addr == expected->address) {
		expected_fault = NULL;
		siglongjmp(expected->back, 1);
	}
	if (!atomic_flag_test_and_set(&reported)) {
		add(running ? running->name : "smpstress");
		add_number(": unexpected signal ", (uint64_t)sig);
		add_number(" code ", (uint32_t)info->si_code);
		add_number(" address ", (uint64_t)info->si_addr);
		if (nested)
			add(" in the signal's handler");
		if (expected)
			add_number(", expected was one at ", (uint64_t)expected->address);
		print_line();
		add_number("vector ", (uint64_t)regs[REG_TRAPNO]);
		add_number(" error code ", (uint64_t)regs[REG_ERR]);
		add_number(" cr2 ", (uint64_t)regs[REG_CR2]);
		add_number(" rip ", (uint64_t)regs[REG_RIP]);
		add_number(" rsp ", (uint64_t)regs[REG_RSP]);
		add_number(" thread ", (uint64_t)gettid());
		print_line();
		print_maps((uint64_t)info->si_addr, (uint64_t)regs[REG_RIP],
			   (uint64_t)regs[REG_RSP]);
	}
	/* Once more, for the kernel's own message and the exit code. */
	signal(sig, SIG_DFL);
}

void own_signal_stack(unsigned index)
{
	static _Alignas(64) char stacks[THREADS_MAX + 1][16384];

	sigaltstack(&(stack_t){.ss_sp = stacks[index], .ss_size = sizeof(stacks[0])}, NULL);
}

void report_crashes(const struct run *r)
{
	struct sigaction action = {.sa_sigaction = on_fault,
				   .sa_flags = SA_NODEFER | SA_ONSTACK | SA_SIGINFO};

	running = r;
	own_signal_stack(THREADS_MAX);
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGILL, &action, NULL);
	sigaction(SIGFPE, &action, NULL);
}

/* For the test of the above: a store that nobody expected. */
void stress_crash(struct run *r)
{
	char *gone = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	checked(r, 1);
	gone[0x123] = 1;
}
