/* Description: shrinking finds the few steps of a long list that make it fail, whatever way. */
#include <stdlib.h>

#include "tests/unit/check.h"
#include "tests/unit/test_shrink.h"

enum { LONG = 1000 };

static bool has(const size_t *step, size_t n, size_t what)
{
	for (size_t i = 0; i < n; i++) {
		if (step[i] == what)
			return true;
	}
	return false;
}

static bool one(void *opaque, const size_t *step, size_t n)
{
	(void)opaque;
	return has(step, n, 617);
}

/* far apart, and not both last in a half */
static bool three(void *opaque, const size_t *step, size_t n)
{
	(void)opaque;
	return has(step, n, 3) && has(step, n, 500) && has(step, n, 999);
}

/* A step that only counts when there are two like it: leaving out one more makes it pass. */
static bool even(void *opaque, const size_t *step, size_t n)
{
	size_t count = 0;

	(void)opaque;
	for (size_t i = 0; i < n; i++)
		count += step[i] % 100 == 7;
	return count && count % 2 == 0;
}

static bool crashes(void *opaque, const size_t *step, size_t n)
{
	(void)opaque;
	if (has(step, n, 40) && has(step, n, 41))
		_exit(42);
	return false;
}

static bool says(void *opaque, const size_t *step, size_t n)
{
	(void)step;
	*(int *)opaque = 1; /* in the child only */
	printf("this must not be seen\n");
	return n > 2;
}

static bool hangs(void *opaque, const size_t *step, size_t n)
{
	(void)opaque;
	while (has(step, n, 5))
		pause();
	return false;
}

static size_t shrunk(bool (*fails)(void *, const size_t *, size_t), void *opaque, size_t *step,
		     size_t n, unsigned seconds)
{
	struct shrink s = {.fails = fails, .opaque = opaque, .seconds = seconds};

	for (size_t i = 0; i < n; i++)
		step[i] = i;
	n = shrink_list(&s, step, n);
	CHECK(s.tries < 400);
	return n;
}

int main(void)
{
	size_t step[LONG];
	int here = 0;

	CHECK(shrunk(one, NULL, step, LONG, 60) == 1 && step[0] == 617);
	CHECK(shrunk(three, NULL, step, LONG, 60) == 3);
	CHECK(step[0] == 3 && step[1] == 500 && step[2] == 999);
	CHECK(shrunk(even, NULL, step, LONG, 60) == 2 && even(NULL, step, 2));
	CHECK(shrunk(crashes, NULL, step, 100, 60) == 2 && step[0] == 40 && step[1] == 41);
	CHECK(shrunk(says, &here, step, 20, 60) == 3 && !here);
	/* one that hangs fails when its time is up; then it is up for all */
	CHECK(shrunk(hangs, NULL, step, 10, 1) >= 1 && has(step, 10, 5));
	CHECK(shrunk(one, NULL, step, 0, 60) == 0);
	printf("shrink: fine\n");
	return 0;
}
