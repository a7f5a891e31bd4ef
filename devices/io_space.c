#include "devices/device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Index of the first region that ends after addr (count: none). */
static unsigned io_space_lower(const struct io_space *space, uint64_t addr)
{
	unsigned lo = 0, hi = space->count;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;
		const struct io_region *r = &space->regions[mid];

		if (addr > r->base && addr - r->base >= r->size)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

int io_space_add(struct io_space *space, const struct io_region *region)
{
	unsigned at = io_space_lower(space, region->base);
	struct io_region *regions;

	if (!region->size || region->size - 1 > UINT64_MAX - region->base)
		return -EINVAL;
	if (at < space->count && space->regions[at].base <= region->base + (region->size - 1))
		return -EEXIST;
	if (space->count == space->cap) {
		unsigned cap = space->cap ? space->cap * 2 : 16;

		regions = realloc(space->regions, cap * sizeof(*regions));
		if (!regions)
			return -ENOMEM;
		space->regions = regions;
		space->cap = cap;
	}
	memmove(&space->regions[at + 1], &space->regions[at],
		(space->count - at) * sizeof(*space->regions));
	space->regions[at] = *region;
	space->count++;
	return 0;
}

void io_space_remove(struct io_space *space, uint64_t base)
{
	unsigned at = io_space_lower(space, base);

	if (at == space->count || space->regions[at].base != base)
		return;
	space->count--;
	memmove(&space->regions[at], &space->regions[at + 1],
		(space->count - at) * sizeof(*space->regions));
}

void io_space_free(struct io_space *space)
{
	free(space->regions);
	*space = (struct io_space){0};
}

enum io_hit {
	IO_NOTHING,   /* no region has any of these bytes */
	IO_INSIDE,    /* one region has them all */
	IO_STRADDLES, /* ask byte by byte */
};

static enum io_hit io_space_find(const struct io_space *space, uint64_t addr, unsigned size,
				 const struct io_region **region)
{
	unsigned at = io_space_lower(space, addr);
	const struct io_region *r = &space->regions[at];

	*region = r;
	if (at == space->count)
		return IO_NOTHING;
	if (r->base > addr)
		return r->base - addr < size ? IO_STRADDLES : IO_NOTHING;
	return size <= r->size - (addr - r->base) ? IO_INSIDE : IO_STRADDLES;
}

static uint64_t size_mask(unsigned size)
{
	return size >= 8 ? UINT64_MAX : (1ULL << (8 * size)) - 1;
}

uint64_t io_space_read(const struct io_space *space, unsigned vcpu, uint64_t addr, unsigned size)
{
	const struct io_region *r;
	uint64_t value = 0;

	switch (io_space_find(space, addr, size, &r)) {
	case IO_INSIDE:
		return r->ops->read(r->opaque, vcpu, addr - r->base, size) & size_mask(size);
	case IO_STRADDLES:
		/* A straddling access has at least two bytes: the recursion ends with single ones.
		 */
		for (unsigned i = 0; i < size; i++)
			value |= io_space_read(space, vcpu, addr + i, 1) << (8 * i);
		return value;
	case IO_NOTHING: break;
	}
	return size_mask(size);
}

void io_space_write(const struct io_space *space, unsigned vcpu, uint64_t addr, unsigned size,
		    uint64_t value)
{
	const struct io_region *r;

	switch (io_space_find(space, addr, size, &r)) {
	case IO_INSIDE:
		r->ops->write(r->opaque, vcpu, addr - r->base, size, value & size_mask(size));
		break;
	case IO_STRADDLES:
		for (unsigned i = 0; i < size; i++)
			io_space_write(space, vcpu, addr + i, 1, value >> (8 * i) & 0xff);
		break;
	case IO_NOTHING: break;
	}
}
