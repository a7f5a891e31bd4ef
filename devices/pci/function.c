/* Making a function, and accesses to its BARs. */
#include "devices/pci/pci_internal.h"

#include <errno.h>
#include <string.h>

#include "devices/util.h"

enum { BAR_TYPE_64 = 4, BAR_PREFETCH = 8, COMMAND_PARITY = 1 << 6, COMMAND_SERR = 1 << 8 };

int pci_function_init(struct pci_function *fn, struct device *host, unsigned slot, const char *name,
		      const struct pci_ids *ids)
{
	struct pci_host *h = (struct pci_host *)host;
	uint8_t *c = fn->initial;

	if (slot >= PCI_SLOTS)
		return -EINVAL;
	if (h->slot[slot])
		return -EEXIST;
	memset(fn, 0, sizeof(*fn));
	fn->host = host;
	fn->slot = slot;
	fn->name = name;
	fn->next_cap = PCI_CAPS_START;
	pthread_mutex_init(&fn->lock, NULL);
	for (unsigned n = 0; n < PCI_BARS; n++)
		atomic_init(&fn->bar[n].mapped, PCI_UNMAPPED);
	pci_put16(c + PCI_VENDOR, ids->vendor);
	pci_put16(c + PCI_DEVICE, ids->device);
	pci_put16(c + PCI_SUBVENDOR, ids->subvendor);
	pci_put16(c + PCI_SUBSYSTEM, ids->subsystem);
	pci_put32(c + PCI_REVISION, ids->class_code << 8 | ids->revision);
	c[PCI_INT_PIN] = ids->intx;
	pci_put16(fn->writable + PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER |
						      PCI_COMMAND_INTX_OFF | COMMAND_PARITY |
						      COMMAND_SERR);
	fn->writable[PCI_CACHE_LINE] = 0xff;
	fn->writable[PCI_INT_LINE] = 0xff;
	memcpy(fn->config, fn->initial, sizeof(fn->config));
	h->slot[slot] = fn;
	return 0;
}

void pci_function_exit(struct pci_function *fn)
{
	struct pci_host *host = (struct pci_host *)fn->host;

	if (!host)
		return;
	pci_host_intx(host, fn->slot, false);
	host->slot[fn->slot] = NULL;
	pthread_mutex_destroy(&fn->lock);
	fn->host = NULL;
}

void pci_function_reset(struct pci_function *fn)
{
	pthread_mutex_lock(&fn->lock);
	memcpy(fn->config, fn->initial, sizeof(fn->config));
	fn->intx = false;
	pci_msix_reset(fn);
	pci_config_apply(fn);
	pthread_mutex_unlock(&fn->lock);
}

/* The slot's 1/32 of the window, and of that the BAR's 1/8: no address depends on what else is
 * there. */
int pci_bar_add(struct pci_function *fn, unsigned n, unsigned flags, uint64_t size,
		const struct io_region_ops *ops, void *opaque)
{
	const struct pci_host_config *hc = &((struct pci_host *)fn->host)->config;
	const struct pci_window *w = flags & PCI_BAR_HIGH ? &hc->mmio64 : &hc->mmio32;
	const uint64_t share = w->size / PCI_SLOTS, each = share / 8;
	const bool wide = flags & PCI_BAR_64BIT;
	const unsigned reg = PCI_BAR0 + 4 * n;
	const uint64_t mask = ~(size - 1), addr = w->base + fn->slot * share + n * each;

	if (n + wide >= PCI_BARS || size < 4096 || (size & (size - 1)) || size > each ||
	    ((flags & PCI_BAR_HIGH) && !wide))
		return -EINVAL;
	if (fn->bar[n].size || fn->writable[reg + 3] || (wide && fn->bar[n + 1].size))
		return -EEXIST;
	pci_put32(fn->initial + reg, (uint32_t)addr | (wide ? BAR_TYPE_64 : 0) |
					     (flags & PCI_BAR_PREFETCH ? BAR_PREFETCH : 0));
	pci_put32(fn->writable + reg, (uint32_t)mask);
	if (wide) {
		pci_put32(fn->initial + reg + 4, (uint32_t)(addr >> 32));
		pci_put32(fn->writable + reg + 4, (uint32_t)(mask >> 32));
	}
	fn->bar[n].size = size;
	fn->bar[n].flags = flags;
	fn->bar[n].ops = ops;
	fn->bar[n].opaque = opaque;
	memcpy(fn->config, fn->initial, sizeof(fn->config));
	return 0;
}

int pci_cap_add(struct pci_function *fn, uint8_t id, const void *body, const void *writable,
		unsigned len)
{
	const unsigned at = fn->next_cap;

	if (at + 2 + len > PCI_CONFIG_SIZE)
		return -ENOSPC;
	fn->initial[at] = id;
	memcpy(fn->initial + at + 2, body, len);
	if (writable)
		memcpy(fn->writable + at + 2, writable, len);
	fn->initial[fn->last_cap ? fn->last_cap + 1 : PCI_CAPS] = (uint8_t)at;
	fn->initial[PCI_STATUS] |= PCI_STATUS_CAPS;
	fn->last_cap = at;
	fn->next_cap = (at + 2 + len + 3) & ~3u;
	memcpy(fn->config, fn->initial, sizeof(fn->config));
	return (int)at;
}

void pci_window_add(struct pci_function *fn, unsigned offset, const struct io_region_ops *ops,
		    void *opaque)
{
	fn->window = offset;
	fn->window_ops = ops;
	fn->window_opaque = opaque;
}

static bool in_bar(const struct pci_function *fn, unsigned bar, uint64_t off, unsigned size)
{
	return bar < PCI_BARS && fn->bar[bar].size && off < fn->bar[bar].size &&
	       size <= fn->bar[bar].size - off;
}

uint64_t pci_bar_read(struct pci_function *fn, unsigned vcpu, unsigned bar, uint64_t off,
		      unsigned size)
{
	uint64_t value = all_ones(size);

	if (in_bar(fn, bar, off, size) && !pci_msix_access(fn, bar, off, size, false, &value))
		value = fn->bar[bar].ops->read(fn->bar[bar].opaque, vcpu, off, size);
	return value;
}

void pci_bar_write(struct pci_function *fn, unsigned vcpu, unsigned bar, uint64_t off,
		   unsigned size, uint64_t value)
{
	if (in_bar(fn, bar, off, size) && !pci_msix_access(fn, bar, off, size, true, &value))
		fn->bar[bar].ops->write(fn->bar[bar].opaque, vcpu, off, size, value);
}
