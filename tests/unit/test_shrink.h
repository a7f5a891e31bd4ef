/*
 * Shrinking: of a list of steps that fails, a short one that fails, too (delta debugging: pieces
 * are left out, large ones first, as long as the rest fails). Steps are known by their index in the
 * caller's list, so each keeps its own randomness whatever is left out around it.
 *
 * A try runs in a child, so that a crash, a failed assertion and a hang are failures like others.
 */
#ifndef TEST_SHRINK_H
#define TEST_SHRINK_H

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct shrink {
	/* Runs the steps; true: they fail. */
	bool (*fails)(void *opaque, const size_t *step, size_t n);
	void *opaque;
	unsigned seconds; /* for all, and for one try */
	unsigned tries;	  /* result */
};

/* quiet: what it prints is dropped. */
static inline bool shrink_try(struct shrink *s, const size_t *step, size_t n, bool quiet)
{
	int status = 0;
	pid_t pid;

	s->tries++;
	fflush(stdout);
	fflush(stderr);
	pid = fork();
	if (!pid) {
		if (quiet) {
			int null = open("/dev/null", O_WRONLY);

			dup2(null, 1);
			dup2(null, 2);
		}
		alarm(s->seconds);
		status = s->fails(s->opaque, step, n);
		fflush(stdout);
		_exit(status);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid && status;
}

/* step[0..n) fails, and becomes shorter; returns its new length. What is left fails, and (unless
 * time was up) none of its steps can be left out alone. */
static inline size_t shrink_list(struct shrink *s, size_t *step, size_t n)
{
	const time_t end = time(NULL) + s->seconds;
	size_t *rest = malloc((n + 1) * sizeof(*rest)), piece = n, at = 0;
	bool shorter = false;

	while (rest && n && piece && time(NULL) < end) {
		size_t gone = n - at < piece ? n - at : piece;

		memcpy(rest, step, at * sizeof(*step));
		memcpy(rest + at, step + at + gone, (n - at - gone) * sizeof(*step));
		if (gone < n && shrink_try(s, rest, n - gone, true)) {
			n -= gone;
			memcpy(step, rest, n * sizeof(*step));
			shorter = true;
		} else {
			at += gone;
		}
		if (at < n)
			continue;
		/* the same again while single steps go; else smaller pieces */
		at = 0;
		if (piece > 1)
			piece = (piece + 1) / 2;
		else if (!shorter)
			piece = 0;
		shorter = false;
	}
	free(rest);
	return n;
}

#endif
