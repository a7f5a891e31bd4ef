/*
 * The TLB clients of one instance. Each invalidation has a generation; the mutex makes generations
 * reach every client in increasing order, so that acknowledging one acknowledges all before it.
 */
#ifndef MMU_TLB_H
#define MMU_TLB_H

#include <pthread.h>
#include <stdint.h>

#include "mmu/second_stage.h"

struct tlb {
	pthread_mutex_t mutex; /* list of clients, generation, order of invalidate callbacks */
	struct s2_tlb_client *clients;
	uint64_t generation;
	_Atomic uint64_t coarse; /* ranges for which a client dropped everything */
};

void tlb_init(struct tlb *tlb);
void tlb_destroy(struct tlb *tlb);
void tlb_add(struct tlb *tlb, struct s2_tlb_client *client);
void tlb_remove(struct tlb *tlb, struct s2_tlb_client *client);

/* Tells every client to forget [start, end); waits until all have acknowledged what was posted up
 * to a generation. No lock of the core and no RCU read section is held by the caller. */
uint64_t tlb_post(struct tlb *tlb, uint64_t start, uint64_t end);
void tlb_wait(struct tlb *tlb, uint64_t generation);

/* The same for what clients hold under a tag: only those that hold such are told and waited for. */
uint64_t tlb_post_tag(struct tlb *tlb, uint32_t tag, uint64_t start, uint64_t end);
void tlb_wait_tag(struct tlb *tlb, uint64_t generation);

#endif
