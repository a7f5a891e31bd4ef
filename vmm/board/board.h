/*
 * A board: a versioned name for which devices stand where. Addresses, interrupts and ids are part
 * of the name's meaning and never change under it; a new layout is a new name.
 */
#ifndef VMM_BOARD_BOARD_H
#define VMM_BOARD_BOARD_H

#include <pthread.h>

#include "cpu/engine.h"
#include "devices/pc.h"
#include "devices/virtio/devices.h"
#include "vmm/boot/boot.h"
#include "vmm/error.h"
#include "vmm/memory.h"

enum { BOARD_SERIAL_MAX = 4, BOARD_DEVICE_MAX = 48 };

/* What a board needs from the machine that it is in. */
struct board_host {
	unsigned vcpus;
	unsigned serials;
	struct chardev *serial[BOARD_SERIAL_MAX];
	uint16_t debug_exit; /* port, 0: none */
	uint64_t timer_hz;
	const struct cpu_pins *pins;
	const struct machine_sink *sink;
	const struct clock_source *clock;
	const struct timer_source *timers;
	const struct tsc_source *tsc;
	const struct work_source *works;
	const struct dma_ops *dma;
	struct chardev *console;	      /* of virtio-console; NULL: there is none */
	const struct virtio_blk_config *disk; /* in the order of their names: vda, vdb... */
	const struct virtio_net_config *card;
	struct virtio_balloon_config balloon;
	const struct virtio_vsock_config *vsock; /* NULL: there is none */
	unsigned disks, cards;
};

struct board {
	const char *name;
	struct io_space ports, mmio;
	struct device *devices[BOARD_DEVICE_MAX]; /* in creation order */
	char names[BOARD_DEVICE_MAX][16];	  /* of those that there are several of */
	unsigned device_count;
	struct device *disks[16];
	unsigned disk_count;
	struct device *lapic, *ioapic, *pic, *pm, *pci, *balloon;
	/* The lines of ISA interrupts: to the PIC and to the IOAPIC at once, as on a real board. */
	struct isa_irq {
		struct irq_line pic, ioapic;
		pthread_mutex_t lock; /* behind a device's, before an interrupt controller's */
		uint32_t sources;     /* who holds the line up: serial lines share theirs */
	} isa[16];
	struct boot_e820 e820[8];
};

/* pc-1.0 (docs/memory-map-pc.md). 0 or -errno with a text; on failure nothing is left. */
int board_pc_create(struct board *board, const struct board_host *host, struct error *err);
/* What a kernel is told of the memory (struct boot_board), and the ACPI tables in it: written anew
 * before each boot. `boot` points into the board afterwards. */
int board_pc_describe(struct board *board, const struct board_host *host,
		      struct guest_memory *memory, struct boot_board *boot, struct error *err);
void board_destroy(struct board *board);
void board_reset(struct board *board); /* vCPUs are stopped */

#endif
