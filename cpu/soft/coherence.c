#include "cpu/soft/soft.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CODE_SHIFT = 0, WRITE_SHIFT = 8, MASK = 0xff, SPINS = 2000, ROUNDS = 2 };

void soft_futex_wait(_Atomic uint32_t *word, uint32_t value)
{
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

void soft_futex_wake(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 0x7fffffff, NULL, NULL, 0);
}

uint32_t soft_claim(struct soft_vcpu *v, uint32_t page, enum claim want)
{
	_Atomic uint16_t *state = &v->engine->pages[page];
	const uint32_t me = 1u << v->index;
	const int mine = want == CLAIM_CODE ? CODE_SHIFT : WRITE_SHIFT;
	const int theirs = want == CLAIM_CODE ? WRITE_SHIFT : CODE_SHIFT;
	const bool control = want == CLAIM_CODE ? v->engine->config.test_no_remote_flush
						: v->engine->config.test_no_remote_code;
	uint16_t old = atomic_load_explicit(state, memory_order_acquire);

	for (;;) {
		uint32_t others = (old >> theirs) & MASK & ~me;

		if (others && !control)
			return others;
		if ((old >> mine) & me)
			return 0;
		if (atomic_compare_exchange_weak(state, &old, (uint16_t)(old | me << mine)))
			return 0;
	}
}

static uint32_t post(struct soft_vcpu *v, enum claim drop, uint32_t page)
{
	uint32_t sequence;

	pthread_mutex_lock(&v->queue_lock);
	if (v->queued < SOFT_QUEUE)
		v->queue[v->queued++] = (struct soft_request){.drop = drop, .page = page};
	else
		v->overflow = true;
	sequence = atomic_fetch_add(&v->posted, 1) + 1;
	pthread_mutex_unlock(&v->queue_lock);
	uc_vcpu_kick(v->uc);
	return sequence;
}

static void drop(struct soft_vcpu *v, enum claim what, uint32_t page)
{
	const uint64_t hpa = (uint64_t)page << 12;
	const uint32_t me = 1u << v->index;

	/* A dropped translation must not be rebuilt through a TLB entry that may still execute, nor
	 * a dropped write permission be used through one that may still write. */
	uc_vcpu_flush_hpa(v->uc, hpa, 4096);
	if (what == CLAIM_CODE) {
		uc_vcpu_invalidate_code(v->uc, hpa, 4096);
		atomic_fetch_and(&v->engine->pages[page], (uint16_t) ~(me << CODE_SHIFT));
		soft_count(v, COUNT_CODE_DROPS);
	} else {
		atomic_fetch_and(&v->engine->pages[page], (uint16_t) ~(me << WRITE_SHIFT));
		soft_count(v, COUNT_WRITE_DROPS);
	}
}

static void drop_everything(struct soft_vcpu *v)
{
	const uint64_t pages = v->engine->config.memory_size >> 12;

	for (uint64_t page = 0; page < pages; page++) {
		uint16_t state = atomic_load(&v->engine->pages[page]);

		if ((state >> CODE_SHIFT) & (1u << v->index))
			drop(v, CLAIM_CODE, (uint32_t)page);
		if ((state >> WRITE_SHIFT) & (1u << v->index))
			drop(v, CLAIM_WRITE, (uint32_t)page);
	}
}

void soft_serve(struct soft_vcpu *v)
{
	struct soft_request work[SOFT_QUEUE];
	uint32_t sequence;
	uint64_t generation;
	bool overflow, flush;
	unsigned n;

	if (atomic_load(&v->posted) == atomic_load(&v->served))
		return;
	pthread_mutex_lock(&v->queue_lock);
	n = v->queued;
	for (unsigned i = 0; i < n; i++)
		work[i] = v->queue[i];
	overflow = v->overflow;
	flush = v->flush;
	generation = v->flush_generation;
	v->queued = 0;
	v->overflow = v->flush = false;
	sequence = atomic_load(&v->posted);
	pthread_mutex_unlock(&v->queue_lock);

	if (overflow)
		drop_everything(v);
	else
		for (unsigned i = 0; i < n; i++)
			drop(v, work[i].drop, work[i].page);
	if (flush) {
		uc_vcpu_flush_tlb(v->uc);
		s2_tlb_ack(&v->tlb, generation);
	}
	atomic_store(&v->served, sequence);
	soft_futex_wake(&v->served);
}

/* Another vCPU reaches a block boundary soon and serves its queue; one that sleeps is served from
 * here. */
static void wait_served(struct soft_vcpu *v, uint32_t sequence)
{
	for (unsigned spin = 0;; spin++) {
		uint32_t served = atomic_load(&v->served);

		if ((int32_t)(served - sequence) >= 0)
			return;
		if (spin < SPINS) {
			__builtin_ia32_pause();
			continue;
		}
		if (!pthread_mutex_trylock(&v->own)) {
			soft_serve(v);
			soft_own_unlock(v);
			continue;
		}
		/* Who holds `own` serves before it lets go: no wake-up is lost. */
		soft_futex_wait(&v->served, served);
	}
}

void soft_claim_wait(struct soft_vcpu *v, uint32_t page, enum claim want)
{
	const enum claim give_up = want == CLAIM_CODE ? CLAIM_WRITE : CLAIM_CODE;
	const bool alone = atomic_load(&v->engine->exclusive) == v->index + 1;

	/* While the second holder is waited for, the first may have taken the page again, and so on
	 * for ever with three vCPUs or more: give up, and the caller, who faults again, loses its
	 * patience. */
	for (unsigned round = 0; alone || round < ROUNDS; round++) {
		uint32_t others = soft_claim(v, page, want);
		uint32_t sequence[CPU_MAX];

		if (!others)
			return;

		for (unsigned i = 0; i < CPU_MAX; i++)
			if (others & (1u << i))
				sequence[i] = post(v->engine->vcpu[i], give_up, page);
		for (unsigned i = 0; i < CPU_MAX; i++) {
			if (!(others & (1u << i)))
				continue;
			if (alone)
				soft_serve(v->engine->vcpu[i]);
			else
				wait_served(v->engine->vcpu[i], sequence[i]);
		}
	}
}

void soft_written(struct engine *e, uint64_t hpa, uint64_t len)
{
	const uint64_t last = len ? (hpa + len - 1) >> 12 : 0;

	for (uint64_t page = hpa >> 12; len && page <= last; page++) {
		uint32_t holders = atomic_load(&e->pages[page]) >> CODE_SHIFT & MASK;
		uint32_t sequence[CPU_MAX];

		for (unsigned i = 0; i < CPU_MAX; i++)
			if (holders & (1u << i))
				sequence[i] = post(e->vcpu[i], CLAIM_CODE, (uint32_t)page);
		for (unsigned i = 0; i < CPU_MAX; i++)
			if (holders & (1u << i))
				wait_served(e->vcpu[i], sequence[i]);
	}
}

void soft_tlb_invalidate(void *opaque, uint64_t start, uint64_t end, uint64_t generation)
{
	struct soft_vcpu *v = opaque;

	/* The engine's TLB is looked up by virtual address: a range of guest-physical ones is all
	 * of it. */
	(void)start, (void)end;
	pthread_mutex_lock(&v->queue_lock);
	v->flush = true;
	v->flush_generation = generation;
	atomic_fetch_add(&v->posted, 1);
	pthread_mutex_unlock(&v->queue_lock);
	uc_vcpu_kick(v->uc);
}

void soft_tlb_wait(void *opaque, uint64_t generation)
{
	struct soft_vcpu *v = opaque;

	(void)generation; /* whatever is posted by now includes it */
	wait_served(v, atomic_load(&v->posted));
}

void soft_own_lock(struct soft_vcpu *v)
{
	for (;;) {
		uint32_t exclusive;

		while ((exclusive = atomic_load(&v->engine->exclusive)) != 0 &&
		       exclusive != v->index + 1)
			soft_futex_wait(&v->engine->exclusive, exclusive);
		pthread_mutex_lock(&v->own);
		exclusive = atomic_load(&v->engine->exclusive);
		if (!exclusive || exclusive == v->index + 1)
			return;
		pthread_mutex_unlock(&v->own);
	}
}

void soft_own_unlock(struct soft_vcpu *v)
{
	soft_serve(v);
	pthread_mutex_unlock(&v->own);
	/* A request posted since then found `own` held: its poster sleeps and counts on us. */
	while (atomic_load(&v->posted) != atomic_load(&v->served)) {
		if (pthread_mutex_trylock(&v->own))
			return;
		soft_serve(v);
		pthread_mutex_unlock(&v->own);
	}
}

void soft_exclusive_begin(struct soft_vcpu *v)
{
	struct engine *e = v->engine;

	pthread_mutex_lock(&e->exclusive_lock);
	atomic_store(&e->exclusive, v->index + 1);
	for (unsigned i = 0; i < e->config.vcpus; i++) {
		if (i == v->index || !e->vcpu[i])
			continue;
		uc_vcpu_kick(e->vcpu[i]->uc);
		pthread_mutex_lock(&e->vcpu[i]->own);
	}
	soft_count(v, COUNT_EXCLUSIVE);
}

void soft_exclusive_end(struct soft_vcpu *v)
{
	struct engine *e = v->engine;

	atomic_store(&e->exclusive, 0);
	soft_futex_wake(&e->exclusive);
	for (unsigned i = 0; i < e->config.vcpus; i++)
		if (i != v->index && e->vcpu[i])
			soft_own_unlock(e->vcpu[i]);
	pthread_mutex_unlock(&e->exclusive_lock);
}
