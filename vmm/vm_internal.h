/* The insides of a running machine, for the files of vmm/ that make it up. */
#ifndef VMM_VM_INTERNAL_H
#define VMM_VM_INTERNAL_H

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>

#include "cpu/engine.h"
#include "cpu/x86/model.h"
#include "cpu/x86/msr.h"
#include "vmm/backends.h"
#include "vmm/board/board.h"
#include "vmm/boot/boot.h"
#include "vmm/control.h"
#include "vmm/host.h"
#include "vmm/loop.h"
#include "vmm/memory.h"
#include "vmm/parent.h"
#include "vmm/presence.h"
#include "vmm/vm.h"

enum vcpu_request { VCPU_INIT = 1, VCPU_SIPI = 2 }; /* bits 15:8: the SIPI's vector */

struct vcpu {
	struct vm *vm;
	unsigned index;
	pthread_t thread;
	int tid;
	bool started;
	int create_result;
	_Atomic uint32_t requests;
	/* The engine's part is fetched and stored while parked; run_state and the registers of
	 * cpu/x86/msr.h are always here. Own thread, or any while parked. */
	struct x86_state state;
};

/* Who wants the machine to stand still: it moves when nobody does. */
enum vm_hold { VM_HOLD_USER = 1, VM_HOLD_RESET = 2, VM_HOLD_TEST = 4, VM_HOLD_MOVE = 8 };
/* DRAINING: vCPUs and guest time stand, requests of devices are still in flight. */
enum vm_motion { VM_MOVING, VM_DRAINING, VM_STILL };

struct vm {
	const struct run_config *config;
	struct presence own_presence;
	struct presence *presence; /* its own, or that of who has waited for it */
	struct control *control;
	struct vm_request *waiting; /* requests for the end */
	struct parent_watch *parent;
	struct host_engine host_engine;
	struct loop *loop;
	struct guest_memory memory;
	struct loop_work memory_work; /* pages have arrived that devices wait for */
	struct testing_missing *testing_missing;
	struct boot_image *image;
	struct vm_arrival *arrival; /* NULL: it was booted here */
	struct outgoing *outgoing;  /* a migration or a save that runs */
	char lacks[256];	    /* why pages of its memory will never come; "" */

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
	struct throttle *throttle; /* NULL: vCPUs write as fast as they like */

	/* What a device or a vCPU has asked for; the loop's thread acts on it. */
	struct loop_work event_work;
	_Atomic uint32_t events; /* bit per enum vm_event */
	_Atomic uint32_t event_code;
	uint32_t resets, guest_resets;
	bool reset_by_guest;
	bool reset_waits; /* for pages that are not here yet */
	struct vm_result result;
	const char *end_reason; /* of VM_END_STOPPED, in QMP's words */

	/* lifecycle.c; the loop's thread. */
	bool started, ended;
	enum vm_motion motion;
	unsigned holds;	  /* bits of enum vm_hold */
	bool said_paused; /* STOP was the last event, not RESUME */
	bool disk_full;	  /* that is why */
	struct loop_work settle_work;
	struct still_waiter *still_waiters;
	uint64_t start_ns;	   /* CLOCK_MONOTONIC */
	uint64_t process_ns;	   /* the same when the process began; 0: not known */
	struct error engine_error; /* under lock */

	struct vtimer *balloon_timer; /* runs after an event, and then... */
	bool balloon_quiet;	      /* ...there may be another */
	bool balloon_changed;	      /* since the last one */

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

/* ---- throttle.c ---- */
/* vCPUs that dirty more than their share of so many pages per second wait; 0: none does any more.
 * One thread at a time, while the vCPUs' threads exist. */
void vm_throttle(struct vm *vm, uint64_t pages);
/* vm->lock is held: CLOCK_MONOTONIC in ns until which it shall wait; 0: it may run. */
uint64_t vm_throttled(const struct vm *vm, unsigned vcpu);

/* ---- dispatch.c ---- */
void dispatch_init(struct vm *vm); /* fills bus, tsc, msr_ops, cpuid */
uint64_t vm_tsc(const struct vm *vm, unsigned vcpu);

/* ---- stats.c ---- */
json_t *vm_mmu_stats(struct vm *vm); /* every counter of the MMU core, in groups */
json_t *vm_stats(struct vm *vm);
void vm_stats_write(struct vm *vm, const char *path); /* parked; a failure is a message */

/* ---- info.c ---- */
json_t *vm_info(struct vm *vm);			  /* the description and what it does now */
json_t *vm_devices(struct vm *vm, bool counters); /* by name: counters, or everything else */
json_t *config_json(const struct config_field *fields, const void *object);

/* ---- control_vm.c ---- */
int vm_control_start(struct vm *vm, struct error *err);
/* Tells clients how it ended and answers those that wait for it; then control_finish(). */
void vm_control_end(struct vm *vm, const struct runtime_end *end);
void vm_tell(struct vm *vm, const char *event, json_t *data); /* data's reference is taken */

/* ---- balloon.c ---- */
struct virtio_balloon_config vm_balloon_config(struct vm *vm);
void vm_balloon_end(struct vm *vm);
/* What is left to the guest, in bytes: what it shall have, and what it has. -EINVAL with a text. */
int vm_balloon_set(struct vm *vm, uint64_t bytes, struct error *err);
uint64_t vm_balloon_actual(struct vm *vm);

/* ---- lifecycle.c ---- */
void vm_event(struct vm *vm, enum vm_event event, uint32_t code); /* any thread; never blocks */
/* Holds the machine: vCPUs and guest time stop at once; fn(arg, 0) is called when nothing of the
 * guest's moves any more, devices are quiet and the state can be saved; fn(arg, -ECANCELED) when
 * the machine ends before, fn(arg, -EINTR) when nobody holds it any more before. Never from within.
 * 0 or -ENOMEM. */
int vm_pause(struct vm *vm, enum vm_hold hold, void (*fn)(void *arg, int code), void *arg);
/* Who waits for that waits no more: fn is not called. The hold stays. */
void vm_pause_forget(struct vm *vm, void (*fn)(void *arg, int code), const void *arg);
/* Ends that hold; the machine goes on when it was the last. Also before fn was called: it is,
 * with -EINTR. */
void vm_resume(struct vm *vm, enum vm_hold hold);
/* A disk's requests wait for space on the host (struct virtio_blk_config): the machine is held as
 * if its user had paused it, and the requests start again when he lets it go on. */
void vm_disk_full(void *opaque, struct device *dev);
/* What devices have of the host: taken (-errno with a text; none of it is taken then), or given up
 * for another process (all that can be; -errno with a text if that cannot go on with the rest, a
 * disk's unwritten data for example). The machine stands still, and does so afterwards. */
int vm_acquire(struct vm *vm, struct error *err);
int vm_release(struct vm *vm, struct error *err);
/* The guest goes on elsewhere: this machine ends. */
void vm_moved(struct vm *vm, bool file);
/* It was to come from elsewhere and does not: this machine ends, with vm->engine_error. */
void vm_absent(struct vm *vm);
/* A reset waits for pages that are not here yet; all are here: it goes on. */
bool vm_reset_waits(const struct vm *vm);
void vm_reset_go_on(struct vm *vm);
/* As a reset button: a machine that is held is so afterwards, too. */
void vm_reset(struct vm *vm);
const char *vm_state_name(const struct vm *vm); /* for people: running, pausing, paused... */
void lifecycle_init(struct vm *vm);		/* fills sink and works */
void lifecycle_start(struct vm *vm);
/* Instead of booting: the machine stands still, held by VM_HOLD_MOVE, until a state is loaded. */
void lifecycle_arrive(struct vm *vm);
void lifecycle_end(struct vm *vm); /* parks, drains; nobody waits any more */
int lifecycle_start_roundtrips(struct vm *vm, long ms);
int vm_boot(struct vm *vm, struct error *err); /* loads the image, resets; parked */

#endif
