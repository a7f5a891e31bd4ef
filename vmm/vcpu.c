#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "migration/clock.h"
#include "migration/thread.h"
#include "vmm/message.h"
#include "vmm/vm_internal.h"

static void kick_all(struct vm *vm)
{
	for (unsigned i = 0; i < vm->vcpu_count; i++)
		if (vm->vcpu[i].started)
			vm->engine_ops->kick(vm->engine, i);
}

/* ---- INIT and SIPI (SDM vol. 3A 8.4)
 * ------------------------------------------------------------------ */

static void request(struct vm *vm, unsigned vcpu, uint32_t bits)
{
	if (vcpu >= vm->vcpu_count)
		return;
	pthread_mutex_lock(&vm->lock);
	/* A second SIPI replaces the first one's vector. */
	if (bits & VCPU_SIPI)
		atomic_fetch_and(&vm->vcpu[vcpu].requests, 0xffu);
	atomic_fetch_or(&vm->vcpu[vcpu].requests, bits);
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->lock);
	vm->engine_ops->kick(vm->engine, vcpu);
}

static void pin_init(void *opaque, unsigned vcpu)
{
	request(opaque, vcpu, VCPU_INIT);
}

static void pin_sipi(void *opaque, unsigned vcpu, uint8_t vector)
{
	request(opaque, vcpu, VCPU_SIPI | (uint32_t)vector << 8);
}

static void pin_intr(void *opaque, unsigned vcpu, bool level)
{
	struct vm *vm = opaque;

	vm->engine_ops->set_intr(vm->engine, vcpu, level);
}

static void pin_nmi(void *opaque, unsigned vcpu)
{
	struct vm *vm = opaque;

	vm->engine_ops->nmi(vm->engine, vcpu);
}

void vcpu_pins_init(struct vm *vm)
{
	vm->pins = (struct cpu_pins){
		.intr = pin_intr, .nmi = pin_nmi, .init = pin_init, .sipi = pin_sipi, .opaque = vm};
}

static void store(struct vcpu *v)
{
	int ret = v->vm->engine_ops->set_state(v->vm->engine, v->index, &v->state);

	if (ret)
		vm_event(v->vm, VM_EVENT_ENGINE, v->index);
}

/* An INIT leaves the clock, the MTRRs and the x87/SSE state alone (SDM vol. 3A table 9-1). */
static void do_init(struct vcpu *v)
{
	struct x86_state old;

	if (v->index == 0) {
		/* The bootstrap processor starts again at the reset vector: the machine does. */
		vm_event(v->vm, VM_EVENT_RESET, 0);
		return;
	}
	v->vm->engine_ops->get_state(v->vm->engine, v->index, &v->state);
	old = v->state;
	x86_state_reset(&v->state, false);
	v->state.tsc_adjust = old.tsc_adjust;
	memcpy(v->state.mtrr_fixed, old.mtrr_fixed, sizeof(old.mtrr_fixed));
	memcpy(v->state.mtrr_base, old.mtrr_base, sizeof(old.mtrr_base));
	memcpy(v->state.mtrr_mask, old.mtrr_mask, sizeof(old.mtrr_mask));
	v->state.mtrr_def_type = old.mtrr_def_type;
	memcpy(v->state.fxsave, old.fxsave, sizeof(old.fxsave));
	lapic_init_vcpu(v->vm->board.lapic, v->index);
	store(v);
}

static void do_requests(struct vcpu *v)
{
	uint32_t requests = atomic_exchange(&v->requests, 0);

	if (requests & VCPU_INIT)
		do_init(v);
	if ((requests & VCPU_SIPI) && v->state.run_state == X86_WAIT_SIPI) {
		x86_state_sipi(&v->state, (uint8_t)(requests >> 8));
		store(v);
	}
}

/* ---- the threads
 * ----------------------------------------------------------------------------------------- */

/* Waits while parked or while there is nothing to run; false: the thread ends. */
static bool wait_turn(struct vcpu *v)
{
	struct vm *vm = v->vm;
	bool go;

	pthread_mutex_lock(&vm->lock);
	while (!vm->quit) {
		if (vm->stop_wanted) {
			vm->parked++;
			pthread_cond_broadcast(&vm->changed);
			while (vm->stop_wanted && !vm->quit)
				pthread_cond_wait(&vm->changed, &vm->lock);
			vm->parked--;
			continue;
		}
		if (v->state.run_state != X86_WAIT_SIPI || atomic_load(&v->requests)) {
			const uint64_t until = vm_throttled(vm, v->index);
			const struct timespec time = clock_timespec(until);

			if (!until)
				break;
			pthread_cond_clockwait(&vm->changed, &vm->lock, CLOCK_MONOTONIC, &time);
			continue;
		}
		pthread_cond_wait(&vm->changed, &vm->lock);
	}
	go = !vm->quit;
	pthread_mutex_unlock(&vm->lock);
	return go;
}

static void handle_exit(struct vcpu *v, const struct cpu_exit *exit)
{
	struct vm *vm = v->vm;

	switch (exit->reason) {
	case CPU_EXIT_KICK: break;
	case CPU_EXIT_SHUTDOWN:
		message("vCPU %u: triple fault at RIP %#llx: reset", v->index,
			(unsigned long long)exit->rip);
		vm_event(vm, VM_EVENT_TRIPLE_FAULT, v->index);
		break;
	case CPU_EXIT_ERROR:
		pthread_mutex_lock(&vm->lock);
		error_set(&vm->engine_error, -EIO, "vCPU %u at RIP %#llx: %s", v->index,
			  (unsigned long long)exit->rip, exit->text);
		pthread_mutex_unlock(&vm->lock);
		vm_event(vm, VM_EVENT_ENGINE, v->index);
		break;
	}
}

static void *vcpu_main(void *arg)
{
	struct vcpu *v = arg;
	struct vm *vm = v->vm;
	struct error err = {""};
	struct cpu_exit exit;
	char name[16];
	int ret;

	v->tid = gettid();
	snprintf(name, sizeof(name), "vcpu%u", v->index);
	pthread_setname_np(pthread_self(), name);
	ret = vm->engine_ops->vcpu_create(vm->engine, v->index, err.text, sizeof(err.text));
	pthread_mutex_lock(&vm->lock);
	v->create_result = ret;
	if (ret)
		vm->engine_error = err;
	else
		v->started = true;
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->lock);
	if (ret)
		return NULL;

	while (wait_turn(v)) {
		do_requests(v);
		if (v->state.run_state == X86_WAIT_SIPI)
			continue;
		vm->engine_ops->run(vm->engine, v->index, &exit);
		handle_exit(v, &exit);
	}
	vm->engine_ops->vcpu_destroy(vm->engine, v->index);
	return NULL;
}

int vcpus_start(struct vm *vm, struct error *err)
{
	int ret = 0;

	vm->stop_wanted = true;
	for (unsigned i = 0; i < vm->vcpu_count && !ret; i++) {
		struct vcpu *v = &vm->vcpu[i];

		v->vm = vm;
		v->index = i;
		v->create_result = 1;
		x86_state_reset(&v->state, i == 0);
		ret = thread_start(&v->thread, vcpu_main, v);
		if (ret) {
			error_set(err, ret, "cannot start a thread for vCPU %u: %s", i,
				  strerror(-ret));
			break;
		}
		pthread_mutex_lock(&vm->lock);
		while (v->create_result > 0)
			pthread_cond_wait(&vm->changed, &vm->lock);
		ret = v->create_result;
		if (ret && err)
			*err = vm->engine_error;
		pthread_mutex_unlock(&vm->lock);
		if (ret)
			pthread_join(v->thread, NULL);
	}
	if (!ret)
		vcpus_park(vm);
	return ret;
}

void vcpus_park(struct vm *vm)
{
	pthread_mutex_lock(&vm->lock);
	vm->stop_wanted = true;
	pthread_mutex_unlock(&vm->lock);
	kick_all(vm);
	pthread_mutex_lock(&vm->lock);
	pthread_cond_broadcast(&vm->changed);
	while (vm->parked < vm->vcpu_count)
		pthread_cond_wait(&vm->changed, &vm->lock);
	pthread_mutex_unlock(&vm->lock);
}

void vcpus_resume(struct vm *vm)
{
	pthread_mutex_lock(&vm->lock);
	vm->stop_wanted = false;
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->lock);
}

/* They are parked, or never got that far: nobody needs a kick, and their engines go with the
 * threads. */
void vcpus_end(struct vm *vm)
{
	pthread_mutex_lock(&vm->lock);
	vm->quit = true;
	pthread_cond_broadcast(&vm->changed);
	kick_all(vm); /* with the lock: a thread that has seen quit takes its engine's vCPU away */
	pthread_mutex_unlock(&vm->lock);
	for (unsigned i = 0; i < vm->vcpu_count; i++)
		if (vm->vcpu[i].started)
			pthread_join(vm->vcpu[i].thread, NULL);
}

int vcpus_reset(struct vm *vm, const struct x86_state *bsp, struct error *err)
{
	for (unsigned i = 0; i < vm->vcpu_count; i++) {
		struct vcpu *v = &vm->vcpu[i];
		uint64_t tsc_adjust = v->state.tsc_adjust;
		int ret;

		atomic_store(&v->requests, 0);
		if (i == 0)
			v->state = *bsp;
		else
			x86_state_reset(&v->state, false);
		/* Firmware sets it on all alike (SDM vol. 3A 12.11.8). */
		v->state.mtrr_def_type = bsp->mtrr_def_type;
		v->state.tsc_adjust = tsc_adjust;
		ret = vm->engine_ops->set_state(vm->engine, i, &v->state);
		if (ret)
			return error_set(err, ret,
					 "the %s engine refuses the start state of vCPU %u",
					 vm->engine_ops->name, i);
	}
	return 0;
}
