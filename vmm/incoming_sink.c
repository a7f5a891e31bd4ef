/* The machine that comes, as a migration sees it (migration/machine.h). */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "migration/clock.h"
#include "migration/stream_memory.h"
#include "vmm/description.h"
#include "vmm/incoming_internal.h"
#include "vmm/outgoing_internal.h"
#include "vmm/state.h"

/* The name is for people: where another machine has it, this one gets a new one. */
static void find_name(struct run_config *config)
{
	struct runtime runtime;

	if (runtime_open(&runtime, NULL))
		return;
	if (config->name && runtime_holder(&runtime, config->name)) {
		free(config->name);
		config->name = NULL;
	}
	runtime_close(&runtime);
}

static int sink_description(void *opaque, const struct stream_frame *frame,
			    struct stream_error *err)
{
	struct incoming *in = opaque;
	struct error why = {""};
	int ret = description_read(frame, &in->config, &why);

	if (!ret)
		ret = incoming_override(&in->config, in->how, &why);
	if (!ret && !in->how->name)
		find_name(&in->config);
	return ret ? stream_fail(err, NULL, ret, "%s", why.text) : 0;
}

static int sink_image(void *opaque, const struct stream_piece *piece, struct stream_error *err)
{
	return incoming_image(opaque, piece, err);
}

static void sink_seek(void *opaque)
{
	incoming_image_seek(opaque);
}

static void sink_own(void *opaque, uint8_t digest[STREAM_IMAGE_DIGEST])
{
	incoming_image_own(opaque, digest);
}

static int sink_check(void *opaque, bool wait, struct stream_error *err)
{
	struct error why = {""};
	int ret = incoming_image_check(opaque, wait, &why);

	return ret ? stream_fail(err, NULL, ret, "%s", why.text) : 0;
}

static uint8_t *sink_page(void *opaque, uint64_t page)
{
	const struct incoming *in = opaque;

	return memory_page(&in->vm->memory, page);
}

static void sink_clear(void *opaque, uint64_t first, uint32_t count)
{
	const struct incoming *in = opaque;

	memory_clear(&in->vm->memory, first, count);
}

static int sink_load(void *opaque, const void *state, size_t len, struct stream_error *err)
{
	struct incoming *in = opaque;
	struct error why = {""};
	int ret = vm_state_load(in->vm, state, len, &why);

	if (!ret && !in->vm->image) {
		in->vm->image = in->arrival.image;
		in->arrival.image = NULL;
	}
	return ret ? stream_fail(err, NULL, ret, "%s", why.text) : 0;
}

static int sink_start(void *opaque, const struct stream_run *run, struct stream_error *err)
{
	struct incoming *in = opaque;
	const uint64_t since = clock_now();
	struct error why = {""};
	int ret;

	if (run)
		loop_clock_set(in->vm->loop, run->guest);
	ret = vm_acquire(in->vm, &why);
	if (ret)
		return stream_fail(err, NULL, ret, "%s", why.text);
	/* That may have taken a while, a disk's server for example. */
	if (run && !(in->vm->holds & VM_HOLD_USER))
		loop_clock_set(in->vm->loop, run->guest + clock_now() - since);
	vm_resume(in->vm, VM_HOLD_MOVE);
	return 0;
}

static int sink_miss(void *opaque, uint64_t first, uint64_t pages, const uint64_t *bitmap,
		     struct stream_error *err)
{
	return incoming_miss(opaque, first, pages, bitmap, err);
}

static int64_t sink_bring(void *opaque, uint64_t first, uint32_t count, const void *data)
{
	return incoming_bring(opaque, first, count, data);
}

static bool sink_wanted(void *opaque, uint64_t *page)
{
	return incoming_wanted(opaque, page);
}

static void sink_want_again(void *opaque)
{
	incoming_want_again(opaque);
}

static int sink_wanted_fd(void *opaque)
{
	return ((struct incoming *)opaque)->wanted.fd;
}

static uint64_t sink_awaited(void *opaque, uint64_t page)
{
	return incoming_awaited(opaque, page);
}

static int sink_complete(void *opaque, struct stream_error *err)
{
	return incoming_complete(opaque, err);
}

const struct migration_sink_ops incoming_sink = {
	.description = sink_description,
	.image = sink_image,
	.seek = sink_seek,
	.own = sink_own,
	.check = sink_check,
	.page = sink_page,
	.clear = sink_clear,
	.load = sink_load,
	.start = sink_start,
	.miss = sink_miss,
	.bring = sink_bring,
	.wanted = sink_wanted,
	.want_again = sink_want_again,
	.wanted_fd = sink_wanted_fd,
	.awaited = sink_awaited,
	.complete = sink_complete,
};

static int check_disks(const struct vm *vm, struct error *err)
{
	for (uint32_t i = 0; i < vm->config->disk_count; i++) {
		const struct disk_config *disk = &vm->config->disk[i];
		const uint64_t here = vm->backends.block[i]->size;

		if (disk->size && disk->size != here)
			return error_set(err, -EINVAL,
					 "--disk: %s has %" PRIu64
					 " bytes here, the guest's disk has %" PRIu64,
					 disk->file, here, disk->size);
	}
	return 0;
}

int incoming_check(struct incoming *in, const struct stream_memory *memory, struct error *err)
{
	struct stream_memory mine;

	if (!in->vm->image && !in->from.arrival.late_images &&
	    in->file.images == in->file.images_end)
		return error_set(err, -EPROTO, "the stream has nothing to boot again from");
	memory_layout(&in->vm->memory, &mine);
	for (uint32_t i = 0; i < mine.count && mine.count == memory->count; i++) {
		if (mine.region[i].first != memory->region[i].first ||
		    mine.region[i].count != memory->region[i].count)
			mine.count = 0;
	}
	if (mine.count != memory->count)
		return error_set(err, -EPROTO,
				 "the stream's memory is not that of the machine it describes");
	return check_disks(in->vm, err);
}

void incoming_init(struct incoming *in, const struct incoming_config *how)
{
	*in = (struct incoming){.how = how};
	config_init(run_config_fields, &in->config, sizeof(in->config));
}

void incoming_exit(struct incoming *in)
{
	incoming_image_exit(in);
	config_free(run_config_fields, &in->config);
}
