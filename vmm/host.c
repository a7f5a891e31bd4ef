#include "vmm/host.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/kvm.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <unistd.h>

/* The KVM engine's own issue is open; the rule and the words are ready for it. */
static const bool have_kvm_engine = false;

/* ---- memory ----------------------------------------------------------------------------- */

static bool read_number(const char *path, uint64_t *value)
{
	FILE *file = fopen(path, "re");
	char text[64] = "", *end = text;

	if (!file)
		return false;
	if (fgets(text, sizeof(text), file))
		*value = strtoull(text, &end, 10); /* "max" is not a number: no limit */
	fclose(file);
	return end != text;
}

static void meminfo(const char *root, struct host_memory *memory)
{
	const struct {
		const char *name;
		uint64_t *value;
	} rows[] = {{"MemTotal:", &memory->ram},
		    {"MemAvailable:", &memory->available},
		    {"SwapTotal:", &memory->swap}};
	char path[PATH_MAX], line[256];
	FILE *file;

	snprintf(path, sizeof(path), "%s/proc/meminfo", root);
	file = fopen(path, "re");
	if (!file)
		return;
	while (fgets(line, sizeof(line), file)) {
		for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
			size_t len = strlen(rows[i].name);

			if (!strncmp(line, rows[i].name, len))
				*rows[i].value = strtoull(line + len, NULL, 10) << 10; /* kB */
		}
	}
	fclose(file);
}

/* One group: RAM limit plus what it may swap. v1 counts both together in memsw, v2 apart. */
static void group_limit(const char *dir, bool v2, struct host_memory *memory)
{
	uint64_t ram, swap, limit;
	char path[PATH_MAX + 64];

	snprintf(path, sizeof(path), "%s/%s", dir, v2 ? "memory.max" : "memory.limit_in_bytes");
	/* v1 says "none" with a number near 2^63. */
	if (!read_number(path, &ram) || ram >= 1ull << 62)
		return;
	snprintf(path, sizeof(path), "%s/%s", dir,
		 v2 ? "memory.swap.max" : "memory.memsw.limit_in_bytes");
	if (!read_number(path, &swap))
		swap = v2 ? memory->swap : ram; /* no limit; no swap accounting */
	else if (!v2)
		swap = swap > ram ? swap - ram : 0;
	limit = ram + (swap < memory->swap ? swap : memory->swap);
	if (!memory->limit || limit < memory->limit)
		memory->limit = limit;
}

/* The group's folder and all above it count. In a container the path may be one of the host's that
 * is not mounted here: what is not there is skipped, down to the root of the mount. */
static void walk_groups(const char *mount, const char *group, bool v2, struct host_memory *memory)
{
	char dir[PATH_MAX];
	size_t floor = strlen(mount);
	int n = snprintf(dir, sizeof(dir), "%s%s", mount, group);

	if (n < 0 || (size_t)n >= sizeof(dir))
		return;
	for (;;) {
		char *slash;

		group_limit(dir, v2, memory);
		slash = strrchr(dir + floor, '/');
		if (!slash)
			return;
		*slash = 0;
	}
}

static void cgroups(const char *root, struct host_memory *memory)
{
	char path[PATH_MAX], mount[PATH_MAX], line[PATH_MAX];
	FILE *file;

	snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
	file = fopen(path, "re");
	if (!file)
		return;
	/* "0::/path" is v2, "4:memory:/path" v1. */
	while (fgets(line, sizeof(line), file)) {
		char *controllers = strchr(line, ':'), *group;

		line[strcspn(line, "\n")] = 0;
		group = controllers ? strchr(++controllers, ':') : NULL;
		if (!group)
			continue;
		*group++ = 0;
		if (!*controllers) {
			snprintf(mount, sizeof(mount), "%s/sys/fs/cgroup", root);
			walk_groups(mount, group, true, memory);
			snprintf(mount, sizeof(mount), "%s/sys/fs/cgroup/unified", root);
			walk_groups(mount, group, true, memory);
		} else if (strstr(controllers, "memory")) {
			snprintf(mount, sizeof(mount), "%s/sys/fs/cgroup/memory", root);
			walk_groups(mount, group, false, memory);
		}
	}
	fclose(file);
}

void host_memory_at(const char *root, struct host_memory *memory)
{
	*memory = (struct host_memory){0};
	meminfo(root, memory);
	cgroups(root, memory);
}

void host_memory(struct host_memory *memory)
{
	host_memory_at("", memory);
}

static uint64_t huge_pages(const char *which)
{
	char path[128];
	uint64_t value = 0;

	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-2048kB/%s_hugepages",
		 which);
	return read_number(path, &value) ? value : 0;
}

void host_huge_pages(struct host_huge_pages *pages)
{
	const uint64_t free = huge_pages("free"), promised = huge_pages("resv");

	*pages = (struct host_huge_pages){.reserved = huge_pages("nr"),
					  .available = free > promised ? free - promised : 0};
}

/* ---- processor and KVM ------------------------------------------------------------------ */

static bool has_word(const char *text, const char *word)
{
	size_t len = strlen(word);

	for (const char *at = text; (at = strstr(at, word)); at += len) {
		if ((at == text || isspace((unsigned char)at[-1])) &&
		    (!at[len] || isspace((unsigned char)at[len])))
			return true;
	}
	return false;
}

static bool module_says_no(const char *root, const char *parameter)
{
	char path[PATH_MAX], value[8] = "";
	FILE *file;

	snprintf(path, sizeof(path), "%s/sys/module/%s", root, parameter);
	file = fopen(path, "re");
	if (!file)
		return false;
	if (!fgets(value, sizeof(value), file))
		value[0] = 0;
	fclose(file);
	return value[0] == 'N' || value[0] == '0';
}

static void copy_value(char *to, size_t len, const char *line)
{
	const char *value = strchr(line, ':');

	if (*to || !value)
		return;
	value += 1 + strspn(value + 1, " \t");
	snprintf(to, len, "%.*s", (int)strcspn(value, "\n"), value);
}

static void cpuinfo_x86(const char *root, struct host_cpu *cpu)
{
	char path[PATH_MAX], *line = NULL;
	bool vmx = false, svm = false, ept = false, npt = false;
	size_t cap = 0;
	FILE *file;

	snprintf(path, sizeof(path), "%s/proc/cpuinfo", root);
	file = fopen(path, "re");
	if (!file)
		return;
	while (getline(&line, &cap, file) > 0) {
		bool flags = !strncmp(line, "flags", 5);

		/* ept moved from "flags" to "vmx flags" in Linux 5.10. */
		if (flags || !strncmp(line, "vmx flags", 9))
			ept = ept || has_word(line, "ept");
		if (flags) {
			vmx = vmx || has_word(line, "vmx");
			svm = svm || has_word(line, "svm");
			npt = npt || has_word(line, "npt");
			cpu->under_hypervisor |= has_word(line, "hypervisor");
		} else if (!strncmp(line, "vendor_id", 9)) {
			copy_value(cpu->vendor, sizeof(cpu->vendor), line);
		} else if (!strncmp(line, "model name", 10)) {
			copy_value(cpu->model, sizeof(cpu->model), line);
		}
	}
	free(line);
	fclose(file);
	cpu->extensions = vmx || svm;
	cpu->second_level = (vmx && ept && !module_says_no(root, "kvm_intel/parameters/ept")) ||
			    (svm && npt && !module_says_no(root, "kvm_amd/parameters/npt"));
}

void host_cpu_at(const char *root, struct host_cpu *cpu)
{
	struct utsname uts;
	cpu_set_t set;

	*cpu = (struct host_cpu){.count = 1};
	if (!uname(&uts))
		snprintf(cpu->arch, sizeof(cpu->arch), "%.31s", uts.machine);
	if (!sched_getaffinity(0, sizeof(set), &set))
		cpu->count = (unsigned)CPU_COUNT(&set);
	if (!strcmp(cpu->arch, "x86_64"))
		cpuinfo_x86(root, cpu);
	else
		/* There a KVM without hardware does not exist. */
		cpu->extensions = cpu->second_level = true;
}

void host_cpu(struct host_cpu *cpu)
{
	host_cpu_at("", cpu);
}

void host_kvm(struct host_kvm *kvm)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	*kvm = (struct host_kvm){.api = -1};
	if (fd < 0) {
		kvm->open_error = errno;
		return;
	}
	kvm->api = ioctl(fd, KVM_GET_API_VERSION, 0);
	close(fd);
}

/* ---- the engine ------------------------------------------------------------------------- */

#define REASON(...) snprintf(out->reason, sizeof(out->reason), __VA_ARGS__)

void host_engine_rule(const struct host_cpu *cpu, const struct host_kvm *kvm,
		      struct host_engine *out)
{
	bool usable = !kvm->open_error && kvm->api == 12;

	*out = (struct host_engine){.engine = ENGINE_SOFT};
	if (!cpu->extensions && usable)
		REASON("/dev/kvm is there but the processor shows neither vmx nor svm: that KVM "
		       "emulates in software");
	else if (!cpu->extensions)
		REASON("the processor shows neither vmx nor svm");
	else if (!cpu->second_level)
		REASON("the processor does not page for guests (no ept or npt)");
	else if (kvm->open_error)
		REASON("/dev/kvm: %s", strerror(kvm->open_error));
	else if (!usable)
		REASON("/dev/kvm speaks another API (%d)", kvm->api);
	else
		out->kvm_capable = true;
	if (!out->kvm_capable)
		return;
	if (have_kvm_engine) {
		out->engine = ENGINE_KVM;
		REASON("the processor pages for guests");
	} else {
		REASON("the KVM engine is not in this version, though this host could use it");
	}
}

int host_choose_engine(enum engine_choice choice, struct host_engine *out, struct error *err)
{
	struct host_cpu cpu;
	struct host_kvm kvm;

	host_cpu(&cpu);
	host_kvm(&kvm);
	host_engine_rule(&cpu, &kvm, out);
	if (choice == ENGINE_KVM && !have_kvm_engine)
		return error_set(err, -ENOTSUP,
				 "--engine kvm: the KVM engine is not in this version yet; use "
				 "--engine soft, or auto");
	if (choice == ENGINE_KVM && !out->kvm_capable)
		return error_set(err, -ENOTSUP, "--engine kvm: %s; use --engine soft, or auto",
				 out->reason);
	if (choice == ENGINE_SOFT) {
		out->engine = ENGINE_SOFT;
		REASON("asked for");
	} else if (choice == ENGINE_KVM) {
		out->engine = ENGINE_KVM;
		REASON("asked for");
	}
	return 0;
}
