/*
 * What executes a guest. One table of functions per engine; the rest of ferry sees every engine as
 * this.
 *
 * Threads: vcpu_create, run, get_state, set_state and vcpu_destroy belong to the vCPU's own thread
 * (get and set also to another one while that thread is parked outside of run). kick, set_intr, nmi
 * and written are for any thread. An engine knows no device: ports, MMIO and MSRs reach `bus` as
 * synchronous calls on the vCPU's thread, which never block and never jump out.
 */
#ifndef CPU_ENGINE_H
#define CPU_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpu/x86/state.h"
#include "mmu/second_stage.h"

enum { CPU_MAX = 8 }; /* vCPUs of a machine */

struct cpu_bus {
	void *opaque;
	uint64_t (*pio_read)(void *opaque, unsigned vcpu, uint16_t port, unsigned size);
	void (*pio_write)(void *opaque, unsigned vcpu, uint16_t port, unsigned size,
			  uint64_t value);
	uint64_t (*mmio_read)(void *opaque, unsigned vcpu, uint64_t gpa, unsigned size);
	void (*mmio_write)(void *opaque, unsigned vcpu, uint64_t gpa, unsigned size,
			   uint64_t value);
	/* 0 done, 1 not known here (the engine's own), 2 #GP */
	int (*rdmsr)(void *opaque, unsigned vcpu, uint32_t msr, uint64_t *value);
	int (*wrmsr)(void *opaque, unsigned vcpu, uint32_t msr, uint64_t value);
	void (*cpuid)(void *opaque, unsigned vcpu, uint32_t leaf, uint32_t subleaf,
		      uint32_t out[4]);
	uint64_t (*tsc)(void *opaque, unsigned vcpu);
	int (*irq_ack)(void *opaque, unsigned vcpu); /* the vector, or -1: gone */
	uint64_t (*get_cr8)(void *opaque, unsigned vcpu);
	void (*set_cr8)(void *opaque, unsigned vcpu, uint64_t value);
};

enum cpu_exit_reason {
	CPU_EXIT_KICK,	   /* as asked for; the guest is between two instructions */
	CPU_EXIT_SHUTDOWN, /* triple fault */
	CPU_EXIT_ERROR,	   /* the engine can't go on; text says why */
};

struct cpu_exit {
	enum cpu_exit_reason reason;
	uint64_t rip;
	char text[160];
};

struct engine_config {
	struct s2 *s2;
	uint8_t *memory; /* hpa n is memory[n] */
	uint64_t memory_size;
	unsigned vcpus;
	const struct cpu_bus *bus;
	/* Negative controls of the stress suite: leave out what keeps vCPUs coherent. */
	bool test_no_remote_code, test_no_remote_flush;
};

/* Counters of one vCPU; a row of engine_counter_names each. */
enum engine_counter {
	COUNT_RUNS,	   /* entries into the guest */
	COUNT_KICKS,	   /* stops because somebody asked */
	COUNT_HALTS,	   /* HLT that slept */
	COUNT_INTERRUPTS,  /* external interrupts taken */
	COUNT_TRANSLATES,  /* second-stage look-ups */
	COUNT_FAULTS,	   /* of them: not in the table yet */
	COUNT_PAGE_WAITS,  /* waits for a page that is not here yet */
	COUNT_MMIO,	   /* MMIO accesses */
	COUNT_PIO,	   /* port accesses */
	COUNT_MSR,	   /* MSR accesses that reached ferry */
	COUNT_CODE_DROPS,  /* translated code given up for another vCPU's or a device's write */
	COUNT_WRITE_DROPS, /* write permission given up for another vCPU's translation */
	COUNT_EXCLUSIVE,   /* the other vCPUs stopped for one instruction */
	COUNT_NR
};
extern const char *const engine_counter_names[COUNT_NR];

struct engine;
struct engine_ops {
	const char *name;
	/* 0 when it can run here; else -errno and the reason with a remedy. */
	int (*probe)(char *reason, size_t len);
	/* 0 or -errno with text. The engine keeps config's pointers. */
	int (*create)(struct engine **out, const struct engine_config *config, char *err,
		      size_t len);
	void (*destroy)(struct engine *engine); /* all vCPUs are destroyed */
	int (*vcpu_create)(struct engine *engine, unsigned vcpu, char *err, size_t len);
	void (*vcpu_destroy)(struct engine *engine, unsigned vcpu);
	/* Runs until there is something to say. Sleeps while halted. */
	void (*run)(struct engine *engine, unsigned vcpu, struct cpu_exit *exit);
	/* Ends run (or the next one) once with CPU_EXIT_KICK. */
	void (*kick)(struct engine *engine, unsigned vcpu);
	void (*set_intr)(struct engine *engine, unsigned vcpu, bool level);
	void (*nmi)(struct engine *engine, unsigned vcpu);
	int (*get_state)(struct engine *engine, unsigned vcpu, struct x86_state *state);
	/* -EINVAL: a state that a processor cannot be in (nothing is changed). */
	int (*set_state)(struct engine *engine, unsigned vcpu, const struct x86_state *state);
	/* Somebody else than a vCPU has written guest memory [hpa, hpa+len). May wait for vCPUs to
	 * reach a block boundary: call it without a lock. */
	void (*written)(struct engine *engine, uint64_t hpa, uint64_t len);
	/* Pages per second that the vCPU dirties (mmu/second_stage.h, s2_dirty_rate()); any thread.
	 */
	uint64_t (*dirty_rate)(struct engine *engine, unsigned vcpu, struct s2_dirty_rate *state,
			       uint64_t now);
	void (*counters)(struct engine *engine, unsigned vcpu, uint64_t counters[COUNT_NR]);
	/* CLOCK_MONOTONIC in ns when the vCPU had its first instruction: fetched, from a page that
	 * is here, to be executed next. 0: not yet. Any thread. */
	uint64_t (*begun)(struct engine *engine, unsigned vcpu);
};

extern const struct engine_ops engine_soft;

#endif
