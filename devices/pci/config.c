/* Configuration space of a function: PCI 3.0, chapter 6. */
#include "devices/pci/pci_internal.h"

#include <errno.h>
#include <string.h>

#include "devices/util.h"

uint16_t pci_get16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

uint32_t pci_get32(const uint8_t *p)
{
	return pci_get16(p) | (uint32_t)pci_get16(p + 2) << 16;
}

void pci_put16(uint8_t *p, uint32_t value)
{
	p[0] = (uint8_t)value;
	p[1] = (uint8_t)(value >> 8);
}

void pci_put32(uint8_t *p, uint32_t value)
{
	pci_put16(p, value);
	pci_put16(p + 2, value >> 16);
}

static uint64_t bar_address(const struct pci_function *fn, unsigned n)
{
	const uint8_t *reg = fn->config + PCI_BAR0 + 4 * n;
	uint64_t addr = pci_get32(reg) & ~15u;

	if (fn->bar[n].flags & PCI_BAR_64BIT)
		addr |= (uint64_t)pci_get32(reg + 4) << 32;
	return addr;
}

static bool inside(const struct pci_window *w, uint64_t addr, uint64_t size)
{
	return addr >= w->base && size <= w->size && addr - w->base <= w->size - size;
}

/* A BAR outside of the windows (one that is being sized is) answers nowhere. */
static void map_bars(struct pci_function *fn)
{
	const struct pci_host *host = (const struct pci_host *)fn->host;
	const bool on = pci_get16(fn->config + PCI_COMMAND) & PCI_COMMAND_MEMORY;

	for (unsigned n = 0; n < PCI_BARS; n++) {
		uint64_t addr = PCI_UNMAPPED;

		if (fn->bar[n].size && on) {
			addr = bar_address(fn, n);
			if (!inside(&host->config.mmio32, addr, fn->bar[n].size) &&
			    !inside(&host->config.mmio64, addr, fn->bar[n].size))
				addr = PCI_UNMAPPED;
		}
		atomic_store_explicit(&fn->bar[n].mapped, addr, memory_order_relaxed);
	}
}

/* A function with MSI-X switched on does not use INTx (6.8.3.3). */
static bool intx_level(const struct pci_function *fn)
{
	return fn->intx && fn->config[PCI_INT_PIN] && !pci_msix_on(fn) &&
	       !(pci_get16(fn->config + PCI_COMMAND) & PCI_COMMAND_INTX_OFF);
}

void pci_config_apply(struct pci_function *fn)
{
	map_bars(fn);
	pci_host_intx((struct pci_host *)fn->host, fn->slot, intx_level(fn));
	pci_msix_flush(fn);
}

static bool in_window(const struct pci_function *fn, unsigned off, unsigned size)
{
	return fn->window && off >= fn->window && off + size <= fn->window + 4;
}

uint32_t pci_config_get(struct pci_function *fn, unsigned off, unsigned size)
{
	uint32_t value = 0;

	pthread_mutex_lock(&fn->lock);
	for (unsigned i = 0; i < size && off + i < PCI_CONFIG_SIZE; i++) {
		uint32_t byte = fn->config[off + i];

		/* Interrupt Status (6.2.3) shows the wish, whatever the command register says. */
		if (off + i == PCI_STATUS && fn->intx)
			byte |= PCI_STATUS_INTX;
		value |= byte << (8 * i);
	}
	pthread_mutex_unlock(&fn->lock);
	return value;
}

/* Without extended capabilities there is nothing behind byte 255: a conventional function. */
uint32_t pci_config_read(struct pci_function *fn, unsigned vcpu, unsigned off, unsigned size)
{
	if (off + size > PCI_CONFIG_SIZE)
		return (uint32_t)all_ones(size);
	if (in_window(fn, off, size))
		return (uint32_t)fn->window_ops->read(fn->window_opaque, vcpu, off - fn->window,
						      size);
	return pci_config_get(fn, off, size);
}

void pci_config_write(struct pci_function *fn, unsigned vcpu, unsigned off, unsigned size,
		      uint32_t value)
{
	if (off + size > PCI_CONFIG_SIZE)
		return;
	if (in_window(fn, off, size)) {
		fn->window_ops->write(fn->window_opaque, vcpu, off - fn->window, size, value);
		return;
	}
	pthread_mutex_lock(&fn->lock);
	for (unsigned i = 0; i < size; i++) {
		uint8_t mask = fn->writable[off + i], byte = (uint8_t)(value >> (8 * i));

		fn->config[off + i] = (uint8_t)((fn->config[off + i] & ~mask) | (byte & mask));
	}
	pci_config_apply(fn);
	pthread_mutex_unlock(&fn->lock);
}

void pci_intx_set(struct pci_function *fn, bool level)
{
	pthread_mutex_lock(&fn->lock);
	fn->intx = level;
	pci_host_intx((struct pci_host *)fn->host, fn->slot, intx_level(fn));
	pthread_mutex_unlock(&fn->lock);
}

/* ---- state -------------------------------------------------------------------------------------
 */

static int function_post_load(void *object, const char **why)
{
	struct pci_function *fn = object;

	pthread_mutex_lock(&fn->lock);
	for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++)
		if ((fn->config[i] ^ fn->initial[i]) & ~fn->writable[i])
			*why = "read-only configuration space differs: another device";
	if (fn->vectors < 64 && fn->msix_pending >> fn->vectors)
		*why = "a pending vector that is not there";
	for (unsigned i = 0; i < fn->vectors; i++)
		if (fn->msix[i][0] & 3 || fn->msix[i][3] > 1)
			*why = "reserved bits are set in an MSI-X entry";
	if (!*why)
		pci_config_apply(fn);
	pthread_mutex_unlock(&fn->lock);
	return *why ? -EINVAL : 0;
}

static const struct field msix_fields[] = {
	{.name = "entry", .type = FIELD_U32, .offset = 0, .count = 4, .stride = 4, .since = 1},
	FIELD_END,
};
static const struct state_desc msix_state = {.name = "msix", .version = 1, .fields = msix_fields};

static const struct field function_fields[] = {
	FIELD_BLOB(struct pci_function, config, 1),
	FIELD_SCALAR(struct pci_function, intx, FIELD_BOOL, 1),
	FIELD_SUBS(struct pci_function, msix, &msix_state, 1),
	FIELD_SCALAR(struct pci_function, msix_pending, FIELD_U64, 1),
	FIELD_END,
};
const struct state_desc pci_function_state = {.name = "pci-function",
					      .version = 1,
					      .fields = function_fields,
					      .post_load = function_post_load};
