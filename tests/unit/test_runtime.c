/* Runtime folder, names, pidfile, and what the host offers (from copies of /proc and /sys). */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "vmm/cleanup.h"
#include "vmm/exit_codes.h"
#include "vmm/host.h"
#include "vmm/runtime.h"
#include "vmm/unix_socket.h"

#define CHECK_TEXT err.text
#include "tests/unit/check.h"

static char top[] = "/tmp/ferry-test-XXXXXX";
static struct error err;

static char *path(const char *name)
{
	static char buf[4][1024];
	static unsigned turn;
	char *at = buf[turn++ % 4];

	snprintf(at, sizeof(buf[0]), "%s/%s", top, name);
	return at;
}

static bool exists(const char *name)
{
	return !access(path(name), F_OK);
}

static void put(const char *name, const char *text)
{
	FILE *file = fopen(path(name), "w");

	CHECK(file);
	fputs(text, file);
	fclose(file);
}

static void make_dir(const char *name)
{
	CHECK(!mkdir(path(name), 0700) || errno == EEXIST);
}

static void test_folder(void)
{
	struct runtime runtime;
	char deep[400];
	struct stat st;

	memset(deep, 0, sizeof(deep));
	for (int i = 0; i < 5; i++)
		strcat(deep, "deep/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/");
	setenv("FERRY_RUNTIME_DIR", path(deep), 1);
	CHECK(runtime_open(&runtime, &err) == 0);
	CHECK(!stat(path(deep), &st) && (st.st_mode & 0777) == 0700);
	/* A socket in it, though the path is too long for sun_path. */
	int fd = unix_listen(runtime.dir_fd, "vm.sock", 1, &err);
	int peer = unix_connect(runtime.dir_fd, "vm.sock", &err);

	CHECK(fd >= 0 && peer >= 0);
	close(peer);
	close(fd);
	runtime_close(&runtime);

	make_dir("open");
	chmod(path("open"), 0755);
	setenv("FERRY_RUNTIME_DIR", path("open"), 1);
	CHECK(runtime_open(&runtime, &err) == 0); /* any mode */
	runtime_close(&runtime);
	put("file", "");
	setenv("FERRY_RUNTIME_DIR", path("file"), 1);
	CHECK(runtime_open(&runtime, &err) == -ENOTDIR && strstr(err.text, "FERRY_RUNTIME_DIR"));

	unsetenv("FERRY_RUNTIME_DIR");
	make_dir("xdg");
	setenv("XDG_RUNTIME_DIR", path("xdg"), 1);
	CHECK(runtime_open(&runtime, &err) == 0 && exists("xdg/ferry"));
	runtime_close(&runtime);
	/* A private folder is closed to others, and no way to somewhere else. */
	chmod(path("xdg/ferry"), 0755);
	CHECK(runtime_open(&runtime, &err) == -EPERM && strstr(err.text, "0700"));
	CHECK(rmdir(path("xdg/ferry")) == 0 && symlink("..", path("xdg/ferry")) == 0);
	CHECK(runtime_open(&runtime, &err) < 0);
	unlink(path("xdg/ferry"));
	setenv("FERRY_RUNTIME_DIR", path("run"), 1);
}

/* A child that claims a name and keeps it until it is killed. */
static pid_t holder(struct runtime *runtime, const char *name)
{
	struct runtime_name claim;
	int fds[2];
	pid_t pid;
	char c;

	CHECK(pipe(fds) == 0);
	pid = fork();
	if (!pid) {
		c = runtime_claim(&claim, runtime, name, &err) ? 'n' : 'y';
		(void)!write(fds[1], &c, 1);
		pause();
		_exit(0);
	}
	CHECK(read(fds[0], &c, 1) == 1 && c == 'y');
	close(fds[0]);
	close(fds[1]);
	return pid;
}

static void test_names(void)
{
	struct runtime_name a, b;
	struct runtime runtime;
	char pid_text[32];
	pid_t pid;

	CHECK(runtime_open(&runtime, &err) == 0);
	CHECK(runtime_claim(&a, &runtime, "one", &err) == 0 && exists("run/one.lock"));
	CHECK(runtime_claim(&b, &runtime, "one", &err) == -EEXIST);
	snprintf(pid_text, sizeof(pid_text), "process %d", (int)getpid());
	CHECK(strstr(err.text, pid_text) && strstr(err.text, "--name"));
	CHECK(runtime_claim(&b, &runtime, "two", &err) == 0);
	runtime_release(&b, false);
	runtime_release(&b, false);
	runtime_release(&a, false);
	CHECK(!exists("run/one.lock") && !exists("run/two.lock"));
	CHECK(runtime_claim(&a, &runtime, NULL, &err) == 0 && !strncmp(a.name, "vm-", 3));
	CHECK(runtime_claim(&b, &runtime, NULL, &err) == 0 && strcmp(a.name, b.name));
	runtime_release(&a, false);
	runtime_release(&b, false);
	CHECK(runtime_claim(&a, &runtime, "../x", &err) == -EINVAL);

	/* kill -9 leaves files; the next one takes the name and cleans up. */
	pid = holder(&runtime, "dead");
	CHECK(runtime_claim(&a, &runtime, "dead", &err) == -EEXIST);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	CHECK(exists("run/dead.lock"));
	put("run/dead.sock", "");
	CHECK(runtime_claim(&a, &runtime, "dead", &err) == 0 && !exists("run/dead.sock"));
	runtime_release(&a, false);
	CHECK(!exists("run/dead.lock"));
	/* Another name's claim cleans up as well, and leaves alone what lives or is not ours. */
	pid = holder(&runtime, "alive");
	put("run/dead2.lock", "1\n");
	put("run/dead2.sock", "");
	put("run/other.txt", "");
	CHECK(runtime_claim(&a, &runtime, "three", &err) == 0);
	CHECK(!exists("run/dead2.lock") && !exists("run/dead2.sock"));
	CHECK(exists("run/alive.lock") && exists("run/other.txt"));
	runtime_release(&a, false);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	unlink(path("run/alive.lock"));
	unlink(path("run/other.txt"));
	runtime_close(&runtime);
	CHECK(rmdir(path("run")) == 0);
}

static void test_records(void)
{
	struct runtime_end end = {
		.pid = 7, .exit_code = 6, .reason = "a \"reason\" \xff", .time = 1000};
	struct runtime_entry *list;
	struct runtime_name claim;
	struct runtime runtime;
	char name[80];
	pid_t pid;

	CHECK(runtime_open(&runtime, &err) == 0);
	/* A machine in the background: its end and logs stay, until the name is taken again. */
	CHECK(runtime_claim(&claim, &runtime, "bg", &err) == 0);
	CHECK(runtime_list(&runtime, &list, &err) == 1 && list[0].pid == getpid());
	free(list);
	CHECK(runtime_holder(&runtime, "bg") == getpid() && !runtime_holder(&runtime, "no"));
	put("run/bg.log", "");
	put("run/bg+serial0.log", "");
	put("run/bg+serial0.log.1", "");
	CHECK(runtime_end_write(runtime.dir_fd, "bg", &end) == 0);
	runtime_release(&claim, true);
	CHECK(!exists("run/bg.lock") && exists("run/bg.log") && exists("run/bg+serial0.log.1"));
	CHECK(!exists("run/bg+end"));
	CHECK(runtime_list(&runtime, &list, &err) == 1 && !list[0].pid);
	free(list);
	memset(&end, 0, sizeof(end));
	CHECK(runtime_end_read(runtime.dir_fd, "bg", &end) == 0 && end.pid == 7);
	CHECK(end.exit_code == 6 && end.time == 1000);
	CHECK(!strcmp(end.reason, "a \"reason\" \xef\xbf\xbd"));
	put("run/bad.end", "{\"pid\": \"x\"}");
	CHECK(runtime_end_read(runtime.dir_fd, "bad", &end) == -EINVAL);
	CHECK(runtime_end_read(runtime.dir_fd, "none", &end) == -ENOENT);
	unlink(path("run/bad.end"));
	CHECK(runtime_claim(&claim, &runtime, "bg", &err) == 0);
	CHECK(!exists("run/bg.log") && !exists("run/bg+serial0.log.1") && !exists("run/bg.end"));
	runtime_release(&claim, false);

	/* Killed: the next that looks writes down that nobody knows. */
	pid = holder(&runtime, "lost");
	put("run/lost.log", "");
	put("run/lost.sock", "");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	CHECK(runtime_list(&runtime, &list, &err) == 1 && !list[0].pid);
	free(list);
	CHECK(!exists("run/lost.lock") && !exists("run/lost.sock") && exists("run/lost.log"));
	CHECK(runtime_end_read(runtime.dir_fd, "lost", &end) == 0);
	CHECK(end.exit_code == EXIT_LOST && end.pid == pid);

	/* Too old; then too many. */
	const struct timespec day[2] = {{.tv_sec = time(NULL) - RUNTIME_KEEP_SECONDS - 60},
					{.tv_sec = time(NULL) - RUNTIME_KEEP_SECONDS - 60}};

	CHECK(!utimensat(runtime.dir_fd, "lost.end", day, 0));
	CHECK(runtime_list(&runtime, &list, &err) == 0);
	free(list);
	CHECK(!exists("run/lost.end") && !exists("run/lost.log") && !exists("run/lost.lock"));
	for (int i = 0; i < RUNTIME_KEEP_COUNT + 5; i++) {
		snprintf(name, sizeof(name), "m%d", i);
		CHECK(runtime_end_write(runtime.dir_fd, name, &end) == 0);
	}
	CHECK(runtime_list(&runtime, &list, &err) == RUNTIME_KEEP_COUNT);
	for (int i = 0; i < RUNTIME_KEEP_COUNT; i++)
		runtime_remove_records(runtime.dir_fd, list[i].name);
	free(list);
	runtime_close(&runtime);
	CHECK(rmdir(path("run")) == 0);
}

static void test_pidfile(void)
{
	struct pidfile a, b;
	char text[32];
	struct stat st;
	FILE *file;
	int pid;

	CHECK(pidfile_write(&a, path("pid"), &err) == 0);
	file = fopen(path("pid"), "r");
	CHECK(fscanf(file, "%d", &pid) == 1 && pid == getpid());
	fclose(file);
	pidfile_remove(&a);
	pidfile_remove(&a);
	CHECK(!exists("pid"));

	snprintf(text, sizeof(text), "%d\n", (int)getppid());
	put("pid", text);
	CHECK(pidfile_write(&a, path("pid"), &err) == -EEXIST && strstr(err.text, "running"));
	pid = fork();
	if (!pid)
		_exit(0);
	waitpid(pid, NULL, 0);
	snprintf(text, sizeof(text), "%d\n", pid);
	put("pid", text);
	CHECK(pidfile_write(&a, path("pid"), &err) == 0); /* stale */
	/* Our own number, from before a restart of the container. */
	CHECK(pidfile_write(&b, path("pid"), &err) == 0);
	pidfile_remove(&a);
	pidfile_remove(&b);
	put("pid", "#!/bin/sh\nprecious\n");
	CHECK(pidfile_write(&a, path("pid"), &err) == -EEXIST && strstr(err.text, "no pidfile"));
	CHECK(!stat(path("pid"), &st) && st.st_size == 19);
	unlink(path("pid"));
	CHECK(pidfile_write(&a, path("no/such/pid"), &err) == -ENOENT &&
	      strstr(err.text, "no/such"));
	CHECK(pidfile_write(&a, path(""), &err) == -EISDIR);
	pidfile_remove(&a);
}

/* A process that ends in the given way leaves nothing behind. */
static void test_ends(void)
{
	static const int signals[] = {0, SIGTERM, SIGINT, SIGHUP, SIGSEGV, SIGABRT};
	struct runtime_name claim;
	struct runtime runtime;
	struct pidfile pidfile;
	/* Not NULL: a sanitizer would end the process before its signal comes. */
	volatile int *volatile nowhere = (volatile int *)64;

	for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		int status;
		pid_t pid = fork();

		if (!pid) {
			close(STDERR_FILENO);
			open("/dev/null", O_WRONLY);
			cleanup_install();
			if (runtime_open(&runtime, &err) ||
			    runtime_claim(&claim, &runtime, "ends", &err) ||
			    pidfile_write(&pidfile, path("pid"), &err) || !exists("pid"))
				_exit(99);
			pid = fork();
			if (!pid)
				exit(0); /* a child's end undoes nothing of its parent's */
			waitpid(pid, NULL, 0);
			if (!exists("pid"))
				_exit(98);
			if (!signals[i])
				exit(0);
			if (signals[i] == SIGSEGV)
				*nowhere = 1;
			raise(signals[i]);
			_exit(97);
		}
		waitpid(pid, &status, 0);
		/* A sanitizer turns a crash into an exit. */
		CHECK(signals[i] ? WIFSIGNALED(status) || WEXITSTATUS(status) < 97 : !status);
		CHECK(!exists("pid") && !exists("run/ends.lock"));
	}
	rmdir(path("run"));
}

/* ---- the host ---- */

static void cpuinfo(const char *vendor, const char *flags, const char *vmx_flags)
{
	char text[512];

	snprintf(text, sizeof(text),
		 "processor\t: 0\nvendor_id\t: %s\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu "
		 "%s "
		 "sse2\nvmx flags\t: %s\n",
		 vendor, flags, vmx_flags);
	put("proc/cpuinfo", text);
}

static struct host_engine rule(int open_error)
{
	struct host_kvm kvm = {open_error, open_error ? -1 : 12};
	struct host_engine engine;
	struct host_cpu cpu;

	host_cpu_at(top, &cpu);
	host_engine_rule(&cpu, &kvm, &engine);
	CHECK(*engine.reason);
	return engine;
}

static void test_engine(void)
{
	struct host_engine engine;
	struct host_cpu cpu;

	cpuinfo("GenuineIntel", "vmx", "vnmi ept vpid");
	host_cpu_at(top, &cpu);
	if (strcmp(cpu.arch, "x86_64"))
		return;
	CHECK(cpu.extensions && cpu.second_level && !cpu.under_hypervisor);
	CHECK(!strcmp(cpu.vendor, "GenuineIntel") && !strcmp(cpu.model, "Some CPU @ 2 GHz"));
	CHECK(rule(0).kvm_capable && !rule(EACCES).kvm_capable);
	CHECK(strstr(rule(EACCES).reason, "denied"));
	cpuinfo("GenuineIntel", "vmx ept", "");
	CHECK(rule(0).kvm_capable); /* before Linux 5.10 */
	make_dir("sys");
	make_dir("sys/module");
	make_dir("sys/module/kvm_intel");
	make_dir("sys/module/kvm_intel/parameters");
	put("sys/module/kvm_intel/parameters/ept", "N\n");
	engine = rule(0);
	CHECK(!engine.kvm_capable && engine.engine == ENGINE_SOFT && strstr(engine.reason, "ept"));
	put("sys/module/kvm_intel/parameters/ept", "Y\n");
	CHECK(rule(0).kvm_capable);
	cpuinfo("GenuineIntel", "vmx", "vnmi");
	CHECK(!rule(0).kvm_capable);
	cpuinfo("AuthenticAMD", "svm npt hypervisor", "");
	CHECK(rule(0).kvm_capable);
	/* A KVM without the processor's help emulates: not taken. */
	cpuinfo("AuthenticAMD", "xsvm svmx hypervisor", "");
	engine = rule(0);
	CHECK(!engine.kvm_capable && engine.engine == ENGINE_SOFT &&
	      strstr(engine.reason, "software"));
	CHECK(!strstr(rule(ENOENT).reason, "software"));
	CHECK(host_choose_engine(ENGINE_SOFT, &engine, &err) == 0 && engine.engine == ENGINE_SOFT);
}

static void test_memory(void)
{
	struct host_memory memory;

	put("proc/meminfo", "MemTotal:  8388608 kB\nMemFree: 1 kB\nMemAvailable: 4194304 kB\n"
			    "SwapTotal: 1048576 kB\n");
	host_memory_at(top, &memory);
	CHECK(memory.ram == 8ull << 30 && memory.available == 4ull << 30 && !memory.limit);
	CHECK(memory.swap == 1ull << 30);

	make_dir("proc/self");
	make_dir("sys/fs");
	make_dir("sys/fs/cgroup");
	make_dir("sys/fs/cgroup/user");
	make_dir("sys/fs/cgroup/user/me");
	put("proc/self/cgroup", "0::/user/me\n");
	put("sys/fs/cgroup/user/memory.max", "2147483648\n");
	put("sys/fs/cgroup/user/memory.swap.max", "0\n");
	put("sys/fs/cgroup/user/me/memory.max", "max\n");
	host_memory_at(top, &memory);
	CHECK(memory.limit == 2ull << 30); /* of a group above */
	put("sys/fs/cgroup/user/me/memory.max", "1073741824\n");
	put("sys/fs/cgroup/user/me/memory.swap.max", "max\n");
	host_memory_at(top, &memory);
	CHECK(memory.limit == 2ull << 30); /* 1 GiB and all of the swap: as much */
	put("proc/self/cgroup", "0::/not/mounted/here\n");
	put("sys/fs/cgroup/memory.max", "536870912\n");
	put("sys/fs/cgroup/memory.swap.max", "0\n");
	host_memory_at(top, &memory);
	CHECK(memory.limit == 512ull << 20); /* in a container */
	unlink(path("sys/fs/cgroup/memory.max"));

	put("proc/self/cgroup", "9:name=systemd:/\n4:memory:/a\n0::/\n");
	make_dir("sys/fs/cgroup/memory");
	make_dir("sys/fs/cgroup/memory/a");
	put("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n");
	host_memory_at(top, &memory);
	CHECK(!memory.limit);
	put("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1073741824\n");
	put("sys/fs/cgroup/memory/a/memory.memsw.limit_in_bytes", "1610612736\n");
	host_memory_at(top, &memory);
	CHECK(memory.limit == 1536ull << 20);
	host_memory(&memory);
	CHECK(memory.ram > 0);
}

int main(void)
{
	char command[64];

	CHECK(mkdtemp(top));
	make_dir("proc");
	test_folder();
	test_names();
	test_records();
	test_pidfile();
	test_ends();
	test_engine();
	test_memory();
	snprintf(command, sizeof(command), "rm -r %s", top);
	return system(command) ? 1 : 0;
}
