/* MSI-X: PCI 3.0, 6.8.2. */
#include "devices/pci/pci_internal.h"

#include <errno.h>
#include <string.h>

enum { MSIX_CONTROL = 2, MSIX_ENABLE = 1 << 15, MSIX_MASK_ALL = 1 << 14 };
enum { ENTRY_SIZE = 16, ENTRY_CONTROL = 3, ENTRY_MASKED = 1 };

int pci_msix_add(struct pci_function *fn, unsigned bar, unsigned vectors, uint32_t table,
		 uint32_t pba)
{
	uint8_t body[10], writable[10] = {0};
	int cap;

	if (bar >= PCI_BARS || !vectors || vectors > PCI_MSIX_MAX || (table | pba) % 8 ||
	    table + vectors * ENTRY_SIZE > fn->bar[bar].size || pba + 8 > fn->bar[bar].size)
		return -EINVAL;
	pci_put16(body, vectors - 1);
	pci_put32(body + 2, table | bar);
	pci_put32(body + 6, pba | bar);
	pci_put16(writable, MSIX_ENABLE | MSIX_MASK_ALL);
	cap = pci_cap_add(fn, PCI_CAP_MSIX, body, writable, sizeof(body));
	if (cap < 0)
		return cap;
	fn->vectors = vectors;
	fn->msix_cap = (unsigned)cap;
	fn->msix_bar = bar;
	fn->msix_table = table;
	fn->msix_pba = pba;
	pci_msix_reset(fn);
	return 0;
}

void pci_msix_reset(struct pci_function *fn)
{
	memset(fn->msix, 0, sizeof(fn->msix));
	for (unsigned i = 0; i < PCI_MSIX_MAX; i++)
		fn->msix[i][ENTRY_CONTROL] = ENTRY_MASKED;
	fn->msix_pending = 0;
}

static uint16_t control(const struct pci_function *fn)
{
	return fn->vectors ? pci_get16(fn->config + fn->msix_cap + MSIX_CONTROL) : 0;
}

bool pci_msix_on(const struct pci_function *fn)
{
	return control(fn) & MSIX_ENABLE;
}

bool pci_msix_enabled(struct pci_function *fn)
{
	bool on;

	pthread_mutex_lock(&fn->lock);
	on = pci_msix_on(fn);
	pthread_mutex_unlock(&fn->lock);
	return on;
}

/* A message is a memory write: without bus mastering (6.2.2) it waits, as behind a mask. */
static bool may_send(const struct pci_function *fn)
{
	return (control(fn) & (MSIX_ENABLE | MSIX_MASK_ALL)) == MSIX_ENABLE &&
	       (pci_get16(fn->config + PCI_COMMAND) & PCI_COMMAND_MASTER);
}

void pci_msix_flush(struct pci_function *fn)
{
	const struct msi_sink *sink = &((struct pci_host *)fn->host)->config.msi;

	if (!fn->msix_pending || !may_send(fn))
		return;
	for (unsigned i = 0; i < fn->vectors; i++) {
		const uint32_t *e = fn->msix[i];

		if (!(fn->msix_pending >> i & 1) || (e[ENTRY_CONTROL] & ENTRY_MASKED))
			continue;
		fn->msix_pending &= ~(1ULL << i);
		sink->send(sink->opaque, e[0] | (uint64_t)e[1] << 32, e[2]);
	}
}

void pci_msix_notify(struct pci_function *fn, unsigned vector)
{
	if (vector >= fn->vectors)
		return;
	pthread_mutex_lock(&fn->lock);
	if (pci_msix_on(fn)) {
		fn->msix_pending |= 1ULL << vector;
		pci_msix_flush(fn);
	}
	pthread_mutex_unlock(&fn->lock);
}

/* ---- table and pending bits in the BAR ---- */

static uint32_t read32(const struct pci_function *fn, bool table, uint64_t off)
{
	if (table)
		return fn->msix[off / ENTRY_SIZE][off / 4 % 4];
	return (uint32_t)(fn->msix_pending >> 8 * off);
}

static void write32(struct pci_function *fn, uint64_t off, uint32_t value)
{
	static const uint32_t masks[4] = {~3u, ~0u, ~0u, ENTRY_MASKED};

	fn->msix[off / ENTRY_SIZE][off / 4 % 4] = value & masks[off / 4 % 4];
}

bool pci_msix_access(struct pci_function *fn, unsigned bar, uint64_t off, unsigned size, bool write,
		     uint64_t *value)
{
	const uint64_t table_end = fn->msix_table + (uint64_t)fn->vectors * ENTRY_SIZE;
	bool table;

	if (!fn->vectors || bar != fn->msix_bar)
		return false;
	table = off >= fn->msix_table && off < table_end;
	if (!table && (off < fn->msix_pba || off >= fn->msix_pba + 8u))
		return false;
	off -= table ? fn->msix_table : fn->msix_pba;
	pthread_mutex_lock(&fn->lock);
	/* Aligned dwords and quadwords only (6.8.2); the pending bits are read-only. */
	if (write && table && off % size == 0 && size >= 4) {
		write32(fn, off, (uint32_t)*value);
		if (size == 8)
			write32(fn, off + 4, (uint32_t)(*value >> 32));
		pci_msix_flush(fn);
	} else if (!write && off % size == 0) {
		*value = (uint64_t)read32(fn, table, off & ~3ULL) >> 8 * (off & 3);
		if (size == 8)
			*value |= (uint64_t)read32(fn, table, off + 4) << 32;
	}
	pthread_mutex_unlock(&fn->lock);
	return true;
}
