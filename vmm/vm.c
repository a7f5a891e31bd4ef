#include "vmm/vm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "migration/clock.h"
#include "vmm/board/pc.h"
#include "vmm/chardev.h"
#include "vmm/exit_codes.h"
#include "vmm/message.h"
#include "vmm/outgoing.h"
#include "vmm/testing.h"
#include "vmm/testing_missing.h"
#include "vmm/vm_internal.h"

static void quit(void *opaque, int code)
{
	struct vm *vm = opaque;

	loop_stop(vm->loop, code);
}

static int open_line(struct vm *vm, const char *name, const struct serial_config *config,
		     struct chardev **out, struct error *err)
{
	struct logfile log = {.fd = -1};
	const struct chardev_env env = {.loop = vm->loop,
					.name = name,
					.log = &log,
					.append = vm->arrival,
					.later = vm->arrival,
					.quiet = vm->config->quiet,
					.quit = quit,
					.opaque = vm};
	int ret = 0;

	if (config->kind == SERIAL_ATTACH)
		ret = presence_line_log(vm->presence, name, &log, err);
	if (!ret)
		ret = chardev_create(out, config, &env, err);
	if (ret)
		logfile_close(&log);
	return ret;
}

static int open_lines(struct vm *vm, struct error *err)
{
	static const char *const names[BOARD_SERIAL_MAX] = {"serial0", "serial1", "serial2",
							    "serial3"};
	int ret = 0;

	for (unsigned i = 0; i < vm->config->serial_count && !ret; i++)
		ret = open_line(vm, names[i], &vm->config->serial[i], &vm->serial[i], err);
	if (!ret && vm->config->console_count)
		ret = open_line(vm, "console0", &vm->config->console[0], &vm->console, err);
	return ret;
}

static int open_backends(struct vm *vm, struct error *err)
{
	vm->backends.host = (struct backend_host){.watches = loop_watches(vm->loop),
						  .works = loop_works(vm->loop),
						  .timers = loop_timers(vm->loop),
						  .clock = loop_clock(vm->loop)};
	vm->backends.later = vm->arrival;
	vm->backends.disk_full = vm_disk_full;
	vm->backends.opaque = vm;
	return backends_open(&vm->backends, vm->config, vm->presence->name.name, err);
}

static int create_board(struct vm *vm, struct error *err)
{
	vm->board_host = (struct board_host){
		.vcpus = vm->vcpu_count,
		.serials = vm->config->serial_count,
		.debug_exit = (uint16_t)vm->config->debug_exit,
		.timer_hz = PC_CRYSTAL_HZ,
		.pins = &vm->pins,
		.sink = &vm->sink,
		.clock = loop_clock(vm->loop),
		.timers = loop_timers(vm->loop),
		.tsc = &vm->tsc,
		.works = loop_works(vm->loop),
		.dma = &vm->dma,
	};

	vm->dma = memory_dma(&vm->memory);
	vm->board_host.balloon = vm_balloon_config(vm);
	vm->board_host.console = vm->console;
	vm->board_host.disk = vm->backends.disk;
	vm->board_host.disks = vm->backends.disks;
	vm->board_host.card = vm->backends.card;
	vm->board_host.cards = vm->backends.cards;
	vm->board_host.vsock = vm->backends.vsocks ? &vm->backends.vsock : NULL;
	memcpy(vm->board_host.serial, vm->serial, sizeof(vm->serial));
	return board_pc_create(&vm->board, &vm->board_host, err);
}

static void written(void *opaque, uint64_t hpa, uint64_t len)
{
	struct vm *vm = opaque;

	vm->engine_ops->written(vm->engine, hpa, len);
}

static void look_again(void *arg)
{
	memory_arrived(&((struct vm *)arg)->memory);
}

static void arrived(void *opaque)
{
	struct vm *vm = opaque;

	loop_work_post(vm->loop, &vm->memory_work);
}

static int create_engine(struct vm *vm, struct error *err)
{
	const struct engine_config config = {
		.s2 = vm->memory.s2,
		.memory = vm->memory.host,
		.memory_size = vm->memory.size,
		.vcpus = vm->vcpu_count,
		.bus = &vm->bus,
		.test_no_remote_code = testing_has("no-remote-code"),
		.test_no_remote_flush = testing_has("no-remote-flush"),
	};
	int ret = vm->engine_ops->create(&vm->engine, &config, err->text, sizeof(err->text));

	if (ret)
		return ret;
	vm->memory.written = testing_has("no-device-code") ? NULL : written;
	vm->memory.written_opaque = vm;
	vm->memory_work = (struct loop_work){.fn = look_again, .arg = vm};
	vm->memory.arrived = arrived;
	vm->memory.arrived_opaque = vm;
	return 0;
}

static void device_says(void *opaque, const char *line)
{
	(void)opaque;
	message("%s", line);
}

/* Everything that can fail for a reason of the user's comes before anything that the guest could
 * see. */
static int create(struct vm *vm, struct error *err)
{
	const struct run_config *config = vm->config;
	const struct boot_request request = {
		.kernel = config->kernel, .initrd = config->initrd, .cmdline = config->append};
	int ret;

	if (vm->arrival) {
		vm->image = vm->arrival->image;
		vm->arrival->image = NULL;
	} else {
		ret = boot_open(&vm->image, &request, err);
		if (ret)
			return ret;
	}
	ret = loop_create(&vm->loop, err);
	if (!ret)
		ret = loop_stop_on_signals(vm->loop);
	if (ret)
		return ret;
	dispatch_init(vm);
	vcpu_pins_init(vm);
	lifecycle_init(vm);
	ret = memory_create(&vm->memory, config->memory,
			    (config->overcommit ? MEMORY_OVERCOMMIT : 0u) |
				    (config->shared ? MEMORY_SHARED : 0u) |
				    (config->hugepages ? MEMORY_HUGEPAGES : 0u),
			    err);
	if (!ret)
		ret = create_engine(vm, err);
	if (!ret)
		ret = open_lines(vm, err);
	if (!ret)
		ret = open_backends(vm, err);
	if (!ret)
		ret = create_board(vm, err);
	if (!ret)
		ret = vcpus_start(vm, err);
	if (!ret)
		ret = vm->arrival ? 0 : vm_boot(vm, err);
	return ret ? ret : vm_control_start(vm, err);
}

static void say_start(const struct vm *vm)
{
	char size[32];

	if (vm->config->quiet)
		return;
	config_size_text(vm->config->memory, size, sizeof(size));
	message("engine %s: %s", vm->engine_ops->name, vm->host_engine.reason);
	message("%u vCPU%s (%s), %s, board %s: %s", vm->vcpu_count, vm->vcpu_count > 1 ? "s" : "",
		vm->cpuid.model->name, size, vm->board.name, boot_describe(vm->image));
	if (testing_active())
		message("FERRY_TEST is set: this run tests ferry itself");
}

static void parent_gone(void *opaque)
{
	struct vm *vm = opaque;

	message("the process that started this machine has ended; nohup or --detach let it go on");
	loop_stop(vm->loop, EXIT_SIGNAL + SIGHUP);
}

/* In this order: whoever waits on the control socket for its end finds the name free and all else
 * given back, but for plain memory: that takes the kernel up to 0.2 s for each GiB. */
static void destroy(struct vm *vm, struct runtime_end *end)
{
	outgoing_end(vm);
	if (vm->arrival)
		vm->arrival->finish(vm->arrival);
	vcpus_end(vm);
	testing_missing_end(vm);
	parent_unwatch(vm->parent);
	if (vm->roundtrip_timer)
		loop_timers(vm->loop)->destroy(vm->roundtrip_timer);
	vm_balloon_end(vm);
	board_destroy(&vm->board);
	backends_close(&vm->backends);
	for (unsigned i = 0; i < BOARD_SERIAL_MAX; i++)
		chardev_destroy(vm->serial[i]);
	chardev_destroy(vm->console);
	if (vm->engine)
		vm->engine_ops->destroy(vm->engine);
	if (vm->memory.hugepages)
		memory_destroy(&vm->memory); /* the next one may need just these */
	/* Who has waited for it says himself why it never ran. */
	if (end || vm->presence == &vm->own_presence)
		presence_end(vm->presence, end);
	control_destroy(vm->control);
	memory_destroy(&vm->memory);
	boot_close(vm->image);
	loop_destroy(vm->loop);
	pthread_cond_destroy(&vm->changed);
	pthread_mutex_destroy(&vm->lock);
}

/* From the guest's first instruction to its last. */
static void live(struct vm *vm, const struct vm_observer *observer)
{
	int code;

	say_start(vm);
	vm->start_ns = clock_now();
	if (!vm->config->detach)
		vm->parent = parent_watch(vm->loop, parent_gone, vm);
	if (!vm->arrival)
		lifecycle_start(vm);
	if (observer) {
		vm->process_ns = observer->begun;
		observer->running(observer->opaque, vm->presence->name.name);
	}
	vm->result = (struct vm_result){.end = VM_END_STOPPED};
	code = loop_run(vm->loop);
	if (vm->result.end == VM_END_STOPPED)
		vm->result.code = (uint32_t)code;
	lifecycle_end(vm);
}

static struct vm *allocate(const struct run_config *config)
{
	struct vm *vm = calloc(1, sizeof(*vm));

	if (!vm)
		return NULL;
	vm->config = config;
	vm->vcpu_count = config->cpus;
	vm->memory.fd = -1;
	vm->backends.vsock_dir = -1;
	vm->engine_ops = &engine_soft;
	pthread_mutex_init(&vm->lock, NULL);
	pthread_cond_init(&vm->changed, NULL);
	vm->cpuid.model = config->cpu_model ? x86_model_find(config->cpu_model) : &x86_models[0];
	return vm;
}

/* One that was waited for is seen already. */
static int appear(struct vm *vm, struct error *err)
{
	const struct run_config *config = vm->config;

	if (vm->arrival && vm->arrival->presence) {
		vm->presence = vm->arrival->presence;
		return presence_arrived(vm->presence, config->name, err);
	}
	vm->presence = &vm->own_presence;
	return presence_begin(vm->presence, config->name, config->pidfile, config->detach, err);
}

int vm_run_arrival(const struct run_config *config, struct vm_arrival *arrival,
		   const struct vm_observer *observer, struct vm_result *result, struct error *err)
{
	struct vm *vm = allocate(config);
	struct runtime_end end;
	int ret;

	if (!vm)
		return error_set(err, -ENOMEM, "no memory");
	vm->arrival = arrival;
	dev_log_set_sink(device_says, NULL);
	ret = appear(vm, err);
	if (!ret)
		ret = host_choose_engine(config->engine, &vm->host_engine, err);
	if (!ret)
		ret = create(vm, err);
	if (!ret && arrival) {
		lifecycle_arrive(vm);
		ret = arrival->begin(arrival, vm, err);
	}
	if (!ret && testing_number("missing") > 0)
		ret = testing_missing_start(vm, testing_number("missing"));
	if (!ret && testing_number("roundtrip") > 0)
		ret = lifecycle_start_roundtrips(vm, testing_number("roundtrip"));
	if (!ret) {
		live(vm, observer);
		*result = vm->result;
		end.exit_code = exit_code_of(result);
		exit_reason(result, end.reason, sizeof(end.reason));
		vm_control_end(vm, &end);
		if (config->stats)
			vm_stats_write(vm, config->stats);
		if ((result->end == VM_END_ENGINE || result->end == VM_END_ABSENT) && err)
			*err = vm->engine_error;
	}
	destroy(vm, ret ? NULL : &end);
	free(vm);
	return ret;
}

int vm_run(const struct run_config *config, const struct vm_observer *observer,
	   struct vm_result *result, struct error *err)
{
	return vm_run_arrival(config, NULL, observer, result, err);
}
