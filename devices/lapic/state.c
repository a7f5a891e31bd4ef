/* Life of the local APICs: creation, reset, INIT, saved state. */
#include "devices/lapic/lapic.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

void lapic_publish(struct lapic *l)
{
	uint64_t d = lapic_is_x2apic(l) ? lapic_x2apic_ldr(l->vcpu) | DEST_X2APIC : l->ldr;

	if (l->base & APIC_BASE_ENABLE) {
		d |= DEST_ENABLED;
		if (l->svr & SVR_ENABLED)
			d |= DEST_ACCEPTS;
	}
	if (l->dfr >> 28 == 0)
		d |= DEST_CLUSTER;
	__atomic_store_n(&l->set->dest[l->vcpu], d, __ATOMIC_RELAXED);
}

void lapic_clear(struct lapic *l)
{
	l->icr = 0;
	l->ldr = 0;
	l->dfr = UINT32_MAX;
	l->svr = 0xff;
	l->esr = l->esr_pending = 0;
	__atomic_store_n(&l->tpr, 0, __ATOMIC_RELAXED);
	memset(l->isr, 0, sizeof(l->isr));
	memset(l->irr, 0, sizeof(l->irr));
	memset(l->tmr, 0, sizeof(l->tmr));
	for (unsigned i = 0; i < LVT_COUNT; i++)
		l->lvt[i] = LVT_MASKED;
	/* What firmware does and every firmware-less boot relies on: the PIC reaches the boot
	 * processor through LINT0 ("virtual wire mode", MultiProcessor Specification 3.6.2.2). */
	if (l->base & APIC_BASE_BSP)
		l->lvt[LVT_LINT0] = DM_EXTINT << 8;
	l->tdcr = 0;
	l->extint = false;
	lapic_timer_stop(l);
	lapic_publish(l);
	lapic_update(l);
}

void lapic_init_vcpu(struct device *dev, unsigned vcpu)
{
	struct lapic *l = lapic_get(dev, vcpu);

	if (!l)
		return;
	pthread_mutex_lock(&l->lock);
	lapic_clear(l);
	pthread_mutex_unlock(&l->lock);
}

static void lapic_reset(struct device *dev)
{
	struct lapics *set = (struct lapics *)dev;

	for (unsigned i = 0; i < set->count; i++) {
		struct lapic *l = &set->cpu[i];

		pthread_mutex_lock(&l->lock);
		l->base = APIC_BASE_DEFAULT | APIC_BASE_ENABLE | (i ? 0 : APIC_BASE_BSP);
		lapic_clear(l);
		pthread_mutex_unlock(&l->lock);
	}
}

void lapic_set_pic(struct device *dev, struct device *pic)
{
	((struct lapics *)dev)->pic = pic;
}

void lapic_set_eoi(struct device *dev, void (*eoi)(void *opaque, uint8_t vector), void *opaque)
{
	struct lapics *set = (struct lapics *)dev;

	set->eoi = eoi;
	set->eoi_opaque = opaque;
}

/* ---- saved state -------------------------------------------------------------------------------
 */

static const struct field lapic_fields[] = {
	FIELD_SCALAR(struct lapic, base, FIELD_U64, 1),
	FIELD_SCALAR(struct lapic, icr, FIELD_U64, 1),
	FIELD_SCALAR(struct lapic, ldr, FIELD_U32, 1),
	FIELD_SCALAR(struct lapic, dfr, FIELD_U32, 1),
	FIELD_SCALAR(struct lapic, svr, FIELD_U32, 1),
	FIELD_SCALAR(struct lapic, esr, FIELD_U32, 1),
	FIELD_SCALAR(struct lapic, esr_pending, FIELD_U32, 1),
	FIELD_ARRAY(struct lapic, isr, FIELD_U32, 1),
	FIELD_ARRAY(struct lapic, irr, FIELD_U32, 1),
	FIELD_ARRAY(struct lapic, tmr, FIELD_U32, 1),
	FIELD_ARRAY(struct lapic, lvt, FIELD_U32, 1),
	FIELD_SCALAR(struct lapic, tmict, FIELD_U32, 1),
	FIELD_SCALAR(struct lapic, tdcr, FIELD_U32, 1),
	FIELD_SCALAR(struct lapic, count_from, FIELD_U32, 1),
	FIELD_SCALAR(struct lapic, count_ns, FIELD_U64, 1),
	FIELD_SCALAR(struct lapic, expiry_ns, FIELD_U64, 1),
	FIELD_SCALAR(struct lapic, tsc_deadline, FIELD_U64, 1),
	FIELD_SCALAR(struct lapic, tpr, FIELD_U8, 1),
	FIELD_SCALAR(struct lapic, lint0, FIELD_BOOL, 1),
	FIELD_SCALAR(struct lapic, extint, FIELD_BOOL, 1),
	FIELD_END,
};

static bool lapic_base_valid(const struct lapic *l)
{
	uint64_t bsp = l->vcpu ? 0 : APIC_BASE_BSP;

	return (l->base & ~APIC_BASE_FLAGS) == APIC_BASE_DEFAULT &&
	       (l->base & APIC_BASE_BSP) == bsp &&
	       (l->base & (APIC_BASE_ENABLE | APIC_BASE_X2APIC)) != APIC_BASE_X2APIC;
}

static bool lapic_lvt_valid(const struct lapic *l)
{
	static const uint32_t mask[LVT_COUNT] = {
		[LVT_TIMER] = 0x700ff, [LVT_THERMAL] = 0x107ff, [LVT_PMC] = 0x107ff,
		[LVT_LINT0] = 0x1e7ff, [LVT_LINT1] = 0x1a7ff,	[LVT_ERROR] = 0x100ff,
	};

	for (unsigned i = 0; i < LVT_COUNT; i++)
		if (l->lvt[i] & ~mask[i])
			return false;
	return true;
}

static bool lapic_timer_valid(const struct lapic *l)
{
	const uint64_t far = UINT64_MAX / 4;

	if (l->count_ns > far)
		return false;
	switch (lapic_timer_mode(l)) {
	case TIMER_ONESHOT:
	case TIMER_PERIODIC:
		/* Without an initial count nothing can be counting. */
		return !l->tsc_deadline && (l->tmict || (!l->count_from && !l->expiry_ns));
	case TIMER_DEADLINE:
		return !l->tmict && !l->count_from && !l->expiry_ns == !l->tsc_deadline;
	default: return !l->tmict && !l->count_from && !l->expiry_ns && !l->tsc_deadline;
	}
}

static int lapic_post_load(void *object, const char **why)
{
	struct lapic *l = object;

	if (!lapic_base_valid(l))
		*why = "IA32_APIC_BASE is impossible";
	else if (!lapic_lvt_valid(l) || l->svr & ~SVR_WRITABLE || l->tdcr & ~0x0bu ||
		 (l->esr | l->esr_pending) & ~ESR_MASK || l->ldr & 0xffffff || ~l->dfr & 0x0fffffff)
		*why = "reserved bits are set";
	else if ((l->isr[0] | l->irr[0] | l->tmr[0]) & 0xffff)
		*why = "a vector below 16";
	else if (!lapic_timer_valid(l))
		*why = "the timer contradicts its mode";
	return *why ? -EINVAL : 0;
}

/* After all of them: lines and timers show the new state. */
static int lapics_post_load(void *object, const char **why)
{
	struct lapics *set = object;

	(void)why;
	for (unsigned i = 0; i < set->count; i++) {
		struct lapic *l = &set->cpu[i];

		pthread_mutex_lock(&l->lock);
		set->timers.set(l->vtimer, l->expiry_ns);
		lapic_publish(l);
		lapic_update(l);
		set->pins.intr(set->pins.opaque, i, l->pin);
		pthread_mutex_unlock(&l->lock);
	}
	return 0;
}

static const struct state_desc lapic_desc = {
	.name = "lapic", .version = 1, .fields = lapic_fields, .post_load = lapic_post_load};

/* ---- life ---------------------------------------------------------------------------------------
 */

static void lapic_destroy(struct device *dev)
{
	struct lapics *set = (struct lapics *)dev;

	io_space_remove(set->mmio, APIC_BASE_DEFAULT);
	for (unsigned i = 0; i < set->count; i++) {
		if (set->cpu[i].vtimer)
			set->timers.destroy(set->cpu[i].vtimer);
		pthread_mutex_destroy(&set->cpu[i].lock);
	}
	free(set->dest);
	free(set->ppr);
	free(set);
}

static const struct device_ops lapic_ops = {.reset = lapic_reset, .destroy = lapic_destroy};

int lapic_create(struct device **out, struct io_space *mmio, const struct lapic_config *config)
{
	struct io_region region = {
		.base = APIC_BASE_DEFAULT, .size = 4096, .ops = &lapic_mmio_ops, .name = "lapic"};
	unsigned n = config->vcpus;
	struct lapics *set;
	int ret;

	if (!n || n > LAPIC_MAX_CPUS || !config->timer_hz)
		return -EINVAL;
	set = calloc(1, sizeof(*set) + n * sizeof(set->cpu[0]));
	if (!set)
		return -ENOMEM;
	region.opaque = set;
	set->dev = (struct device){.name = "lapic", .ops = &lapic_ops, .state = &set->desc};
	set->mmio = mmio;
	set->count = n;
	set->pins = *config->pins;
	set->clock = *config->clock;
	set->timers = *config->timers;
	set->tsc = *config->tsc;
	set->timer_hz = config->timer_hz;
	set->fields[0] = (struct field){.name = "cpu",
					.type = FIELD_STRUCT,
					.offset = offsetof(struct lapics, cpu),
					.count = n,
					.stride = sizeof(struct lapic),
					.since = 1,
					.sub = &lapic_desc};
	set->desc = (struct state_desc){.name = "lapics",
					.version = 1,
					.fields = set->fields,
					.post_load = lapics_post_load};
	set->dest = calloc(n, sizeof(*set->dest));
	set->ppr = calloc(n, sizeof(*set->ppr));
	ret = set->dest && set->ppr ? 0 : -ENOMEM;
	for (unsigned i = 0; i < n; i++) {
		struct lapic *l = &set->cpu[i];

		pthread_mutex_init(&l->lock, NULL);
		l->set = set;
		l->vcpu = i;
		l->vtimer = config->timers->create(config->timers->opaque, lapic_timer_callback, l,
						   "lapic");
		if (!l->vtimer)
			ret = -ENOMEM;
	}
	if (!ret)
		ret = io_space_add(mmio, &region);
	if (ret) {
		lapic_destroy(&set->dev);
		return ret;
	}
	lapic_reset(&set->dev);
	*out = &set->dev;
	return 0;
}
