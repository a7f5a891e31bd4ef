/* The machine as a migration sees it (migration/machine.h). Functions run on the migration's
 * thread; what belongs to the loop's is called there. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "migration/clock.h"
#include "vmm/description.h"
#include "vmm/outgoing_internal.h"
#include "vmm/state.h"

enum { AGAIN_US = 1000 };

/* Runs fn on the loop's thread; it answers with answer(), at once or later. */
static int call(struct outgoing *o, void (*fn)(void *arg), struct stream_error *err)
{
	int ret = loop_call(&o->call, fn, o);

	if (ret == -ECANCELED)
		return stream_fail(err, NULL, ret, "the machine has ended");
	return ret ? stream_fail(err, NULL, ret, "%s", o->err.text) : 0;
}

static void answer(struct outgoing *o, int result)
{
	loop_call_answer(&o->call, result);
}

/* ---- stop and go on --------------------------------------------------------------------- */

static void goes_on(struct outgoing *o)
{
	const struct clock_source *clock = loop_clock(o->vm->loop);

	/* Guest time has gone on meanwhile, as it does over a move; not that of a guest that is
	 * paused, or has not been stopped yet. */
	if (!(o->vm->holds & ~(unsigned)VM_HOLD_MOVE) && o->vm->motion != VM_MOVING)
		loop_clock_set(o->vm->loop,
			       clock->now(clock->opaque) + clock_now() - o->stopped_ns);
	vm_resume(o->vm, VM_HOLD_MOVE);
}

static void still(void *arg, int code)
{
	struct outgoing *o = arg;
	struct vm *vm = o->vm;

	o->stopping = false;
	/* What the guest has asked for and nobody has looked at yet (a reset, its end) happens
	 * here, not there. */
	if (!code && (atomic_load(&vm->events) || (vm->holds & VM_HOLD_RESET))) {
		vm_resume(vm, VM_HOLD_MOVE);
		code = -EAGAIN;
	}
	error_set(&o->err, code, "the machine is busy");
	answer(o, code);
}

static void stop_now(void *arg)
{
	struct outgoing *o = arg;
	struct pollfd wake = {.fd = o->wake_fd, .events = POLLIN};
	const int ret = poll(&wake, 1, 0) > 0			  ? -EINTR
			: vm_pause(o->vm, VM_HOLD_MOVE, still, o) ? -ENOMEM
								  : 0;

	o->stopping = !ret;
	/* -ECANCELED is said of a machine that has ended. */
	error_set(&o->err, ret, ret == -ENOMEM ? "no memory" : "called off");
	if (ret)
		answer(o, ret);
}

void outgoing_stop_cancel(struct outgoing *o)
{
	if (!o->stopping)
		return;
	o->stopping = false;
	vm_pause_forget(o->vm, still, o);
	goes_on(o);
	error_set(&o->err, -EINTR, "called off");
	answer(o, -EINTR);
}

static int source_stop(void *opaque, struct stream_error *err)
{
	struct outgoing *o = opaque;
	int ret;

	if (o->stopped)
		return 0;
	do {
		o->stopped_ns = clock_now();
		ret = call(o, stop_now, err);
		if (ret == -EAGAIN)
			usleep(AGAIN_US);
	} while (ret == -EAGAIN);
	o->stopped = !ret;
	return ret == -EINTR ? -ECANCELED : ret;
}

static void release_now(void *arg)
{
	struct outgoing *o = arg;
	answer(o, vm_release(o->vm, &o->err));
}

static int source_release(void *opaque, struct stream_error *err)
{
	struct outgoing *o = opaque;
	int ret;

	if (o->released)
		return 0;
	o->released = true;
	ret = call(o, release_now, err);
	return ret;
}

static void take_back_now(void *arg)
{
	struct outgoing *o = arg;
	int ret = o->released ? vm_acquire(o->vm, &o->err) : 0;

	if (!ret)
		goes_on(o);
	answer(o, ret);
}

static int source_take_back(void *opaque, struct stream_error *err)
{
	struct outgoing *o = opaque;
	int ret;

	if (!o->stopped)
		return 0;
	ret = call(o, take_back_now, err);
	if (!ret)
		o->stopped = o->released = false;
	return ret;
}

static void memory_now(void *arg)
{
	struct outgoing *o = arg;

	const struct vm *vm = o->vm;

	error_set(&o->err, 0, "memory of the guest is lost: %s", vm->lacks);
	answer(o, vm->lacks[0] ? -EIO : vm->memory.incomplete ? -EAGAIN : 0);
}

int outgoing_wait_memory(struct outgoing *o, struct stream_error *err)
{
	struct pollfd wake = {.fd = o->wake_fd, .events = POLLIN};
	int ret;

	while ((ret = call(o, memory_now, err)) == -EAGAIN)
		if (poll(&wake, 1, 20) > 0)
			return stream_fail(err, NULL, -ECANCELED, "called off");
	return ret;
}

/* ---- what is sent ----------------------------------------------------------------------- */

static int source_describe(void *opaque, struct stream_writer *w, struct stream_error *err)
{
	struct outgoing *o = opaque;
	struct error why = {""};
	int ret = description_write(w, &o->description, &why);

	return ret ? stream_fail(err, NULL, ret, "%s", why.text) : 0;
}

static int source_image(void *opaque, const void **data, size_t *len, struct stream_error *err)
{
	const struct outgoing *o = opaque;
	struct error why = {""};
	int ret = boot_bytes(o->vm->image, data, len, &why);

	return ret ? stream_fail(err, NULL, ret, "%s", why.text) : 0;
}

_Static_assert((int)BOOT_DIGEST == (int)STREAM_IMAGE_DIGEST, "both are SHA-256");

static int source_digest(void *opaque, uint8_t digest[BOOT_DIGEST], struct stream_error *err)
{
	const struct outgoing *o = opaque;
	struct error why = {""};
	int ret = boot_digest(o->vm->image, digest, &why);

	return ret ? stream_fail(err, NULL, ret, "%s", why.text) : 0;
}

static const uint8_t *source_page(void *opaque, uint64_t page)
{
	const struct outgoing *o = opaque;

	return memory_page(&o->vm->memory, page);
}

/* Write-protection as it comes, for what an emulator is: it takes a fault for the first write to a
 * page in every mode. Splitting before (S2_DIRTY_EAGER) saves half a microsecond for each 2 MiB
 * that are written, once. Dirty bits save no fault, and each harvest looks at every leaf.
 * Protecting piece by piece before each is copied (S2_DIRTY_MANUAL) takes a flush of all TLBs, and
 * a wait for each vCPU, for each piece and not for each round; of a guest that rewrites 64 MiB it
 * left 13,700 dirty pages a round, in pieces of 16 MiB, where this leaves 14,700. */
static int source_track(void *opaque, bool on, struct stream_error *err)
{
	struct outgoing *o = opaque;
	int ret = 0;

	if (on != o->tracked)
		ret = on ? s2_dirty_start(o->s2) : s2_dirty_stop(o->s2);
	if (ret)
		return stream_fail(err, NULL, ret, "cannot track what the guest writes: %s",
				   strerror(-ret));
	o->tracked = on;
	return 0;
}

static int64_t source_harvest(void *opaque, uint64_t first, uint64_t pages, uint64_t *bitmap)
{
	struct outgoing *o = opaque;

	return s2_dirty_harvest(o->s2, first * STREAM_PAGE, pages, bitmap);
}

static void source_throttle(void *opaque, uint64_t rate)
{
	struct outgoing *o = opaque;

	vm_throttle(o->vm, rate / STREAM_PAGE);
}

/* Nothing of the machine moves: the thread may look at it. */
static void state_now(void *arg)
{
	struct outgoing *o = arg;
	struct field_buf *buf = o->state;

	answer(o, vm_state_save(o->vm, buf, &o->err));
}

static int source_state(void *opaque, struct field_buf *buf, struct stream_error *err)
{
	struct outgoing *o = opaque;

	o->state = buf;
	return call(o, state_now, err);
}

static uint64_t source_guest_time(void *opaque)
{
	const struct outgoing *o = opaque;
	const struct clock_source *clock = loop_clock(o->vm->loop);
	uint64_t now = clock->now(clock->opaque);

	return o->vm->holds & VM_HOLD_USER ? now : now + clock_now() - o->stopped_ns;
}

static const struct migration_source_ops source_ops = {
	.describe = source_describe,
	.image = source_image,
	.digest = source_digest,
	.page = source_page,
	.track = source_track,
	.harvest = source_harvest,
	.throttle = source_throttle,
	.stop = source_stop,
	.state = source_state,
	.release = source_release,
	.take_back = source_take_back,
	.guest_time = source_guest_time,
};

int outgoing_source_init(struct outgoing *o, struct error *err)
{
	struct vm *vm = o->vm;
	int ret = description_of(&o->description, vm->config, vm->presence->name.name,
				 vm->cpuid.model->name);

	loop_call_init(&o->call, vm->loop);
	o->source = (struct migration_source){
		.ops = &source_ops, .opaque = o, .arch = "x86_64", .ferry = FERRY_VERSION};
	memory_layout(&vm->memory, &o->source.memory);
	for (uint32_t i = 0; i < o->description.disk_count && !ret; i++)
		o->description.disk[i].size = vm->backends.block[i]->size;
	if (!ret)
		ret = s2_thread_init(&o->s2, vm->memory.s2, "migration");
	return ret ? error_set(err, ret, "cannot begin: %s", strerror(-ret)) : 0;
}

void outgoing_source_exit(struct outgoing *o)
{
	loop_call_exit(&o->call);
	if (o->s2)
		s2_thread_exit(o->s2);
	config_free(run_config_fields, &o->description);
}
