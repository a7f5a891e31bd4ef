#include "mmu/tlb.h"

#include <sched.h>
#include <stdatomic.h>
#include <time.h>

void tlb_init(struct tlb *tlb)
{
	pthread_mutex_init(&tlb->mutex, NULL);
	tlb->clients = NULL;
	tlb->generation = 0;
	tlb->coarse = 0;
}

void tlb_destroy(struct tlb *tlb)
{
	pthread_mutex_destroy(&tlb->mutex);
}

void tlb_add(struct tlb *tlb, struct s2_tlb_client *client)
{
	pthread_mutex_lock(&tlb->mutex);
	atomic_store(&client->acked, tlb->generation); /* it starts empty */
	atomic_store(&client->waiters, 0);
	client->next = tlb->clients;
	tlb->clients = client;
	pthread_mutex_unlock(&tlb->mutex);
}

void tlb_remove(struct tlb *tlb, struct s2_tlb_client *client)
{
	struct s2_tlb_client **link = &tlb->clients;

	pthread_mutex_lock(&tlb->mutex);
	while (*link && *link != client)
		link = &(*link)->next;
	if (*link)
		*link = client->next;
	pthread_mutex_unlock(&tlb->mutex);
	/* Whoever goes away has forgotten everything; those who wait for it must have left before
	 * its memory may go. */
	atomic_store(&client->acked, UINT64_MAX);
	while (atomic_load(&client->waiters))
		sched_yield();
}

void s2_tlb_ack(struct s2_tlb_client *client, uint64_t generation)
{
	uint64_t acked = atomic_load(&client->acked);

	while (acked < generation &&
	       !atomic_compare_exchange_weak(&client->acked, &acked, generation))
		;
}

bool s2_tlb_acked(struct s2_tlb_client *client, uint64_t generation)
{
	return atomic_load(&client->acked) >= generation;
}

static void poll_acked(struct s2_tlb_client *client, uint64_t generation)
{
	for (unsigned spins = 0; !s2_tlb_acked(client, generation); spins++) {
		if (spins < 100)
			sched_yield();
		else
			nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
	}
}

/* A client that has not acknowledged yet, pinned by its count of waiters. tagged: of those only
 * that hold tagged translations, since others have not been told. */
static struct s2_tlb_client *pin_pending(struct tlb *tlb, uint64_t generation, bool tagged)
{
	struct s2_tlb_client *client;

	pthread_mutex_lock(&tlb->mutex);
	for (client = tlb->clients; client; client = client->next) {
		if (!s2_tlb_acked(client, generation) && (!tagged || client->invalidate_tag)) {
			atomic_fetch_add(&client->waiters, 1);
			break;
		}
	}
	pthread_mutex_unlock(&tlb->mutex);
	return client;
}

static void wait_all(struct tlb *tlb, uint64_t generation, bool tagged)
{
	struct s2_tlb_client *client;

	while ((client = pin_pending(tlb, generation, tagged))) {
		if (client->wait)
			client->wait(client->opaque, generation);
		/* A wait that came back early must not become a busy loop under the mutex. */
		if (!client->wait || !s2_tlb_acked(client, generation))
			poll_acked(client, generation);
		atomic_fetch_sub(&client->waiters, 1);
	}
}

uint64_t tlb_post(struct tlb *tlb, uint64_t start, uint64_t end)
{
	struct s2_tlb_client *client;
	uint64_t generation;

	pthread_mutex_lock(&tlb->mutex);
	generation = ++tlb->generation;
	for (client = tlb->clients; client; client = client->next) {
		client->invalidate(client->opaque, start, end, generation);
		tlb->coarse += client->coarse;
	}
	pthread_mutex_unlock(&tlb->mutex);
	return generation;
}

void tlb_wait(struct tlb *tlb, uint64_t generation)
{
	wait_all(tlb, generation, false);
}

uint64_t tlb_post_tag(struct tlb *tlb, uint32_t tag, uint64_t start, uint64_t end)
{
	struct s2_tlb_client *client;
	uint64_t generation;

	pthread_mutex_lock(&tlb->mutex);
	generation = ++tlb->generation;
	for (client = tlb->clients; client; client = client->next) {
		if (client->invalidate_tag)
			client->invalidate_tag(client->opaque, tag, start, end, generation);
	}
	pthread_mutex_unlock(&tlb->mutex);
	return generation;
}

void tlb_wait_tag(struct tlb *tlb, uint64_t generation)
{
	wait_all(tlb, generation, true);
}
