/* What `ferry doctor` looks at: one function per line of its table. */
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "migration/tls.h"
#include "vmm/host.h"
#include "vmm/runtime.h"

#define DETAIL(...) snprintf(check->detail, sizeof(check->detail), __VA_ARGS__)
#define REMEDY(...) snprintf(check->remedy, sizeof(check->remedy), __VA_ARGS__)

static void check_cpu(struct host_check *check)
{
	struct host_cpu cpu;

	host_cpu(&cpu);
	DETAIL("%s%s%s%s, %s, %u to use%s", cpu.model, *cpu.vendor ? " (" : "", cpu.vendor,
	       *cpu.vendor ? ")" : "", cpu.arch, cpu.count,
	       cpu.under_hypervisor ? ", itself a virtual machine" : "");
	if (strcmp(cpu.arch, "x86_64") != 0) {
		check->status = HOST_LIMITED;
		REMEDY("guests of x86-64 run in software here; other hosts are tested less");
	}
}

static void check_extensions(struct host_check *check)
{
	struct host_cpu cpu;

	host_cpu(&cpu);
	if (cpu.second_level) {
		DETAIL("the processor pages for guests");
		return;
	}
	check->status = HOST_MISSING;
	if (cpu.extensions) {
		DETAIL("vmx or svm without ept or npt");
		REMEDY("check the parameters ept of kvm_intel and npt of kvm_amd");
	} else {
		DETAIL("neither vmx nor svm in /proc/cpuinfo");
		REMEDY("%s; the soft engine needs none",
		       cpu.under_hypervisor ? "switch on nested virtualization "
					      "for this virtual machine"
					    : "switch on VT-x or SVM in the "
					      "firmware's setup");
	}
}

static void check_kvm(struct host_check *check)
{
	struct host_cpu cpu;
	struct host_kvm kvm;

	host_cpu(&cpu);
	host_kvm(&kvm);
	if (kvm.open_error) {
		check->status = HOST_MISSING;
		DETAIL("%s", strerror(kvm.open_error));
		if (!cpu.second_level)
			REMEDY("none is needed: without ept or npt it would only emulate");
		else if (kvm.open_error == EACCES)
			REMEDY("add yourself to the group kvm and log in again");
		else
			REMEDY("load the module: modprobe kvm_intel or kvm_amd");
	} else if (!cpu.second_level) {
		check->status = HOST_LIMITED;
		DETAIL("opens (API %d), but no hardware pages for its guests", kvm.api);
		REMEDY("such a KVM is slower than the soft engine: auto does not take it");
	} else {
		DETAIL("opens (API %d)", kvm.api);
	}
}

static void check_engine(struct host_check *check)
{
	struct host_engine engine;

	host_choose_engine(ENGINE_AUTO, &engine, NULL);
	DETAIL("auto takes %s: %s", engine.engine == ENGINE_KVM ? "kvm" : "soft", engine.reason);
}

static void gib(uint64_t bytes, char *buf, size_t len)
{
	snprintf(buf, len, "%.1f GiB", (double)bytes / (1 << 30));
}

static void check_memory(struct host_check *check)
{
	char ram[32], available[32], swap[32] = "no", limit[32] = "none";
	struct host_memory memory;

	host_memory(&memory);
	gib(memory.ram, ram, sizeof(ram));
	gib(memory.available, available, sizeof(available));
	if (memory.swap)
		gib(memory.swap, swap, sizeof(swap));
	if (memory.limit)
		gib(memory.limit, limit, sizeof(limit));
	DETAIL("%s, of which %s available, %s swap, control group limit: %s", ram, available, swap,
	       limit);
	if (memory.available < 256ull << 20) {
		check->status = HOST_LIMITED;
		REMEDY("a guest needs about 256M: free some memory");
	}
}

static void check_memfd(struct host_check *check)
{
	int fd = memfd_create("ferry-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0) {
		check->status = HOST_MISSING;
		DETAIL("%s", strerror(errno));
		REMEDY("guest memory is a memfd: Linux 3.17 or newer, and a seccomp profile that "
		       "allows it");
		return;
	}
	close(fd);
	DETAIL("works");
}

static void first_line(const char *path, char *line, int len)
{
	FILE *file = fopen(path, "re");

	*line = 0;
	if (!file)
		return;
	if (!fgets(line, len, file))
		*line = 0;
	line[strcspn(line, "\n")] = 0;
	fclose(file);
}

static void check_hugepages(struct host_check *check)
{
	char total[32], shared[128], *open_bracket, *close_bracket;

	first_line("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", total, sizeof(total));
	first_line("/sys/kernel/mm/transparent_hugepage/shmem_enabled", shared, sizeof(shared));
	open_bracket = strchr(shared, '[');
	close_bracket = strchr(shared, ']');
	if (open_bracket && close_bracket)
		*close_bracket = 0;
	DETAIL("%s of 2M reserved; transparent ones for shared memory: %s", *total ? total : "none",
	       open_bracket && close_bracket ? open_bracket + 1 : "not offered");
	if (open_bracket && strcmp(open_bracket + 1, "never") != 0)
		return;
	check->status = HOST_LIMITED;
	REMEDY("none needed: guest memory is anonymous then; to share it with other processes at "
	       "full "
	       "speed, as root: echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled");
}

static void check_io_uring(struct host_check *check)
{
	struct io_uring_params params = {0};
	int fd = (int)syscall(SYS_io_uring_setup, 2, &params);

	if (fd >= 0) {
		close(fd);
		DETAIL("allowed");
		return;
	}
	check->status = HOST_MISSING;
	DETAIL("%s", strerror(errno));
	if (errno == EPERM)
		REMEDY("sysctl kernel.io_uring_disabled=0, or a seccomp profile that allows it; "
		       "disks will use threads instead");
	else
		REMEDY("disks will use threads instead");
}

static void check_userfaultfd(struct host_check *check)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

	if (fd < 0) {
		int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

		if (device >= 0) {
			close(device);
			DETAIL("through /dev/userfaultfd");
			return;
		}
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	} else {
		DETAIL("allowed, faults of the kernel included");
		close(fd);
		return;
	}
	if (fd >= 0) {
		close(fd);
		check->status = HOST_LIMITED;
		DETAIL("for faults of user mode only");
	} else {
		check->status = HOST_MISSING;
		DETAIL("%s", strerror(errno));
	}
	REMEDY("access to /dev/userfaultfd, or sysctl vm.unprivileged_userfaultfd=1; only KVM "
	       "guests with post-copy will need it");
}

static void check_tun(struct host_check *check)
{
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	if (fd >= 0) {
		close(fd);
		DETAIL("/dev/net/tun opens");
		return;
	}
	check->status = HOST_MISSING;
	DETAIL("/dev/net/tun: %s", strerror(errno));
	REMEDY("%s; only tap networking will need it",
	       errno == EACCES ? "let the administrator make a tap device for you"
			       : "modprobe tun");
}

static void check_tls(struct host_check *check)
{
	DETAIL("%s, for migrate and receive with --tls-psk or --tls-certs", tls_library());
}

static void check_runtime(struct host_check *check)
{
	struct runtime runtime;
	struct error err;

	if (runtime_open(&runtime, &err)) {
		check->status = HOST_MISSING;
		DETAIL("%.*s", (int)strcspn(err.text, ";"), err.text);
		REMEDY("set FERRY_RUNTIME_DIR to a folder that you can write to");
		return;
	}
	DETAIL("%.240s", runtime.path);
	runtime_close(&runtime);
}

static const struct {
	const char *name;
	void (*run)(struct host_check *check);
	bool needed;
} table[] = {
	{"cpu", check_cpu, false},
	{"extensions", check_extensions, false},
	{"/dev/kvm", check_kvm, false},
	{"engine", check_engine, true},
	{"memory", check_memory, true},
	{"memfd", check_memfd, true},
	{"hugepages", check_hugepages, false},
	{"io_uring", check_io_uring, false},
	{"userfaultfd", check_userfaultfd, false},
	{"tun", check_tun, false},
	{"tls", check_tls, false},
	{"runtime folder", check_runtime, true},
};

unsigned host_checks(struct host_check checks[HOST_MAX_CHECKS])
{
	unsigned n = sizeof(table) / sizeof(table[0]);

	for (unsigned i = 0; i < n; i++) {
		checks[i] = (struct host_check){.name = table[i].name, .needed = table[i].needed};
		table[i].run(&checks[i]);
	}
	return n;
}
