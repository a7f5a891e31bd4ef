#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/soft/soft.h"

const char *const engine_counter_names[COUNT_NR] = {
	[COUNT_RUNS] = "runs",
	[COUNT_KICKS] = "kicks",
	[COUNT_HALTS] = "halts",
	[COUNT_INTERRUPTS] = "interrupts",
	[COUNT_TRANSLATES] = "translates",
	[COUNT_FAULTS] = "second-stage-faults",
	[COUNT_PAGE_WAITS] = "page-waits",
	[COUNT_MMIO] = "mmio",
	[COUNT_PIO] = "pio",
	[COUNT_MSR] = "msr",
	[COUNT_CODE_DROPS] = "code-drops",
	[COUNT_WRITE_DROPS] = "write-drops",
	[COUNT_EXCLUSIVE] = "exclusive",
};

enum {
	CODE_BUFFER = 128 << 20, /* a boot of a distribution fills 64 MiB twice and more */
	PATIENCE = 8, /* conflicts over one page in a row before the others are stopped */
};

static int soft_probe(char *reason, size_t len)
{
	snprintf(reason, len, "runs everywhere");
	return 0;
}

static void soft_destroy(struct engine *e)
{
	free(e->pages);
	pthread_mutex_destroy(&e->exclusive_lock);
	free(e);
}

static int soft_create(struct engine **out, const struct engine_config *config, char *err,
		       size_t len)
{
	struct engine *e = calloc(1, sizeof(*e));

	if (e)
		e->pages = calloc(config->memory_size >> 12, sizeof(*e->pages));
	if (!e || !e->pages) {
		free(e);
		snprintf(err, len, "no memory for the page states of the soft engine");
		return -ENOMEM;
	}
	e->config = *config;
	pthread_mutex_init(&e->exclusive_lock, NULL);
	*out = e;
	return 0;
}

static void soft_vcpu_destroy(struct engine *e, unsigned vcpu)
{
	struct soft_vcpu *v = e->vcpu[vcpu];

	if (!v)
		return;
	if (v->s2) {
		s2_tlb_client_remove(v->s2, &v->tlb);
		s2_thread_exit(v->s2);
	}
	if (v->uc)
		uc_close(v->uc);
	pthread_mutex_destroy(&v->own);
	pthread_mutex_destroy(&v->queue_lock);
	free(v);
	e->vcpu[vcpu] = NULL;
}

static int soft_vcpu_create(struct engine *e, unsigned vcpu, char *err, size_t len)
{
	static const char *const names[CPU_MAX] = {"vcpu0", "vcpu1", "vcpu2", "vcpu3",
						   "vcpu4", "vcpu5", "vcpu6", "vcpu7"};
	struct soft_vcpu *v = calloc(1, sizeof(*v));
	uc_err uerr;
	int ret;

	if (!v) {
		snprintf(err, len, "no memory for vCPU %u", vcpu);
		return -ENOMEM;
	}
	v->engine = e;
	v->index = vcpu;
	pthread_mutex_init(&v->own, NULL);
	pthread_mutex_init(&v->queue_lock, NULL);
	v->tlb = (struct s2_tlb_client){.name = names[vcpu],
					.opaque = v,
					.invalidate = soft_tlb_invalidate,
					.wait = soft_tlb_wait,
					.coarse = true};
	e->vcpu[vcpu] = v;
	uerr = uc_open(UC_ARCH_X86, UC_MODE_64, &v->uc);
	if (!uerr)
		uerr = uc_mem_map_ptr(v->uc, 0, e->config.memory_size, UC_PROT_ALL,
				      e->config.memory);
	if (!uerr)
		uerr = uc_vcpu_enable(v->uc, &soft_vcpu_ops, v, CODE_BUFFER, e->config.vcpus > 1);
	if (uerr) {
		snprintf(err, len, "the emulator refuses vCPU %u: %s", vcpu, uc_strerror(uerr));
		soft_vcpu_destroy(e, vcpu);
		return -ENOMEM;
	}
	ret = s2_thread_init(&v->s2, e->config.s2, names[vcpu]);
	if (ret) {
		snprintf(err, len, "cannot register vCPU %u: %s", vcpu, strerror(-ret));
		soft_vcpu_destroy(e, vcpu);
		return ret;
	}
	v->tlb.thread = v->s2;
	s2_tlb_client_add(v->s2, &v->tlb);
	return 0;
}

static void ring(struct soft_vcpu *v)
{
	atomic_fetch_add(&v->doorbell, 1);
	if (atomic_load(&v->sleeping))
		soft_futex_wake(&v->doorbell);
}

/* Until something changes after `seen` was read: a change in between makes the futex call return at
 * once. */
static void sleep_until(struct soft_vcpu *v, uint32_t seen)
{
	atomic_store(&v->sleeping, true);
	soft_futex_wait(&v->doorbell, seen);
	atomic_store(&v->sleeping, false);
}

static void page_arrived(struct s2_page_waiter *waiter)
{
	ring((struct soft_vcpu *)((char *)waiter - offsetof(struct soft_vcpu, page)));
}

/* Until the page is here, or a kick or an interrupt wants the vCPU: then the instruction is tried
 * again, and waits again if it must. Others serve this vCPU's queue meanwhile, as in HLT. */
static void wait_page(struct soft_vcpu *v, uint32_t seen)
{
	soft_count(v, COUNT_PAGE_WAITS);
	v->page.wake = page_arrived;
	if (s2_page_wait(v->s2, v->missing_gpa, &v->page))
		sleep_until(v, seen);
	s2_page_wait_end(v->s2, &v->page);
}

static void exit_error(struct cpu_exit *exit, const char *text)
{
	exit->reason = CPU_EXIT_ERROR;
	snprintf(exit->text, sizeof(exit->text), "%s", text ? text : "unknown");
}

/* An instruction that only stopping the others makes atomic (or that two vCPUs would take from each
 * other). */
static void run_alone(struct soft_vcpu *v, uc_vcpu_run_info *info, uc_err *err)
{
	soft_exclusive_begin(v);
	for (;;) {
		soft_own_lock(v);
		*err = uc_vcpu_step_exclusive(v->uc, info);
		soft_own_unlock(v);
		if (*err || info->reason != UC_VCPU_EXIT_FAULT || !v->conflict.valid)
			break; /* a retry of the second stage too: with the others running again */
		v->conflict.valid = false;
		soft_claim_wait(v, v->conflict.page, v->conflict.want);
	}
	soft_exclusive_end(v);
}

static bool handle(struct soft_vcpu *v, uc_vcpu_run_info *info, uc_err err, uint32_t seen,
		   struct cpu_exit *exit);

static bool handle_alone(struct soft_vcpu *v, uc_vcpu_run_info *info, uint32_t seen,
			 struct cpu_exit *exit)
{
	uc_err err;

	v->repeats = 0;
	run_alone(v, info, &err);
	if (!err && info->reason == UC_VCPU_EXIT_ATOMIC) {
		exit_error(exit, "an atomic access cannot be done even alone");
		return false;
	}
	return handle(v, info, err, seen, exit);
}

/* false: *exit says why to stop. */
static bool handle(struct soft_vcpu *v, uc_vcpu_run_info *info, uc_err err, uint32_t seen,
		   struct cpu_exit *exit)
{
	exit->rip = info->rip;
	if (err) {
		exit_error(exit, uc_strerror(err));
		return false;
	}
	switch (info->reason) {
	case UC_VCPU_EXIT_DEBUG: return true;
	case UC_VCPU_EXIT_KICK: soft_count(v, COUNT_KICKS); return true;
	case UC_VCPU_EXIT_HLT:
		soft_count(v, COUNT_HALTS);
		sleep_until(v, seen);
		return true;
	case UC_VCPU_EXIT_SHUTDOWN: exit->reason = CPU_EXIT_SHUTDOWN; return false;
	case UC_VCPU_EXIT_FAULT:
		if (v->retry) {
			v->retry = false;
			return true;
		}
		if (v->missing) {
			v->missing = false;
			wait_page(v, seen);
			return true;
		}
		if (!v->conflict.valid) {
			exit_error(exit, v->failure);
			return false;
		}
		v->conflict.valid = false;
		v->repeats = v->conflict.page == v->last_page ? v->repeats + 1 : 0;
		v->last_page = v->conflict.page;
		/* Two vCPUs may take a page from each other without either getting on. */
		if (v->repeats > PATIENCE)
			return handle_alone(v, info, seen, exit);
		soft_claim_wait(v, v->conflict.page, v->conflict.want);
		return true;
	case UC_VCPU_EXIT_ATOMIC: return handle_alone(v, info, seen, exit);
	case UC_VCPU_EXIT_ERROR: exit_error(exit, info->error); return false;
	}
	exit_error(exit, "unknown exit of the emulator");
	return false;
}

static void soft_run(struct engine *e, unsigned vcpu, struct cpu_exit *exit)
{
	struct soft_vcpu *v = e->vcpu[vcpu];
	uc_vcpu_run_info info;
	uint32_t seen;
	uc_err err;

	do {
		seen = atomic_load(&v->doorbell);
		if (atomic_exchange(&v->kicked, false)) {
			exit->reason = CPU_EXIT_KICK;
			return;
		}
		soft_own_lock(v);
		soft_serve(v);
		soft_count(v, COUNT_RUNS);
		err = uc_vcpu_run(v->uc, &info);
		soft_own_unlock(v);
	} while (handle(v, &info, err, seen, exit));
}

static void soft_kick(struct engine *e, unsigned vcpu)
{
	struct soft_vcpu *v = e->vcpu[vcpu];

	atomic_store(&v->kicked, true);
	uc_vcpu_kick(v->uc);
	ring(v);
}

static void soft_set_intr(struct engine *e, unsigned vcpu, bool level)
{
	struct soft_vcpu *v = e->vcpu[vcpu];

	uc_vcpu_set_irq(v->uc, level);
	if (level)
		ring(v);
}

static void soft_nmi(struct engine *e, unsigned vcpu)
{
	uc_vcpu_nmi(e->vcpu[vcpu]->uc);
	ring(e->vcpu[vcpu]);
}

static int soft_get_state(struct engine *e, unsigned vcpu, struct x86_state *state)
{
	uc_x86_vcpu_state s;

	if (uc_x86_vcpu_get_state(e->vcpu[vcpu]->uc, &s))
		return -EIO;
	soft_state_from_uc(state, &s);
	return 0;
}

static int soft_set_state(struct engine *e, unsigned vcpu, const struct x86_state *state)
{
	uc_x86_vcpu_state s = {0};

	/* The pin is the interrupt controller's, not the processor's: keep it. */
	if (uc_x86_vcpu_get_state(e->vcpu[vcpu]->uc, &s))
		return -EIO;
	soft_state_to_uc(&s, state);
	return uc_x86_vcpu_set_state(e->vcpu[vcpu]->uc, &s) ? -EINVAL : 0;
}

static uint64_t soft_dirty_rate(struct engine *e, unsigned vcpu, struct s2_dirty_rate *state,
				uint64_t now)
{
	return s2_dirty_rate(e->vcpu[vcpu]->s2, state, now);
}

static void soft_counters(struct engine *e, unsigned vcpu, uint64_t counters[COUNT_NR])
{
	for (int i = 0; i < COUNT_NR; i++)
		counters[i] =
			atomic_load_explicit(&e->vcpu[vcpu]->counters[i], memory_order_relaxed);
}

static uint64_t soft_begun(struct engine *e, unsigned vcpu)
{
	return atomic_load_explicit(&e->vcpu[vcpu]->begun, memory_order_relaxed);
}

const struct engine_ops engine_soft = {
	.name = "soft",
	.probe = soft_probe,
	.create = soft_create,
	.destroy = soft_destroy,
	.vcpu_create = soft_vcpu_create,
	.vcpu_destroy = soft_vcpu_destroy,
	.run = soft_run,
	.kick = soft_kick,
	.set_intr = soft_set_intr,
	.nmi = soft_nmi,
	.get_state = soft_get_state,
	.set_state = soft_set_state,
	.written = soft_written,
	.dirty_rate = soft_dirty_rate,
	.counters = soft_counters,
	.begun = soft_begun,
};
