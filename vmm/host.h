/*
 * What this host offers: `ferry doctor` prints it, and vm_run() decides by it. Everything is read
 * anew on each call; nothing needs privileges.
 */
#ifndef VMM_HOST_H
#define VMM_HOST_H

#include <stdbool.h>
#include <stdint.h>

#include "vmm/config.h"
#include "vmm/error.h"

struct host_memory {
	uint64_t ram, available, swap; /* bytes */
	uint64_t limit;		       /* of the control groups, swap allowance included; 0: none */
};
void host_memory(struct host_memory *memory);

/* Huge pages of 2 MiB that were set aside for those who ask: all, and those not promised to
 * anybody. */
struct host_huge_pages {
	uint64_t reserved, available;
};
void host_huge_pages(struct host_huge_pages *pages);

struct host_cpu {
	char arch[32];	 /* as in uname -m */
	char vendor[32]; /* "GenuineIntel", "AuthenticAMD"; empty elsewhere */
	char model[96];
	unsigned count;	   /* that this process may use */
	bool extensions;   /* vmx, svm; elsewhere: not to be seen from here, true */
	bool second_level; /* ept, npt, and not switched off in the KVM module */
	bool under_hypervisor;
};
struct host_kvm {
	int open_error; /* of /dev/kvm: 0 or errno */
	int api;	/* KVM_GET_API_VERSION, or -1 */
};
struct host_engine {
	enum engine_choice engine; /* what auto takes: ENGINE_KVM or ENGINE_SOFT */
	bool kvm_capable;	   /* hardware would page for a guest */
	char reason[200];	   /* why; a clause without a full stop */
};

void host_cpu(struct host_cpu *cpu);
void host_kvm(struct host_kvm *kvm);
/* The rule of `--engine auto`: KVM only where hardware pages for the guest. */
void host_engine_rule(const struct host_cpu *cpu, const struct host_kvm *kvm,
		      struct host_engine *out);
/* The engine for `choice`, with the reason; -ENOTSUP with what is missing and what to do instead.
 */
int host_choose_engine(enum engine_choice choice, struct host_engine *out, struct error *err);

/* ---- doctor ------------------------------------------------------------------------------------
 */

enum host_status { HOST_OK, HOST_LIMITED, HOST_MISSING };
struct host_check {
	const char *name;
	enum host_status status;
	bool needed; /* ferry cannot run without */
	char detail[256];
	char remedy[256]; /* empty when nothing is to be done */
};
enum { HOST_MAX_CHECKS = 16 };
/* Returns how many were filled in. */
unsigned host_checks(struct host_check checks[HOST_MAX_CHECKS]);

/* The same from a copy of /proc and /sys under `root`, for tests. */
void host_memory_at(const char *root, struct host_memory *memory);
void host_cpu_at(const char *root, struct host_cpu *cpu);

#endif
