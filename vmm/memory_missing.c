/* Guest memory that is not here yet: bringing it, and devices that wait for it. */
#include "vmm/memory_missing.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "vmm/memory.h"

/* One device, and the page it waits for. */
struct memory_wait {
	struct s2_page_waiter page;
	struct guest_memory *mem;
	struct dma_waiter *waiter;
	atomic_bool arrived;
	unsigned round; /* of memory_arrived, in which it began */
	struct memory_wait *next;
};

static void wake(struct s2_page_waiter *page)
{
	/* the first member */
	struct memory_wait *wait = (struct memory_wait *)page;
	struct guest_memory *mem = wait->mem;

	atomic_store(&wait->arrived, true);
	if (mem->arrived)
		mem->arrived(mem->arrived_opaque);
}

void memory_wait(void *opaque, struct dma_waiter *waiter)
{
	struct guest_memory *mem = opaque;
	struct memory_wait *wait;

	if (waiter->waiting)
		return;
	waiter->waiting = true;
	wait = calloc(1, sizeof(*wait));
	if (!wait) {
		/* It asks again at once: slow, and right. */
		waiter->waiting = false;
		waiter->ready(waiter);
		return;
	}
	wait->page.wake = wake;
	wait->mem = mem;
	wait->waiter = waiter;
	wait->round = mem->wait_round;
	wait->next = mem->waits;
	mem->waits = wait;
	if (!s2_page_wait(mem->vmm, mem->missing_gpa, &wait->page))
		wake(&wait->page);
}

static void end(struct memory_wait **link)
{
	struct memory_wait *wait = *link;

	*link = wait->next;
	s2_page_wait_end(wait->mem->vmm, &wait->page);
	wait->waiter->waiting = false;
	free(wait);
}

void memory_wait_not(void *opaque, struct dma_waiter *waiter)
{
	struct guest_memory *mem = opaque;
	struct memory_wait **link = &mem->waits;

	while (*link && (*link)->waiter != waiter)
		link = &(*link)->next;
	if (*link)
		end(link);
}

void memory_arrived(struct guest_memory *mem)
{
	const unsigned round = ++mem->wait_round;
	struct memory_wait **link = &mem->waits;

	while (*link) {
		struct dma_waiter *waiter = (*link)->waiter;

		/* Who waits again belongs to the next time. */
		if ((*link)->round == round || !atomic_load(&(*link)->arrived)) {
			link = &(*link)->next;
			continue;
		}
		end(link);
		waiter->ready(waiter);
		link = &mem->waits; /* it may have given up another's wait */
	}
}

int memory_missing_start(struct guest_memory *mem, const struct s2_missing_ops *ops)
{
	int ret = s2_missing_start(mem->vmm, ops);

	if (!ret)
		mem->incomplete = true;
	return ret;
}

int memory_missing_stop(struct guest_memory *mem)
{
	int ret = s2_missing_stop(mem->vmm);

	if (ret)
		return ret;
	mem->incomplete = false;
	memory_arrived(mem);
	return 0;
}

void memory_allow_huge(struct guest_memory *mem, bool allow)
{
	/* Of a kernel without them it fails, and nothing is lost. */
	if (!mem->hugepages)
		(void)madvise(mem->host, mem->size, allow ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

struct bring {
	struct guest_memory *mem;
	const uint8_t *data;
	uint64_t gpa;
	bool give; /* zeroes cost no memory */
};

static int fill(void *opaque, uint64_t gpa, uint64_t hpa, uint64_t bytes)
{
	const struct bring *b = opaque;

	if (b->data)
		memcpy(b->mem->host + hpa, b->data + (gpa - b->gpa), bytes);
	else if (!b->give || memory_punch(b->mem, hpa, bytes))
		memset(b->mem->host + hpa, 0, bytes);
	return 0;
}

static int leave(void *opaque, uint64_t gpa, uint64_t hpa, uint64_t bytes)
{
	(void)opaque;
	(void)gpa;
	(void)hpa;
	(void)bytes;
	return 0;
}

int64_t memory_bring_untouched(struct guest_memory *mem, struct s2_thread *t, uint64_t gpa,
			       uint64_t len)
{
	const uint64_t page = s2_level_size(mem->s2, 1);

	return len % page ? -EINVAL : s2_receive(t, gpa, len / page, leave, NULL);
}

int64_t memory_bring(struct guest_memory *mem, struct s2_thread *t, uint64_t gpa, const void *data,
		     uint64_t len)
{
	struct bring b = {.mem = mem,
			  .data = data,
			  .gpa = gpa,
			  .give = !data && memory_worth_giving(mem, len)};
	const uint64_t page = s2_level_size(mem->s2, 1);

	if (len % page)
		return -EINVAL;
	return s2_receive(t, gpa, len / page, fill, &b);
}
