#include "vmm/state.h"

#include <errno.h>
#include <string.h>

#include "vmm/vm_internal.h"

struct clock_state {
	uint64_t now_ns, tsc_hz;
};

static const struct field clock_fields[] = {
	FIELD_SCALAR(struct clock_state, now_ns, FIELD_U64, 1),
	FIELD_SCALAR(struct clock_state, tsc_hz, FIELD_U64, 1),
	FIELD_END,
};

static int clock_post_load(void *object, const char **why)
{
	const struct clock_state *c = object;

	/* 1 MHz to 1 THz: everything that divides by it stays in range. */
	if (c->tsc_hz >= 1000000 && c->tsc_hz <= 1000000000000)
		return 0;
	*why = "tsc_hz is not the frequency of any processor";
	return -EINVAL;
}

static const struct state_desc clock_desc = {
	.name = "clock", .version = 1, .fields = clock_fields, .post_load = clock_post_load};

/* What is between the devices and the processors. */
struct machine_state {
	bool paused; /* by its user */
	uint32_t requests[CPU_MAX];
};

static const struct field machine_fields[] = {
	FIELD_SCALAR(struct machine_state, paused, FIELD_BOOL, 1),
	FIELD_ARRAY(struct machine_state, requests, FIELD_U32, 1),
	FIELD_END,
};

static int machine_post_load(void *object, const char **why)
{
	const struct machine_state *m = object;

	*why = "no such request to a processor";
	for (unsigned i = 0; i < CPU_MAX; i++)
		if (m->requests[i] & ~(uint32_t)(VCPU_INIT | VCPU_SIPI | 0xff00))
			return -EINVAL;
	return 0;
}

static const struct state_desc machine_desc = {
	.name = "machine", .version = 1, .fields = machine_fields, .post_load = machine_post_load};

int vm_state_save(struct vm *vm, struct field_buf *buf, struct error *err)
{
	const struct clock_source *source = loop_clock(vm->loop);
	struct clock_state clock = {.now_ns = source->now(source->opaque),
				    .tsc_hz = vm->cpuid.tsc_hz};
	struct machine_state machine = {.paused = vm->holds & VM_HOLD_USER};
	int ret = field_save(&clock_desc, &clock, buf);

	for (unsigned i = 0; i < vm->vcpu_count; i++)
		machine.requests[i] = atomic_load(&vm->vcpu[i].requests);
	if (!ret)
		ret = field_save(&machine_desc, &machine, buf);

	for (unsigned i = 0; i < vm->vcpu_count && !ret; i++) {
		ret = vm->engine_ops->get_state(vm->engine, i, &vm->vcpu[i].state);
		if (!ret)
			ret = field_save(&x86_state_desc, &vm->vcpu[i].state, buf);
	}
	for (unsigned i = 0; i < vm->board.device_count && !ret; i++)
		ret = field_save(vm->board.devices[i]->state, vm->board.devices[i], buf);
	return ret ? error_set(err, ret, "cannot save the machine's state: %s", strerror(-ret)) : 0;
}

/* A guest that its user has paused stays so, wherever it is. */
static void set_machine(struct vm *vm, const struct machine_state *machine)
{
	for (unsigned i = 0; i < vm->vcpu_count; i++)
		atomic_store(&vm->vcpu[i].requests, machine->requests[i]);
	if (!machine->paused)
		return;
	vm->holds |= VM_HOLD_USER;
	vm->said_paused = true;
}

static int load_one(const struct state_desc *desc, void *object, const uint8_t **at,
		    const uint8_t *end, struct error *err)
{
	int64_t used =
		field_load(desc, object, *at, (size_t)(end - *at), err->text, sizeof(err->text));

	if (used < 0)
		return error_prefix(err, (int)used, "cannot load the state of %s", desc->name);
	*at += used;
	return 0;
}

int vm_state_load(struct vm *vm, const void *data, size_t len, struct error *err)
{
	const uint8_t *at = data, *end = at + len;
	struct machine_state machine = {0};
	struct clock_state clock = {0};
	int ret = load_one(&clock_desc, &clock, &at, end, err);

	if (!ret)
		ret = load_one(&machine_desc, &machine, &at, end, err);
	if (ret)
		return ret;
	/* Before the devices: their timers are in guest time. */
	loop_clock_set(vm->loop, clock.now_ns);
	vm->cpuid.tsc_hz = clock.tsc_hz;
	for (unsigned i = 0; i < vm->vcpu_count; i++) {
		struct vcpu *v = &vm->vcpu[i];

		ret = load_one(&x86_state_desc, &v->state, &at, end, err);
		if (ret)
			return ret;
		if (vm->engine_ops->set_state(vm->engine, i, &v->state))
			return error_set(err, -EINVAL, "the %s engine refuses the state of vCPU %u",
					 vm->engine_ops->name, i);
	}
	for (unsigned i = 0; i < vm->board.device_count && !ret; i++)
		ret = load_one(vm->board.devices[i]->state, vm->board.devices[i], &at, end, err);
	if (!ret && at != end)
		return error_set(err, -EINVAL, "%zu bytes behind the last device's state",
				 (size_t)(end - at));
	if (!ret)
		set_machine(vm, &machine);
	return ret;
}

int vm_state_roundtrip(struct vm *vm, struct error *err)
{
	struct field_buf buf = {0}, again = {0};
	int ret = vm_state_save(vm, &buf, err);

	if (!ret) {
		/* INIT and SIPI requests are between two parties: they stay. The rest is wiped. */
		board_reset(&vm->board);
		for (unsigned i = 0; i < vm->vcpu_count; i++) {
			x86_state_reset(&vm->vcpu[i].state, i == 0);
			vm->engine_ops->set_state(vm->engine, i, &vm->vcpu[i].state);
		}
		ret = vm_state_load(vm, buf.data, buf.len, err);
		if (!ret)
			ret = vm_state_save(vm, &again, err);
		/* What was lost on the way would be lost in a migration, too. */
		if (!ret && (buf.len != again.len || memcmp(buf.data, again.data, buf.len) != 0))
			ret = error_set(err, -EINVAL,
					"a state that was loaded is not what was saved");
	}
	field_buf_free(&again);
	field_buf_free(&buf);
	return ret;
}
