/* Guest memory that came page by page is made of huge pages again, on a thread of its own. */
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "migration/clock.h"
#include "migration/thread.h"
#include "vmm/memory.h"
#include "vmm/memory_missing.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

enum {
	PAGES = 512, /* of a huge page */
	PAGE = 4096,
	ENOUGH = PAGES / 2, /* pages that are there: else it would take up more than it saves */
	BREAK = 9	    /* times as long as the work */
};

struct memory_gather {
	pthread_t thread;
	int end_fd; /* readable: it is over */
	uint8_t *host;
	uint64_t size;
	int delay_ms;
};

static bool worth(uint8_t *at)
{
	unsigned char here[PAGES];
	unsigned count = 0;

	if (mincore(at, (size_t)PAGES * PAGE, here))
		return false;
	for (unsigned i = 0; i < PAGES; i++)
		count += here[i] & 1;
	return count >= ENOUGH;
}

/* Others that meet a page for the first time may wait for each piece: 0.3 ms, or 10 where the host
 * must be given its memory first. */
static void *gather_main(void *arg)
{
	const struct memory_gather *g = arg;
	struct pollfd end = {.fd = g->end_fd, .events = POLLIN};

	pthread_setname_np(pthread_self(), "huge pages");
	if (poll(&end, 1, g->delay_ms) > 0)
		return NULL;
	for (uint64_t at = 0; at + (uint64_t)PAGES * PAGE <= g->size;
	     at += (uint64_t)PAGES * PAGE) {
		const uint64_t begun = clock_now();
		uint64_t took;

		/* What cannot be had now is left to khugepaged. */
		if (worth(g->host + at))
			(void)madvise(g->host + at, (size_t)PAGES * PAGE, MADV_COLLAPSE);
		took = clock_now() - begun;
		if (poll(&end, 1, (int)(took * BREAK / 1000000)) > 0)
			break;
	}
	return NULL;
}

void memory_gather(struct guest_memory *mem, int delay_ms)
{
	struct memory_gather *g;

	if (mem->gather || mem->hugepages)
		return;
	g = malloc(sizeof(*g));
	if (!g)
		return;
	*g = (struct memory_gather){.end_fd = eventfd(0, EFD_CLOEXEC),
				    .host = mem->host,
				    .size = mem->size,
				    .delay_ms = delay_ms};
	if (g->end_fd >= 0 && !thread_start(&g->thread, gather_main, g)) {
		mem->gather = g;
		return;
	}
	if (g->end_fd >= 0)
		close(g->end_fd);
	free(g);
}

void memory_gather_end(struct guest_memory *mem)
{
	struct memory_gather *g = mem->gather;
	const uint64_t one = 1;

	if (!g)
		return;
	(void)!write(g->end_fd, &one, sizeof(one));
	pthread_join(g->thread, NULL);
	close(g->end_fd);
	free(g);
	mem->gather = NULL;
}
