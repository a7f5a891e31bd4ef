/* pvpanic: docs/specs/pvpanic.rst of QEMU; Linux drivers/misc/pvpanic/. */
#include "devices/pc.h"

#include <errno.h>
#include <stdlib.h>

#define PVPANIC_PORT	 0x505
#define PVPANIC_PANICKED 0x01

struct pvpanic {
	struct device dev;
	struct io_space *ports;
	struct machine_sink sink;
};

static uint64_t pvpanic_read(void *opaque, unsigned vcpu, uint64_t off, unsigned size)
{
	(void)opaque, (void)vcpu, (void)off, (void)size;
	return PVPANIC_PANICKED; /* the events that are understood */
}

static void pvpanic_write(void *opaque, unsigned vcpu, uint64_t off, unsigned size, uint64_t value)
{
	struct pvpanic *p = opaque;

	(void)vcpu, (void)off, (void)size;
	if (value & PVPANIC_PANICKED)
		p->sink.event(p->sink.opaque, MACHINE_PANIC, (uint32_t)value);
	else
		dev_log(p->dev.name, "event 0x%x ignored", (unsigned)value);
}

static void pvpanic_reset(struct device *dev)
{
	(void)dev;
}

static void pvpanic_destroy(struct device *dev)
{
	struct pvpanic *p = (struct pvpanic *)dev;

	io_space_remove(p->ports, PVPANIC_PORT);
	free(p);
}

static const struct io_region_ops pvpanic_io = {pvpanic_read, pvpanic_write};
static const struct device_ops pvpanic_ops = {.reset = pvpanic_reset, .destroy = pvpanic_destroy};
static const struct field pvpanic_fields[] = {FIELD_END};
static const struct state_desc pvpanic_state = {
	.name = "pvpanic", .version = 1, .fields = pvpanic_fields};

int pvpanic_create(struct device **out, struct io_space *ports, const struct machine_sink *sink)
{
	struct pvpanic *p = calloc(1, sizeof(*p));
	struct io_region region = {.base = PVPANIC_PORT,
				   .size = 1,
				   .ops = &pvpanic_io,
				   .opaque = p,
				   .name = "pvpanic"};
	int ret;

	if (!p)
		return -ENOMEM;
	p->dev = (struct device){.name = "pvpanic", .ops = &pvpanic_ops, .state = &pvpanic_state};
	p->ports = ports;
	p->sink = *sink;
	ret = io_space_add(ports, &region);
	if (ret) {
		free(p);
		return ret;
	}
	*out = &p->dev;
	return 0;
}
