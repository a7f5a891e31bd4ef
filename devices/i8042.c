/*
 * The keyboard controller of the AT (IBM Technical Reference, "Keyboard Controller"), with nothing
 * attached. What a guest sends to a keyboard or mouse is answered at once by what the controller
 * itself says of a dead line: FEh with the time-out bit. Drivers then give up without waiting.
 *
 * Port 92h (system control port A) lives here too: A20 (always on) and the fast reset.
 */
#include "devices/pc.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "devices/util.h"

#define STATUS_OBF     0x01
#define STATUS_SYS     0x04
#define STATUS_CMD     0x08
#define STATUS_UNLOCK  0x10
#define STATUS_AUX     0x20
#define STATUS_TIMEOUT 0x40

#define CTR_KBD_IRQ 0x01
#define CTR_AUX_IRQ 0x02
#define CTR_SYS	    0x04
#define CTR_RESET   0x75 /* both ports disabled, translation and system flag on */

#define OUT_AUX	    0x01 /* flags of one byte of the output queue */
#define OUT_TIMEOUT 0x02
#define OUT_SIZE    16

#define LINE_STUCK 0x01 /* the answer of the interface tests: the clock line is stuck low */

struct i8042 {
	struct device dev;
	pthread_mutex_t lock;
	struct io_space *ports;
	struct irq_line kbd, aux;
	struct machine_sink sink;

	uint8_t ram[32]; /* byte 0 is the command byte */
	uint8_t command; /* one that waits for its parameter, else 0 */
	uint8_t output;	 /* output port: bit 0 reset (1: not), bit 1 A20 */
	uint8_t port92;
	bool last_command;			    /* the last write went to 64h */
	uint8_t out[OUT_SIZE], out_flags[OUT_SIZE]; /* element 0 is in the output buffer */
	uint8_t out_count;
};

static void i8042_update(struct i8042 *k)
{
	bool full = k->out_count, aux = full && (k->out_flags[0] & OUT_AUX);

	irq_set(&k->kbd, full && !aux && (k->ram[0] & CTR_KBD_IRQ));
	irq_set(&k->aux, full && aux && (k->ram[0] & CTR_AUX_IRQ));
}

static void i8042_push(struct i8042 *k, uint8_t byte, uint8_t flags)
{
	if (k->out_count == OUT_SIZE)
		return; /* the guest asks and never reads */
	k->out[k->out_count] = byte;
	k->out_flags[k->out_count++] = flags;
}

static uint8_t i8042_read_data(struct i8042 *k)
{
	uint8_t value = k->out[0]; /* the last byte again when there is no new one */

	if (!k->out_count)
		return value;
	k->out_count--;
	if (k->out_count) {
		memmove(k->out, k->out + 1, k->out_count);
		memmove(k->out_flags, k->out_flags + 1, k->out_count);
		/* The lines are edges to the interrupt controller: let go between two bytes. */
		irq_set(&k->kbd, false);
		irq_set(&k->aux, false);
	}
	i8042_update(k);
	return value;
}

static uint8_t i8042_status(const struct i8042 *k)
{
	uint8_t value = STATUS_UNLOCK | (k->ram[0] & CTR_SYS ? STATUS_SYS : 0);

	if (k->last_command)
		value |= STATUS_CMD;
	if (!k->out_count)
		return value;
	return (uint8_t)(value | STATUS_OBF | (k->out_flags[0] & OUT_AUX ? STATUS_AUX : 0) |
			 (k->out_flags[0] & OUT_TIMEOUT ? STATUS_TIMEOUT : 0));
}

/* A byte at 60h: a command's parameter, or for the keyboard that is not there. True: reset. */
static bool i8042_write_data(struct i8042 *k, uint8_t value)
{
	uint8_t command = k->command;

	k->command = 0;
	k->last_command = false;
	if ((command & 0xe0) == 0x60) {
		k->ram[command & 0x1f] = value;
		return false;
	}
	switch (command) {
	case 0xd1: k->output = value | 0x02; return !(value & 0x01);
	case 0xd2: i8042_push(k, value, 0); break;
	/* A controller with an AUX port echoes the byte. This answer and that to A9h make Linux
	 * drop the port at once (i8042_check_aux). */
	case 0xd3: i8042_push(k, (uint8_t)~value, OUT_AUX); break;
	case 0xd4: i8042_push(k, 0xfe, OUT_AUX | OUT_TIMEOUT); break;
	default: i8042_push(k, 0xfe, OUT_TIMEOUT); break;
	}
	return false;
}

static bool i8042_write_command(struct i8042 *k, uint8_t value)
{
	k->command = 0;
	k->last_command = true;
	if ((value & 0xe0) == 0x20) {
		i8042_push(k, k->ram[value & 0x1f], 0);
		return false;
	}
	if ((value & 0xe0) == 0x60) {
		k->command = value;
		return false;
	}
	if (value >= 0xf0) /* pulse the output lines that are 0; line 0 is the reset */
		return !(value & 0x01);
	switch (value) {
	case 0xa4: i8042_push(k, 0xf1, 0); break; /* no password */
	case 0xa7: k->ram[0] |= 0x20; break;
	case 0xa8: k->ram[0] &= (uint8_t)~0x20; break;
	case 0xaa:
		k->ram[0] |= CTR_SYS;
		k->out_count = 0;
		i8042_push(k, 0x55, 0);
		break;
	case 0xa9:
	case 0xab: i8042_push(k, LINE_STUCK, 0); break;
	case 0xad: k->ram[0] |= 0x10; break;
	case 0xae: k->ram[0] &= (uint8_t)~0x10; break;
	case 0xc0: i8042_push(k, 0x80, 0); break; /* input port: not locked */
	case 0xd0: i8042_push(k, (uint8_t)(k->output | (k->out_count ? 0x10 : 0)), 0); break;
	case 0xd1:
	case 0xd2:
	case 0xd3:
	case 0xd4: k->command = value; break;
	case 0xe0: i8042_push(k, 0, 0); break; /* test inputs: both clocks low */
	default: dev_log(k->dev.name, "command 0x%02x ignored", value); break;
	}
	return false;
}

static uint64_t i8042_read(void *opaque, unsigned vcpu, uint64_t off, unsigned size)
{
	struct i8042 *k = opaque;
	uint64_t value;

	(void)vcpu, (void)off, (void)size;
	pthread_mutex_lock(&k->lock);
	value = i8042_read_data(k);
	pthread_mutex_unlock(&k->lock);
	return value;
}

static uint64_t i8042_read_status(void *opaque, unsigned vcpu, uint64_t off, unsigned size)
{
	struct i8042 *k = opaque;
	uint64_t value;

	(void)vcpu, (void)off, (void)size;
	pthread_mutex_lock(&k->lock);
	value = i8042_status(k);
	pthread_mutex_unlock(&k->lock);
	return value;
}

static void i8042_write_any(struct i8042 *k, bool (*fn)(struct i8042 *k, uint8_t value),
			    uint64_t value)
{
	bool reset;

	pthread_mutex_lock(&k->lock);
	reset = fn(k, (uint8_t)value);
	i8042_update(k);
	pthread_mutex_unlock(&k->lock);
	if (reset)
		k->sink.event(k->sink.opaque, MACHINE_RESET, 0);
}

static void i8042_write(void *opaque, unsigned vcpu, uint64_t off, unsigned size, uint64_t value)
{
	(void)vcpu, (void)off, (void)size;
	i8042_write_any(opaque, i8042_write_data, value);
}

static void i8042_write_cmd(void *opaque, unsigned vcpu, uint64_t off, unsigned size,
			    uint64_t value)
{
	(void)vcpu, (void)off, (void)size;
	i8042_write_any(opaque, i8042_write_command, value);
}

static uint64_t port92_read(void *opaque, unsigned vcpu, uint64_t off, unsigned size)
{
	struct i8042 *k = opaque;
	uint64_t value;

	(void)vcpu, (void)off, (void)size;
	pthread_mutex_lock(&k->lock);
	value = k->port92;
	pthread_mutex_unlock(&k->lock);
	return value;
}

static bool port92_set(struct i8042 *k, uint8_t value)
{
	bool reset = value & ~k->port92 & 0x01; /* on the rising edge */

	k->port92 = (value & 0x01) | 0x02;
	return reset;
}

static void port92_write(void *opaque, unsigned vcpu, uint64_t off, unsigned size, uint64_t value)
{
	(void)vcpu, (void)off, (void)size;
	i8042_write_any(opaque, port92_set, value);
}

static void i8042_reset(struct device *dev)
{
	struct i8042 *k = (struct i8042 *)dev;

	pthread_mutex_lock(&k->lock);
	memset(k->ram, 0, sizeof(k->ram));
	k->ram[0] = CTR_RESET;
	k->command = 0;
	k->output = 0x03;
	k->port92 = 0x02;
	k->last_command = false;
	k->out_count = 0;
	memset(k->out, 0, sizeof(k->out));
	memset(k->out_flags, 0, sizeof(k->out_flags));
	i8042_update(k);
	pthread_mutex_unlock(&k->lock);
}

static int i8042_post_load(void *object, const char **why)
{
	struct i8042 *k = object;

	if (k->out_count > OUT_SIZE) {
		*why = "more bytes than the output queue holds";
		k->out_count = 0;
		return -EINVAL;
	}
	pthread_mutex_lock(&k->lock);
	i8042_update(k);
	pthread_mutex_unlock(&k->lock);
	return 0;
}

static void i8042_destroy(struct device *dev)
{
	struct i8042 *k = (struct i8042 *)dev;

	io_space_remove(k->ports, 0x60);
	io_space_remove(k->ports, 0x64);
	io_space_remove(k->ports, 0x92);
	pthread_mutex_destroy(&k->lock);
	free(k);
}

static const struct io_region_ops i8042_data_io = {i8042_read, i8042_write};
static const struct io_region_ops i8042_cmd_io = {i8042_read_status, i8042_write_cmd};
static const struct io_region_ops port92_io = {port92_read, port92_write};
static const struct device_ops i8042_ops = {.reset = i8042_reset, .destroy = i8042_destroy};
static const struct field i8042_fields[] = {
	FIELD_BLOB(struct i8042, ram, 1),
	FIELD_SCALAR(struct i8042, command, FIELD_U8, 1),
	FIELD_SCALAR(struct i8042, output, FIELD_U8, 1),
	FIELD_SCALAR(struct i8042, port92, FIELD_U8, 1),
	FIELD_SCALAR(struct i8042, last_command, FIELD_BOOL, 1),
	FIELD_BLOB(struct i8042, out, 1),
	FIELD_BLOB(struct i8042, out_flags, 1),
	FIELD_SCALAR(struct i8042, out_count, FIELD_U8, 1),
	FIELD_END,
};
static const struct state_desc i8042_state = {
	.name = "i8042", .version = 1, .fields = i8042_fields, .post_load = i8042_post_load};

int i8042_create(struct device **out, struct io_space *ports, struct irq_line kbd,
		 struct irq_line aux, const struct machine_sink *sink)
{
	struct i8042 *k = calloc(1, sizeof(*k));
	const struct io_region regions[] = {
		{.base = 0x60, .size = 1, .ops = &i8042_data_io, .opaque = k, .name = "i8042-data"},
		{.base = 0x64, .size = 1, .ops = &i8042_cmd_io, .opaque = k, .name = "i8042-cmd"},
		{.base = 0x92, .size = 1, .ops = &port92_io, .opaque = k, .name = "port92"},
	};
	int ret = 0;

	if (!k)
		return -ENOMEM;
	k->dev = (struct device){.name = "i8042", .ops = &i8042_ops, .state = &i8042_state};
	k->ports = ports;
	k->kbd = kbd;
	k->aux = aux;
	k->sink = *sink;
	pthread_mutex_init(&k->lock, NULL);
	for (unsigned i = 0; i < 3 && !ret; i++) {
		ret = io_space_add(ports, &regions[i]);
		if (ret) {
			while (i--)
				io_space_remove(ports, regions[i].base);
			pthread_mutex_destroy(&k->lock);
			free(k);
			return ret;
		}
	}
	i8042_reset(&k->dev);
	*out = &k->dev;
	return 0;
}
