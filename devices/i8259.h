/*
 * One i8259A (Intel data sheet, order 231468) without its bus: requests, priorities, command words.
 * The owner's lock is held.
 */
#ifndef DEVICES_I8259_H
#define DEVICES_I8259_H

#include <stdbool.h>
#include <stdint.h>

#include "migration/field.h"

#define CASCADE_IRQ 2

struct i8259 {
	uint8_t irr, imr, isr, lines, elcr;
	uint8_t lowest;	     /* the IRQ of the lowest priority (rotation) */
	uint8_t vector_base; /* ICW2 */
	uint8_t init_step;   /* 0: operating, else the ICW that is expected */
	bool icw4_needed, single;
	bool read_isr, poll, special_mask;
	bool auto_eoi, rotate_on_aeoi,
		fully_nested; /* fully_nested: the special fully nested mode */
};

extern const struct state_desc i8259_state;

/* ICW1, and power on: lines and elcr stay. */
void i8259_reset(struct i8259 *c);
void i8259_set_line(struct i8259 *c, unsigned irq, bool level);
/* The IRQ that this chip asks for, -1: none. */
int i8259_request(const struct i8259 *c, bool master);
/* INTA, or the read that follows a poll command. */
void i8259_ack(struct i8259 *c, unsigned irq);
void i8259_write_command(struct i8259 *c, uint8_t value); /* A0 = 0 */
void i8259_write_data(struct i8259 *c, uint8_t value);	  /* A0 = 1 */

#endif
