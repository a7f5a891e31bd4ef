#include "mmu/fields.h"

#include <errno.h>
#include <string.h>

static uint32_t mask_of(unsigned bits, unsigned shift)
{
	return ((1u << bits) - 1) << shift;
}

int field_reserve(struct fields *fields, const struct format *f, enum field_root root,
		  const char *name, unsigned bits, unsigned shift, bool aside, struct field *out)
{
	struct field *free = NULL;
	uint32_t taken = 0;
	int err = 0;

	if (!bits || bits > 8)
		return -ENOSPC;
	for (unsigned i = 0; i < FIELD_MAX; i++) {
		struct field *field = &fields->field[root][i];

		if (!field->name)
			free = field;
		else if (!strcmp(field->name, name))
			return -EEXIST;
		else
			taken |= mask_of(field->bits, field->shift);
	}
	if (!free)
		return -ENOSPC;
	if (shift == FIELD_ANYWHERE) {
		for (shift = 0; shift + bits <= f->sw_bits; shift++) {
			if (!(taken & mask_of(bits, shift)))
				break;
		}
	} else if (shift + bits <= f->sw_bits && taken & mask_of(bits, shift)) {
		err = -EBUSY;
	}
	if (!err && shift + bits > f->sw_bits)
		err = -ENOSPC;
	if (err && !aside)
		return err;
	*free = (struct field){.name = name};
	if (!err) {
		free->bits = (uint8_t)bits;
		free->shift = (uint8_t)shift;
	}
	*out = *free;
	return 0;
}

void field_release(struct fields *fields, enum field_root root, const char *name)
{
	for (unsigned i = 0; i < FIELD_MAX; i++) {
		struct field *field = &fields->field[root][i];

		if (field->name && !strcmp(field->name, name))
			*field = (struct field){0};
	}
}
