#include "devices/i8259.h"

/* ICW1 clears the edge sense, the mask and the modes (data sheet: "Initialization Command Words").
 */
void i8259_reset(struct i8259 *c)
{
	uint8_t lines = c->lines, elcr = c->elcr;

	*c = (struct i8259){.lines = lines, .elcr = elcr, .lowest = 7};
	c->irr = lines & elcr;
}

/* The rank (0: highest priority) of the best of the IRQs in mask, 8: none. */
static unsigned best(const struct i8259 *c, uint8_t mask)
{
	for (unsigned rank = 0; mask && rank < 8; rank++)
		if (mask >> ((c->lowest + 1 + rank) & 7) & 1)
			return rank;
	return 8;
}

int i8259_request(const struct i8259 *c, bool master)
{
	unsigned want = best(c, c->irr & (uint8_t)~c->imr);
	unsigned irq = (c->lowest + 1 + want) & 7;
	uint8_t served = c->isr;

	if (want == 8)
		return -1;
	if (c->special_mask)
		served &= (uint8_t)~c->imr;
	/* Special fully nested: a slave in service may ask again, for a higher one of its own. */
	if (c->fully_nested && master && irq == CASCADE_IRQ)
		served &= (uint8_t) ~(1u << CASCADE_IRQ);
	return want < best(c, served) ? (int)irq : -1;
}

void i8259_set_line(struct i8259 *c, unsigned irq, bool level)
{
	uint8_t bit = (uint8_t)(1u << irq);

	/* A request whose line falls before INTA is gone, in either mode ("Edge and Level Triggered
	 * Modes"): devices hold their lines until they were served. */
	if (!level)
		c->irr &= (uint8_t)~bit;
	else if ((c->elcr & bit) || !(c->lines & bit))
		c->irr |= bit;
	c->lines = (uint8_t)(level ? c->lines | bit : c->lines & ~bit);
}

void i8259_ack(struct i8259 *c, unsigned irq)
{
	uint8_t bit = (uint8_t)(1u << irq);

	if (!(c->elcr & bit))
		c->irr &= (uint8_t)~bit;
	if (!c->auto_eoi)
		c->isr |= bit;
	else if (c->rotate_on_aeoi)
		c->lowest = (uint8_t)irq;
}

/* ---- command words ---- */

static void eoi(struct i8259 *c, unsigned irq, bool rotate)
{
	c->isr &= (uint8_t) ~(1u << irq);
	if (rotate)
		c->lowest = (uint8_t)irq;
}

/* The in-service IRQ of the highest priority; special mask mode leaves masked ones out ("Fully
 * nested mode": a non-specific EOI does not clear an IS bit that is masked by an IMR bit then). */
static int in_service(const struct i8259 *c)
{
	uint8_t served = c->special_mask ? c->isr & (uint8_t)~c->imr : c->isr;
	unsigned rank = best(c, served);

	return rank == 8 ? -1 : (int)((c->lowest + 1 + rank) & 7);
}

static void write_ocw2(struct i8259 *c, uint8_t value)
{
	int irq;

	switch (value >> 5) {
	case 0: c->rotate_on_aeoi = false; break;
	case 4: c->rotate_on_aeoi = true; break;
	case 1:
	case 5:
		irq = in_service(c);
		if (irq >= 0)
			eoi(c, (unsigned)irq, value >> 5 == 5);
		break;
	case 3:
	case 7: eoi(c, value & 7, value >> 5 == 7); break;
	case 6: c->lowest = value & 7; break;
	default: break; /* 2: no operation */
	}
}

static void write_ocw3(struct i8259 *c, uint8_t value)
{
	if (value & 0x04)
		c->poll = true;
	if (value & 0x02)
		c->read_isr = value & 0x01;
	if (value & 0x40)
		c->special_mask = value & 0x20;
}

void i8259_write_command(struct i8259 *c, uint8_t value)
{
	if (value & 0x10) {
		i8259_reset(c);
		c->init_step = 2;
		c->icw4_needed = value & 0x01;
		c->single = value & 0x02;
	} else if (value & 0x08) {
		write_ocw3(c, value);
	} else {
		write_ocw2(c, value);
	}
}

void i8259_write_data(struct i8259 *c, uint8_t value)
{
	switch (c->init_step) {
	case 0: c->imr = value; break;
	case 2:
		c->vector_base = value & 0xf8;
		c->init_step = !c->single ? 3 : c->icw4_needed ? 4 : 0;
		break;
	case 3: c->init_step = c->icw4_needed ? 4 : 0; break; /* the wiring is fixed */
	default:
		c->fully_nested = value & 0x10;
		c->auto_eoi = value & 0x02;
		c->init_step = 0;
		break;
	}
}

static const struct field fields[] = {
	FIELD_SCALAR(struct i8259, irr, FIELD_U8, 1),
	FIELD_SCALAR(struct i8259, imr, FIELD_U8, 1),
	FIELD_SCALAR(struct i8259, isr, FIELD_U8, 1),
	FIELD_SCALAR(struct i8259, lines, FIELD_U8, 1),
	FIELD_SCALAR(struct i8259, elcr, FIELD_U8, 1),
	FIELD_SCALAR(struct i8259, lowest, FIELD_U8, 1),
	FIELD_SCALAR(struct i8259, vector_base, FIELD_U8, 1),
	FIELD_SCALAR(struct i8259, init_step, FIELD_U8, 1),
	FIELD_SCALAR(struct i8259, icw4_needed, FIELD_BOOL, 1),
	FIELD_SCALAR(struct i8259, single, FIELD_BOOL, 1),
	FIELD_SCALAR(struct i8259, read_isr, FIELD_BOOL, 1),
	FIELD_SCALAR(struct i8259, poll, FIELD_BOOL, 1),
	FIELD_SCALAR(struct i8259, special_mask, FIELD_BOOL, 1),
	FIELD_SCALAR(struct i8259, auto_eoi, FIELD_BOOL, 1),
	FIELD_SCALAR(struct i8259, rotate_on_aeoi, FIELD_BOOL, 1),
	FIELD_SCALAR(struct i8259, fully_nested, FIELD_BOOL, 1),
	FIELD_END,
};
const struct state_desc i8259_state = {.name = "i8259", .version = 1, .fields = fields};
