/* From a message to processors: SDM vol. 3A 11.6 (ICR, destinations), 11.11 (MSI), 11.12.9
 * (x2APIC). */
#include "devices/lapic/lapic.h"

#define MDA_ALL UINT32_MAX

static uint64_t lapic_dest(const struct lapics *set, unsigned i)
{
	return __atomic_load_n(&set->dest[i], __ATOMIC_RELAXED);
}

/* 11.6.2.1, 11.6.2.2: does the message address APIC i? */
static bool lapic_addressed(const struct lapics *set, unsigned i, const struct lapic_message *msg,
			    uint32_t dest)
{
	uint64_t d = lapic_dest(set, i);
	uint32_t id = (uint32_t)d;

	if (dest == MDA_ALL)
		return true;
	if (!msg->logical)
		return dest == i;
	if (d & DEST_X2APIC)
		return id >> 16 == dest >> 16 && (id & dest & 0xffff);
	/* xAPIC: 8 bits; a wider address can mean only others. */
	if (dest > 0xff)
		return false;
	id >>= 24;
	if (d & DEST_CLUSTER)
		return (id >> 4 == dest >> 4 || dest >> 4 == 15) && (id & dest & 15);
	return id & dest;
}

/* One APIC gets the message. True: it took it. */
static bool lapic_accept(struct lapic *l, const struct lapic_message *msg)
{
	struct lapics *set = l->set;
	bool taken;

	/* Globally disabled, an APIC takes nothing at all, not even an INIT (11.4.3). */
	if (!(lapic_dest(set, l->vcpu) & DEST_ENABLED))
		return false;
	switch (msg->mode) {
	case DM_FIXED:
	case DM_LOWEST:
		pthread_mutex_lock(&l->lock);
		taken = (l->base & APIC_BASE_ENABLE) && (l->svr & SVR_ENABLED);
		if (taken && msg->vector < 16)
			lapic_error(l, ESR_RECV_ILLEGAL);
		else if (taken)
			lapic_request(l, msg->vector, msg->level);
		pthread_mutex_unlock(&l->lock);
		return taken;
	case DM_EXTINT:
		pthread_mutex_lock(&l->lock);
		taken = (l->base & APIC_BASE_ENABLE) && set->pic;
		if (taken) {
			l->extint = true;
			lapic_update(l);
		}
		pthread_mutex_unlock(&l->lock);
		return taken;
	case DM_NMI: set->pins.nmi(set->pins.opaque, l->vcpu); return true;
	case DM_INIT: set->pins.init(set->pins.opaque, l->vcpu); return true;
	case DM_SIPI: set->pins.sipi(set->pins.opaque, l->vcpu, msg->vector); return true;
	default: dev_log("lapic", "delivery mode %u ignored", msg->mode); return false;
	}
}

/* 11.6.2.4: the lowest priority among those addressed; equals take turns. */
static unsigned lapic_deliver_lowest(struct lapics *set, const struct lapic_message *msg,
				     uint32_t dest)
{
	unsigned start = __atomic_fetch_add(&set->turn, 1, __ATOMIC_RELAXED) % set->count;
	unsigned best_ppr = 256, best = 0;

	for (unsigned n = 0; n < set->count; n++) {
		unsigned i = (start + n) % set->count;
		unsigned ppr = __atomic_load_n(&set->ppr[i], __ATOMIC_RELAXED) >> 4;

		if (ppr < best_ppr && (lapic_dest(set, i) & DEST_ACCEPTS) &&
		    lapic_addressed(set, i, msg, dest)) {
			best_ppr = ppr;
			best = i;
		}
	}
	return best_ppr < 256 && lapic_accept(&set->cpu[best], msg);
}

unsigned lapic_deliver(struct lapics *set, const struct lapic_message *msg)
{
	uint32_t dest = msg->dest;
	unsigned taken = 0;

	/* An MSI's or an xAPIC's FFh reaches x2APICs too. */
	if (!msg->x2apic && dest == 0xff)
		dest = MDA_ALL;
	if (msg->mode == DM_LOWEST)
		return lapic_deliver_lowest(set, msg, dest);
	if (!msg->logical && dest != MDA_ALL)
		return dest < set->count && lapic_accept(&set->cpu[dest], msg);
	for (unsigned i = 0; i < set->count; i++)
		if (lapic_addressed(set, i, msg, dest))
			taken += lapic_accept(&set->cpu[i], msg);
	return taken;
}

void lapic_send_icr(struct lapic *l, uint64_t icr, bool x2apic)
{
	struct lapics *set = l->set;
	struct lapic_message msg = {
		.dest = x2apic ? (uint32_t)(icr >> 32) : (uint32_t)(icr >> 56),
		.vector = (uint8_t)icr,
		.mode = icr >> 8 & 7,
		.logical = icr >> 11 & 1,
		.x2apic = x2apic,
	};
	unsigned shorthand = icr >> 18 & 3;

	/* INIT level de-assert set the arbitration IDs of long gone processors. */
	if (msg.mode == DM_INIT && !(icr >> 14 & 1) && (icr >> 15 & 1))
		return;
	if (msg.mode == DM_EXTINT || msg.mode == DM_RESERVED) {
		dev_log("lapic", "vcpu %u: IPI of delivery mode %u ignored", l->vcpu, msg.mode);
		return;
	}
	if ((msg.mode == DM_FIXED || msg.mode == DM_LOWEST) && msg.vector < 16) {
		pthread_mutex_lock(&l->lock);
		lapic_error(l, ESR_SEND_ILLEGAL);
		pthread_mutex_unlock(&l->lock);
		return;
	}
	if (!shorthand) {
		lapic_deliver(set, &msg);
		return;
	}
	if (shorthand == 1) {
		lapic_accept(l, &msg);
		return;
	}
	/* Lowest priority to a shorthand is not valid; it goes to all of them. */
	for (unsigned i = 0; i < set->count; i++)
		if (shorthand == 2 || i != l->vcpu)
			lapic_accept(&set->cpu[i], &msg);
}

int lapic_msi(struct device *dev, uint64_t addr, uint32_t data)
{
	struct lapics *set = (struct lapics *)dev;
	struct lapic_message msg = {
		.dest = addr >> 12 & 0xff,
		.vector = (uint8_t)data,
		.mode = data >> 8 & 7,
		.logical = addr >> 2 & 1,
		.level = data >> 15 & 1,
	};

	if (addr >> 20 != APIC_BASE_DEFAULT >> 20) {
		dev_log("lapic", "message to 0x%llx ignored", (unsigned long long)addr);
		return 0;
	}
	if (msg.level && !(data >> 14 & 1))
		return 0; /* a level's de-assertion */
	if (msg.mode == DM_SIPI)
		return 0;
	return (int)lapic_deliver(set, &msg);
}

void lapic_after(struct lapic *l, const struct lapic_after *after)
{
	struct lapics *set = l->set;

	if (after->send)
		lapic_send_icr(l, after->icr, after->x2apic);
	if (after->eoi && set->eoi)
		set->eoi(set->eoi_opaque, after->eoi_vector);
	if (after->nmi)
		set->pins.nmi(set->pins.opaque, l->vcpu);
	if (after->init)
		set->pins.init(set->pins.opaque, l->vcpu);
}
