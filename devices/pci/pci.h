/*
 * PCI: one host with one bus, and what a device needs to be a function on it (PCI Local Bus
 * Specification 3.0; the ECAM window: PCI Express Base 4.0, 7.2.2).
 *
 * Each slot has one function, a conventional one: 256 bytes of configuration space, memory BARs,
 * INTA, MSI-X. Where a BAR stands after reset follows from its slot and number alone; the guest may
 * move it inside the windows. The windows are regions of the host's, so that moving a BAR changes
 * no io_space: the host finds the BAR at each access, without a lock.
 *
 * Locks: the device's -> the function's -> the host's for INTx lines -> interrupt controller. BAR
 * callbacks are called with none held.
 */
#ifndef DEVICES_PCI_PCI_H
#define DEVICES_PCI_PCI_H

#include <pthread.h>
#include <stdatomic.h>

#include "devices/device.h"

enum {
	PCI_SLOTS = 32,
	PCI_BARS = 6,
	PCI_INTX_LINES = 8,
	PCI_MSIX_MAX = 64, /* vectors of a function */
	PCI_CONFIG_SIZE = 256,
	PCI_ECAM_SIZE = 1 << 20, /* of one bus */
};

/* Offsets and bits of the header (PCI 3.0, 6.1, 6.2). */
enum {
	PCI_VENDOR = 0x00,
	PCI_DEVICE = 0x02,
	PCI_COMMAND = 0x04,
	PCI_STATUS = 0x06,
	PCI_REVISION = 0x08,
	PCI_CLASS = 0x09,
	PCI_CACHE_LINE = 0x0c,
	PCI_BAR0 = 0x10,
	PCI_SUBVENDOR = 0x2c,
	PCI_SUBSYSTEM = 0x2e,
	PCI_CAPS = 0x34,
	PCI_INT_LINE = 0x3c,
	PCI_INT_PIN = 0x3d,
	PCI_CAPS_START = 0x40,
};
enum {
	PCI_COMMAND_MEMORY = 1 << 1,
	PCI_COMMAND_MASTER = 1 << 2,
	PCI_COMMAND_INTX_OFF = 1 << 10,
	PCI_STATUS_INTX = 1 << 3,
	PCI_STATUS_CAPS = 1 << 4,
};
enum { PCI_CAP_VENDOR = 0x09, PCI_CAP_MSIX = 0x11 };
enum {
	PCI_BAR_64BIT = 1,
	PCI_BAR_PREFETCH = 2,
	PCI_BAR_HIGH = 4 /* stands in the 64-bit window */
};

/* ---- the host ---- */

struct msi_sink { /* any thread, any lock but the interrupt controller's held */
	void (*send)(void *opaque, uint64_t addr, uint32_t data);
	void *opaque;
};
struct pci_window {
	uint64_t base, size; /* size: a power of two, base: a multiple of it */
};
struct pci_host_config {
	struct io_space *ports; /* CF8h-CFFh; NULL: none */
	struct io_space *mmio;
	uint64_t ecam; /* PCI_ECAM_SIZE bytes */
	struct pci_window mmio32, mmio64;
	struct irq_line line[PCI_INTX_LINES]; /* level; where pci_intx_line() says */
	struct msi_sink msi;
};
/* The host bridge stands at 0:0.0. 0, -EEXIST, -EINVAL, -ENOMEM. */
int pci_host_create(struct device **out, const struct pci_host_config *config);
/* The line of INTA of a slot. */
static inline unsigned pci_intx_line(unsigned slot)
{
	return slot % PCI_INTX_LINES;
}

/* ---- functions ---- */

struct pci_bar {
	uint64_t size; /* 0: not there */
	unsigned flags;
	const struct io_region_ops *ops;
	void *opaque;
	_Atomic uint64_t mapped; /* where it answers; PCI_UNMAPPED: nowhere */
};
#define PCI_UNMAPPED UINT64_MAX

struct pci_function {
	struct device *host;
	unsigned slot;
	const char *name;
	pthread_mutex_t lock; /* of all below but `mapped` */
	uint8_t config[PCI_CONFIG_SIZE];
	uint8_t writable[PCI_CONFIG_SIZE]; /* masks */
	uint8_t initial[PCI_CONFIG_SIZE];
	struct pci_bar bar[PCI_BARS];
	unsigned next_cap, last_cap;
	bool intx; /* the device's wish */
	/* Four bytes of configuration space that the device answers itself; 0: none. */
	unsigned window;
	const struct io_region_ops *window_ops;
	void *window_opaque;

	unsigned vectors; /* of MSI-X; 0: it has none */
	unsigned msix_cap, msix_bar;
	uint32_t msix_table, msix_pba;	/* offsets in the BAR */
	uint32_t msix[PCI_MSIX_MAX][4]; /* address, address high, data, control (6.8.2.9) */
	uint64_t msix_pending;
};

struct pci_ids {
	uint16_t vendor, device, subvendor, subsystem;
	uint32_t class_code; /* 24 bits: class, subclass, interface */
	uint8_t revision;
	bool intx; /* INTA is there */
};
/* Everything of a function is made and taken away while no vCPU runs. The object lives in its
 * device; `name` is kept by reference. -EEXIST: the slot has one; -EINVAL: there is no such slot.
 */
int pci_function_init(struct pci_function *fn, struct device *host, unsigned slot, const char *name,
		      const struct pci_ids *ids);
void pci_function_exit(struct pci_function *fn);
/* Power-on state. */
void pci_function_reset(struct pci_function *fn);
/* size: a power of two, 4 KiB up to an eighth of what a slot has of its window (1/32). A BAR of 64
 * bits takes the number above, too. -EINVAL, -EEXIST. */
int pci_bar_add(struct pci_function *fn, unsigned n, unsigned flags, uint64_t size,
		const struct io_region_ops *ops, void *opaque);
/* A capability: `body` follows the two bytes of its header; `writable` (may be NULL) are masks of
 * the same length. Returns its offset, or -ENOSPC. */
int pci_cap_add(struct pci_function *fn, uint8_t id, const void *body, const void *writable,
		unsigned len);
/* MSI-X with its table and pending bits at these offsets (multiples of 8) of a BAR that was added.
 */
int pci_msix_add(struct pci_function *fn, unsigned bar, unsigned vectors, uint32_t table,
		 uint32_t pba);
/* Accesses inside of [offset, offset + 4) are the device's, with no lock held. */
void pci_window_add(struct pci_function *fn, unsigned offset, const struct io_region_ops *ops,
		    void *opaque);
/* Bytes of configuration space as the guest has them; size 1, 2, 4. */
uint32_t pci_config_get(struct pci_function *fn, unsigned offset, unsigned size);

/* An access to a BAR as the guest does one; what is not there reads as all ones. */
uint64_t pci_bar_read(struct pci_function *fn, unsigned vcpu, unsigned bar, uint64_t off,
		      unsigned size);
void pci_bar_write(struct pci_function *fn, unsigned vcpu, unsigned bar, uint64_t off,
		   unsigned size, uint64_t value);

/* Interrupts: any thread, with the device's lock held is fine. A message of a masked vector is kept
 * pending; one of a vector that is not there is nothing. */
bool pci_msix_enabled(struct pci_function *fn);
void pci_msix_notify(struct pci_function *fn, unsigned vector);
void pci_intx_set(struct pci_function *fn, bool level);

/* For the device's own table: FIELD_SUB(struct my_device, fn, &pci_function_state, 1). */
extern const struct state_desc pci_function_state;

#endif
