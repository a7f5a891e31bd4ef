/* fork, exec and their page tables: a child has its own copy of everything, a new program only its
 * own. */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "stress.h"

enum { PAGE = 4096, PAGES = 32 };

static int exit_code(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

/* The child: each page still holds the parent's value at the time of fork; then it writes its own.
 */
static int child_check(volatile uint32_t *area, uint32_t value)
{
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned page = 0; page < PAGES; page++)
			if (area[page * PAGE / 4] != value + page)
				return 100 + (int)round;
		value += 1000;
		for (unsigned page = 0; page < PAGES; page++)
			area[page * PAGE / 4] = value + page;
	}
	return 42;
}

static void fork_worker(struct run *r, unsigned index, void *arg)
{
	volatile uint32_t *area = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint32_t value = index << 20;

	(void)arg;
	while (going(r)) {
		pid_t children[3];

		for (unsigned k = 0; k < 3; k++) {
			/* While the copies of older children still share the pages. */
			value += 7;
			for (unsigned page = 0; page < PAGES; page++)
				area[page * PAGE / 4] = value + page;
			children[k] = fork();
			if (children[k] == 0)
				_exit(child_check(area, value));
			if (children[k] < 0)
				wrong(r, "fork failed");
		}
		for (unsigned k = 0; k < 3; k++) {
			int code = exit_code(children[k]);

			if (code != 42)
				wrong(r, "a child ended with %d", code);
		}
		for (unsigned page = 0; page < PAGES; page++)
			if (area[page * PAGE / 4] != value + page)
				wrong(r, "the parent's page %u was changed by a child", page);
		checked(r, 3 * PAGES);
	}
	munmap((void *)area, PAGES * PAGE);
}

void stress_fork(struct run *r)
{
	in_parallel(r, r->threads, fork_worker, NULL);
}

/* smpstress --child A B: what a fresh program sees. */
int stress_exec_child(int argc, char **argv)
{
	static uint32_t zeroes[3 * PAGE / 4];
	uint32_t *heap = malloc(64 * 1024);

	if (argc != 4 || !heap)
		return 1;
	for (size_t i = 0; i < sizeof(zeroes) / 4; i++)
		if (zeroes[i])
			return 2;
	memset(heap, 0x5a, 64 * 1024);
	return (atoi(argv[2]) * 31 + atoi(argv[3])) % 200 + 10;
}

extern char **environ;

static void exec_worker(struct run *r, unsigned index, void *arg)
{
	const char *program = arg;

	for (unsigned n = index; going(r); n += 13) {
		char a[16], b[16];
		int should = (int)((n % 1000) * 31 + index) % 200 + 10, code;
		pid_t pid;

		snprintf(a, sizeof(a), "%u", n % 1000);
		snprintf(b, sizeof(b), "%u", index);
		char *argv[] = {(char *)program, program == self_path ? "--child" : a,
				program == self_path ? a : b, program == self_path ? b : NULL,
				NULL};
		if (n % 2) {
			pid = fork();
			if (pid == 0) {
				execv(program, argv);
				_exit(1);
			}
		} else if (posix_spawn(&pid, program, NULL, NULL, argv, environ)) {
			wrong(r, "posix_spawn failed");
			return;
		}
		code = exit_code(pid);
		if (code != should)
			wrong(r, "%s ended with %d instead of %d", program, code, should);
		checked(r, 1);
	}
}

void stress_exec(struct run *r)
{
	in_parallel(r, r->threads, exec_worker, (void *)self_path);
}

/* A 32-bit program without any library lies beside this one. */
void stress_user32(struct run *r)
{
	static char path[512];
	const char *slash = strrchr(self_path, '/');

	snprintf(path, sizeof(path), "%.*suser32", slash ? (int)(slash - self_path + 1) : 0,
		 self_path);
	if (access(path, X_OK)) {
		wrong(r, "%s is not there", path);
		return;
	}
	in_parallel(r, r->threads, exec_worker, path);
}
