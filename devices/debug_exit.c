/* The exit device of guest tests: as isa-debug-exit of QEMU, so that kvm-unit-tests work unchanged.
 */
#include "devices/pc.h"

#include <errno.h>
#include <stdlib.h>

struct debug_exit {
	struct device dev;
	struct io_space *ports;
	uint16_t port;
	struct machine_sink sink;
};

static uint64_t debug_exit_read(void *opaque, unsigned vcpu, uint64_t off, unsigned size)
{
	(void)opaque, (void)vcpu, (void)off, (void)size;
	return 0;
}

static void debug_exit_write(void *opaque, unsigned vcpu, uint64_t off, unsigned size,
			     uint64_t value)
{
	struct debug_exit *d = opaque;

	(void)vcpu, (void)off, (void)size;
	d->sink.event(d->sink.opaque, MACHINE_DEBUG_EXIT, (uint32_t)value);
}

static void debug_exit_reset(struct device *dev)
{
	(void)dev;
}

static void debug_exit_destroy(struct device *dev)
{
	struct debug_exit *d = (struct debug_exit *)dev;

	io_space_remove(d->ports, d->port);
	free(d);
}

static const struct io_region_ops debug_exit_io = {debug_exit_read, debug_exit_write};
static const struct device_ops debug_exit_ops = {.reset = debug_exit_reset,
						 .destroy = debug_exit_destroy};
static const struct field debug_exit_fields[] = {FIELD_END};
static const struct state_desc debug_exit_state = {
	.name = "debug-exit", .version = 1, .fields = debug_exit_fields};

int debug_exit_create(struct device **out, struct io_space *ports, uint16_t port,
		      const struct machine_sink *sink)
{
	struct debug_exit *d = calloc(1, sizeof(*d));
	struct io_region region = {
		.base = port, .size = 4, .ops = &debug_exit_io, .opaque = d, .name = "debug-exit"};
	int ret;

	if (!d)
		return -ENOMEM;
	d->dev = (struct device){
		.name = "debug-exit", .ops = &debug_exit_ops, .state = &debug_exit_state};
	d->ports = ports;
	d->port = port;
	d->sink = *sink;
	ret = io_space_add(ports, &region);
	if (ret) {
		free(d);
		return ret;
	}
	*out = &d->dev;
	return 0;
}
