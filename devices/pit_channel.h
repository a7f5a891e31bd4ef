/*
 * One counter of an i8254 (Intel data sheet, order 231164): what it holds and what its output
 * shows.
 *
 * A channel is not stepped: both follow from the clock ticks since it was loaded. `now` is guest
 * time in ns; the owner's lock is held.
 */
#ifndef DEVICES_PIT_CHANNEL_H
#define DEVICES_PIT_CHANNEL_H

#include <stdbool.h>
#include <stdint.h>

#include "migration/field.h"

#define PIT_HZ 1193182ULL

struct pit_channel {
	uint8_t access; /* control word 5:4: 1 low, 2 high, 3 low then high byte */
	uint8_t mode;	/* 0-5 */
	bool bcd, gate;
	bool loaded;	   /* a count was written since the control word */
	bool triggered;	   /* modes 1 and 5: the gate rose since then */
	uint32_t reload;   /* 1-65536 */
	uint64_t start_ns; /* while counting: when the count of `ticks` was reached */
	uint64_t ticks;	   /* elapsed before start_ns */
	uint8_t read_step, write_step, write_low;
	bool count_latched, status_latched;
	uint16_t latch;
	uint8_t status;
};

extern const struct state_desc pit_channel_state;

/* Power on: nothing is loaded. */
void pit_channel_reset(struct pit_channel *c, bool gate, uint64_t now);
/* A control word for this channel (not the counter latch command). */
void pit_channel_control(struct pit_channel *c, uint8_t value, uint64_t now);
void pit_channel_latch_count(struct pit_channel *c, uint64_t now);
void pit_channel_latch_status(struct pit_channel *c, uint64_t now);
void pit_channel_write(struct pit_channel *c, uint8_t value, uint64_t now);
uint8_t pit_channel_read(struct pit_channel *c, uint64_t now);
void pit_channel_set_gate(struct pit_channel *c, bool gate, uint64_t now);
bool pit_channel_out(const struct pit_channel *c, uint64_t now);
/* Guest time of the next rising edge of OUT, 0: there is none. Periods shorter than 40 us are
 * lengthened to that: a hostile rate must not keep the event loop busy. */
uint64_t pit_channel_next_edge(const struct pit_channel *c, uint64_t now);

#endif
