/* Inside of the 16550A: its registers (serial8250_regs.c) and its life (serial8250.c). */
#ifndef DEVICES_SERIAL8250_H
#define DEVICES_SERIAL8250_H

#include <pthread.h>

#include "devices/pc.h"

#define FIFO_SIZE 16

#define IER_RDI	  0x01
#define IER_THRI  0x02
#define IER_RLSI  0x04
#define IER_MSI	  0x08
#define IER_MASK  0x0f
#define IIR_NONE  0x01
#define IIR_MSI	  0x00
#define IIR_THRI  0x02
#define IIR_RDI	  0x04
#define IIR_RLSI  0x06
#define IIR_CTI	  0x0c
#define IIR_FIFO  0xc0
#define FCR_ON	  0x01
#define FCR_RX	  0x02
#define FCR_TX	  0x04
#define FCR_MASK  0xc9 /* what sticks: enable, DMA mode, trigger level */
#define LCR_BREAK 0x40
#define LCR_DLAB  0x80
#define MCR_DTR	  0x01
#define MCR_RTS	  0x02
#define MCR_OUT1  0x04
#define MCR_OUT2  0x08
#define MCR_LOOP  0x10
#define MCR_MASK  0x1f
#define LSR_DR	  0x01
#define LSR_OE	  0x02
#define LSR_BI	  0x10
#define LSR_THRE  0x20
#define LSR_TEMT  0x40
#define MSR_CTS	  0x10
#define MSR_DSR	  0x20
#define MSR_RI	  0x40
#define MSR_DCD	  0x80

struct serial {
	struct device dev;
	pthread_mutex_t lock;
	struct io_space *ports;
	uint16_t base;
	struct irq_line line;
	struct chardev *chr;
	char name[32];
	bool quiesced; /* between prepare and acquire/abort: the outside is not touched */

	uint8_t ier, fcr, lcr, mcr, scr, dll, dlm;
	uint8_t errors; /* LSR 4:1, until the LSR is read */
	uint8_t msr;
	bool thre_pending; /* the THR-empty interrupt waits to be seen (8.6.4) */
	uint8_t rx[FIFO_SIZE], tx[FIFO_SIZE];
	uint8_t rx_count, tx_count; /* element 0 is the oldest */
};

/* All with the lock held. */
unsigned serial_depth(const struct serial *s); /* bytes that each direction holds */
void serial_update(struct serial *s);	       /* drive the interrupt line */
void serial_rx_push(struct serial *s, uint8_t byte);
void serial_tx_flush(struct serial *s); /* offer what waits to the back end */
/* *room is set where the back end can send again. */
uint8_t serial_read_reg(struct serial *s, unsigned reg, bool *room);
void serial_write_reg(struct serial *s, unsigned reg, uint8_t value);

#endif
