/*
 * Software bits of leaves, reserved by name. Hardware ignores them; what they mean is their users'.
 * A format has few (EPT, NPT and arm64 four, RISC-V two), and they are free per kind of root: the
 * leaves of canonical tables and those of shadows have nothing in common.
 *
 * A field that does not fit may live aside: its user keeps the value elsewhere (states.h), and
 * field_put leaves the leaf as it is.
 */
#ifndef MMU_FIELDS_H
#define MMU_FIELDS_H

#include "mmu/format.h"

enum field_root { FIELD_CANONICAL, FIELD_SHADOW, FIELD_ROOTS };
enum { FIELD_MAX = 4, FIELD_ANYWHERE = 255 };

struct field {
	const char *name;
	uint8_t bits, shift; /* bits 0: aside */
};

struct fields {
	struct field field[FIELD_ROOTS][FIELD_MAX];
};

/* Reserves `bits` software bits from `shift` (FIELD_ANYWHERE: where there is room) in the leaves of
 * this kind of root; the name is kept by reference. aside: no room is no error. 0; -EEXIST: the
 * name is taken; -EBUSY: another field is there; -ENOSPC: the format has no such bits, or all are
 * taken. On failure nothing is reserved. Not for two threads at a time. */
int field_reserve(struct fields *fields, const struct format *f, enum field_root root,
		  const char *name, unsigned bits, unsigned shift, bool aside, struct field *out);
void field_release(struct fields *fields, enum field_root root, const char *name);

mmu_inline uint64_t field_put(const struct format *f, const struct field *field, uint64_t leaf,
			      uint32_t value)
{
	uint32_t mask = ((1u << field->bits) - 1) << field->shift;

	return format_set_sw(f, leaf,
			     (format_sw(f, leaf) & ~mask) | (value << field->shift & mask));
}

mmu_inline uint32_t field_get(const struct format *f, const struct field *field, uint64_t leaf)
{
	return format_sw(f, leaf) >> field->shift & ((1u << field->bits) - 1);
}

#endif
