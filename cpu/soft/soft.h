/*
 * The soft engine: one Unicorn engine and one host thread per vCPU, all on the same guest memory.
 * Private to cpu/soft.
 *
 * Two things are cached by a vCPU and must be taken back when another one needs the page:
 * translated code, and the permission to write without asking. coherence.c keeps who holds what,
 * page by page, as a cache-coherence protocol does: either any number of holders of code, or any
 * number of writers, or one vCPU that holds both.
 */
#ifndef CPU_SOFT_SOFT_H
#define CPU_SOFT_SOFT_H

#include <pthread.h>
#include <stdatomic.h>

#include <unicorn/unicorn.h>
#include <unicorn/vcpu.h>

#include "cpu/engine.h"
#include "mmu/missing.h"

enum { SOFT_QUEUE = 512 };

enum claim { CLAIM_CODE, CLAIM_WRITE };

struct soft_request {
	enum claim drop; /* what the vCPU has to give up */
	uint32_t page;	 /* hpa >> 12 */
};

struct soft_vcpu {
	struct engine *engine;
	unsigned index;
	uc_engine *uc;
	struct s2_thread *s2;
	struct s2_tlb_client tlb;

	/* Held by whoever works with `uc`: its own thread while it runs guest code, or another one
	 * that serves the queue for a vCPU that sleeps. */
	pthread_mutex_t own;
	pthread_mutex_t queue_lock;
	struct soft_request queue[SOFT_QUEUE]; /* under queue_lock, as are the next three */
	unsigned queued;
	bool overflow; /* more was asked than fits: give up everything */
	bool flush;    /* the second stage has changed */
	uint64_t flush_generation;
	_Atomic uint32_t posted, served; /* sequence numbers of requests; served is a futex word */

	_Atomic uint32_t doorbell; /* futex word: changes with everything that ends a HLT */
	_Atomic bool sleeping, kicked;

	/* Why translate said FAULT; read by the same thread after the exit. */
	struct {
		bool valid;
		enum claim want;
		uint32_t page;
	} conflict;
	uint32_t last_page, repeats; /* conflicts over one page in a row */
	bool retry;		     /* the second stage lost a race: just run again */
	bool missing;		     /* this page is not here yet */
	uint64_t missing_gpa;
	struct s2_page_waiter page;
	const char *failure;
	_Atomic uint64_t counters[COUNT_NR];
	_Atomic uint64_t begun; /* its first instruction; ns, 0: none yet */
};

struct engine {
	struct engine_config config;
	struct soft_vcpu *vcpu[CPU_MAX];
	/* Page states: bits 7:0 vCPUs that hold code, 15:8 vCPUs that may write. */
	_Atomic uint16_t *pages;
	pthread_mutex_t exclusive_lock;
	_Atomic uint32_t exclusive; /* 1 + index of the vCPU that runs alone, 0: none; futex word */
};

static inline void soft_count(struct soft_vcpu *v, enum engine_counter c)
{
	/* Only this thread writes: no locked instruction. */
	atomic_store_explicit(&v->counters[c],
			      atomic_load_explicit(&v->counters[c], memory_order_relaxed) + 1,
			      memory_order_relaxed);
}

/* ---- coherence.c ---- */

/* Takes the page for this vCPU; returns 0 when taken, else the mask of the vCPUs that must give up
 * first. */
uint32_t soft_claim(struct soft_vcpu *v, uint32_t page, enum claim want);
/* As soft_claim, but makes the others give up, and waits. Own thread, `own` not held unless
 * exclusive. */
void soft_claim_wait(struct soft_vcpu *v, uint32_t page, enum claim want);
/* Does what others have asked for. `own` is held. */
void soft_serve(struct soft_vcpu *v);
/* Drops the code of [hpa, hpa+len) in every vCPU. Any thread that holds no `own`. */
void soft_written(struct engine *e, uint64_t hpa, uint64_t len);
void soft_tlb_invalidate(void *opaque, uint64_t start, uint64_t end, uint64_t generation);
void soft_tlb_wait(void *opaque, uint64_t generation);
void soft_own_lock(struct soft_vcpu *v);
void soft_own_unlock(struct soft_vcpu *v);
/* The others are stopped between two blocks; own thread, `own` not held. */
void soft_exclusive_begin(struct soft_vcpu *v);
void soft_exclusive_end(struct soft_vcpu *v);
void soft_futex_wait(_Atomic uint32_t *word, uint32_t value);
void soft_futex_wake(_Atomic uint32_t *word);

/* ---- bus.c: the callbacks that the engine is given ---- */
extern const uc_vcpu_ops soft_vcpu_ops;

/* ---- convert.c: canonical state <-> Unicorn's ---- */
void soft_state_from_uc(struct x86_state *to, const uc_x86_vcpu_state *from);
void soft_state_to_uc(uc_x86_vcpu_state *to, const struct x86_state *from);

#endif
