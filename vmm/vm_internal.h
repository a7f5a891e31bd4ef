/* The insides of a running machine, for the files of vmm/ that make it up. */
#ifndef VMM_VM_INTERNAL_H
#define VMM_VM_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "cpu/engine.h"
#include "cpu/x86/model.h"
#include "cpu/x86/msr.h"
#include "vmm/backends.h"
#include "vmm/board/board.h"
#include "vmm/boot/boot.h"
#include "vmm/loop.h"
#include "vmm/memory.h"
#include "vmm/vm.h"

enum vcpu_request { VCPU_INIT = 1, VCPU_SIPI = 2 }; /* bits 15:8: the SIPI's vector */

struct vcpu {
	struct vm *vm;
	unsigned index;
	pthread_t thread;
	bool started;
	int create_result;
	_Atomic uint32_t requests;
	/* The engine's part is fetched and stored while parked; run_state and the registers of
	 * cpu/x86/msr.h are always here. Own thread, or any while parked. */
	struct x86_state state;
};

struct vm {
	const struct run_config *config;
	struct loop *loop;
	struct guest_memory memory;
	struct boot_image *image;

	const struct engine_ops *engine_ops;
	struct engine *engine;
	struct board board;
	struct board_host board_host;
	struct boot_board boot_board;
	struct cpu_bus bus;
	struct cpu_pins pins;
	struct machine_sink sink;
	struct tsc_source tsc;
	struct dma_ops dma;
	struct x86_msr_ops msr_ops;
	struct x86_cpuid_context cpuid;
	struct chardev *serial[BOARD_SERIAL_MAX], *console;
	struct backends backends;

	/* vCPU threads: parked while stop_wanted; `changed` is signalled with every change of
	 * these. */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned vcpu_count, parked;
	_Atomic bool stop_wanted, quit;
	struct vcpu vcpu[CPU_MAX];

	/* What a device or a vCPU has asked for; the loop's thread acts on it. */
	struct loop_work event_work;
	_Atomic uint32_t events; /* bit per enum vm_event */
	_Atomic uint32_t event_code;
	uint32_t resets;
	struct vm_result result;
	struct error engine_error; /* under lock */

	struct vtimer *roundtrip_timer;
	long roundtrip_ms;
	uint64_t roundtrips;
};

enum vm_event {
	VM_EVENT_POWEROFF,
	VM_EVENT_RESET,
	VM_EVENT_PANIC,
	VM_EVENT_DEBUG_EXIT,
	VM_EVENT_TRIPLE_FAULT, /* event_code: vCPU; its RIP was printed */
	VM_EVENT_ENGINE,
};

/* ---- vcpu.c ---- */
int vcpus_start(struct vm *vm, struct error *err); /* threads exist and are parked afterwards */
void vcpus_park(struct vm *vm);			   /* returns when all are; loop's thread */
void vcpus_resume(struct vm *vm);
void vcpus_end(struct vm *vm); /* joins the threads */
int vcpus_reset(struct vm *vm, const struct x86_state *bsp, struct error *err); /* parked */
void vcpu_pins_init(struct vm *vm);						/* fills vm->pins */

/* ---- dispatch.c ---- */
void dispatch_init(struct vm *vm); /* fills bus, tsc, msr_ops, cpuid */
uint64_t vm_tsc(const struct vm *vm, unsigned vcpu);

/* ---- stats.c ---- */
void vm_stats_write(struct vm *vm, const char *path); /* parked; a failure is a message */

/* ---- lifecycle.c ---- */
void vm_event(struct vm *vm, enum vm_event event, uint32_t code); /* any thread; never blocks */
void lifecycle_init(struct vm *vm);				  /* fills sink and event_work */
int lifecycle_start_roundtrips(struct vm *vm, long ms);
int vm_boot(struct vm *vm, struct error *err); /* loads the image, resets; parked */

#endif
