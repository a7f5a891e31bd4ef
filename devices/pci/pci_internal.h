/* Between the files of devices/pci. */
#ifndef DEVICES_PCI_PCI_INTERNAL_H
#define DEVICES_PCI_PCI_INTERNAL_H

#include "devices/pci/pci.h"

struct pci_host {
	struct device dev;
	struct pci_host_config config;
	struct pci_function bridge;
	struct pci_function *slot[PCI_SLOTS];
	uint32_t address; /* CONFIG_ADDRESS; atomic */

	pthread_mutex_t intx_lock;
	uint32_t asserted[PCI_INTX_LINES]; /* slots that pull this line */
};

/* ---- config.c ---- */
uint32_t pci_config_read(struct pci_function *fn, unsigned vcpu, unsigned off, unsigned size);
void pci_config_write(struct pci_function *fn, unsigned vcpu, unsigned off, unsigned size,
		      uint32_t value);
/* What follows from configuration space: BARs, INTx, MSI-X. With the function's lock held. */
void pci_config_apply(struct pci_function *fn);
uint16_t pci_get16(const uint8_t *p);
uint32_t pci_get32(const uint8_t *p);
void pci_put16(uint8_t *p, uint32_t value);
void pci_put32(uint8_t *p, uint32_t value);

/* ---- msix.c; all but the first with the function's lock held ---- */
/* True: the access was to the table or the pending bits. */
bool pci_msix_access(struct pci_function *fn, unsigned bar, uint64_t off, unsigned size, bool write,
		     uint64_t *value);
void pci_msix_reset(struct pci_function *fn);
bool pci_msix_on(const struct pci_function *fn);
void pci_msix_flush(struct pci_function *fn); /* sends what is pending and allowed */

/* ---- host.c ---- */
void pci_host_intx(struct pci_host *host, unsigned slot, bool level);

#endif
