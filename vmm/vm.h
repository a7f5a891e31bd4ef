/*
 * One virtual machine from start to end.
 */
#ifndef VMM_VM_H
#define VMM_VM_H

#include "vmm/config.h"
#include "vmm/error.h"

enum vm_end {
	VM_END_POWEROFF,    /* the guest switched itself off */
	VM_END_RESET_LIMIT, /* one reset more than allowed */
	VM_END_PANIC,	    /* the guest said that it has crashed (pvpanic) */
	VM_END_DEBUG_EXIT,  /* code: the value written to the debug-exit device */
	VM_END_ENGINE,	    /* the engine can't go on; the text says why */
	VM_END_ABSENT,	    /* it was to come from elsewhere, and did not: the text says why */
	VM_END_MOVED,	    /* it goes on elsewhere (code 0), or waits in a file (1) */
	VM_END_STOPPED,	    /* asked from outside; code: what loop_stop was given (128 + signal) */
};

struct vm_result {
	enum vm_end end;
	uint32_t code;
};

/* May be NULL. The machine has its name, and its guest runs from now on. */
struct vm_observer {
	void (*running)(void *opaque, const char *name);
	/* Of one that is waited for: where. */
	void (*listening)(void *opaque, const char *address);
	void *opaque;
	uint64_t begun; /* CLOCK_MONOTONIC in ns when this process began; 0: not known */
};

struct vm;
struct boot_image;
struct control_request;
struct presence;
/* A machine that exists already and comes into this process: how it gets its memory and state. */
struct vm_arrival {
	struct boot_image *image; /* what it would boot again from; taken over */
	/* What is seen of it already: ended with the machine, if that runs. NULL: nothing is. */
	struct presence *presence;
	/* The machine stands, without contents, and nothing of it moves: begin loads it, or starts
	 * what will. 0 or -errno with a text: the machine is given up. finish: its loop does not
	 * run any more. */
	int (*begin)(struct vm_arrival *arrival, struct vm *vm, struct error *err);
	void (*finish)(struct vm_arrival *arrival);
	/* NULL: there is nothing to be completed. Takes what the guest lacks from a file (absolute
	 * path); the request is answered later. 0 or -errno. */
	int (*complete)(struct vm_arrival *arrival, const char *path,
			struct control_request *request, struct error *err);
};

/* Builds the machine, runs it on this thread and its vCPU threads until it ends, and leaves nothing
 * behind but, if detached, its logs and a record of its end. 0: it ran, *result says how it ended
 * (err holds a text for VM_END_ENGINE); -errno: it
 * could not start, err says why and what to do. */
int vm_run(const struct run_config *config, const struct vm_observer *observer,
	   struct vm_result *result, struct error *err);
/* The same of one that is not booted. */
int vm_run_arrival(const struct run_config *config, struct vm_arrival *arrival,
		   const struct vm_observer *observer, struct vm_result *result, struct error *err);

#endif
