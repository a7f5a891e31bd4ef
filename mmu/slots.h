/*
 * The slots of one instance: a sorted array, stable under the read side of the instance's lock,
 * replaced under the write side. Memory comes from the environment.
 */
#ifndef MMU_SLOTS_H
#define MMU_SLOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mmu/second_stage.h"
#include "mmu/states.h"

/* With enum s2_slot_flags: pages may be missing (missing_internal.h); they have owners
 * (sharing_internal.h); it is being removed: faults find no memory, its range stays taken; dirty
 * pages go into rings. With one of them, or read-only, no fault is of the usual kind. */
#define SLOT_MISSING (UINT32_C(1) << 31)
#define SLOT_SHARING (UINT32_C(1) << 30)
#define SLOT_DYING   (UINT32_C(1) << 29)
#define SLOT_RINGS   (UINT32_C(1) << 28)
#define SLOT_STATES  (SLOT_MISSING | SLOT_SHARING)
#define SLOT_UNUSUAL (SLOT_STATES | SLOT_DYING | SLOT_RINGS | S2_SLOT_READONLY)

struct slot {
	_Alignas(64) struct s2_slot s;
	uint8_t top; /* the largest level of its leaves: page_size, congruence */
	/* Dirty bits while S2_SLOT_LOG, else NULL, and a bit per word of them; see dirty.h. */
	uint64_t *bitmap, *summary;
	size_t bitmap_bytes, summary_bytes;
	/* These outlive the array of slots, as bitmaps do. */
	struct states missing; /* while SLOT_MISSING: of enum s2_page_state */
	struct states sharing; /* with SLOT_SHARING: of enum s2_share_state */
};

struct slots {
	struct slot *slot;
	size_t count, room;
};

/* The slot of this index (any value), if it holds gpa; else NULL. */
static inline struct slot *slots_hinted(const struct slots *slots, uint64_t gpa, size_t hint)
{
	struct slot *slot = &slots->slot[hint];

	return hint < slots->count && gpa - slot->s.gpa < slot->s.size ? slot : NULL;
}

/* The slot that holds gpa, or NULL. *hint: index of the last one found, any value at first. */
static inline struct slot *slots_find(const struct slots *slots, uint64_t gpa, size_t *hint)
{
	struct slot *hinted = slots_hinted(slots, gpa, *hint);
	size_t low = 0, high = slots->count;

	if (hinted)
		return hinted;
	while (low < high) {
		size_t mid = (low + high) / 2;

		if (gpa < slots->slot[mid].s.gpa) {
			high = mid;
		} else if (gpa - slots->slot[mid].s.gpa >= slots->slot[mid].s.size) {
			low = mid + 1;
		} else {
			*hint = mid;
			return &slots->slot[mid];
		}
	}
	return NULL;
}

/* Index of the first slot that ends after gpa. */
size_t slots_first(const struct slots *slots, uint64_t gpa);
bool slots_overlap(const struct slots *slots, uint64_t gpa, uint64_t size);

/* A copy of `slots` with room for one more, or -ENOMEM. */
int slots_grow(const struct slots *slots, const struct s2_env *env, struct slots *copy);
void slots_insert(struct slots *slots, const struct slot *slot);
void slots_erase(struct slots *slots, struct slot *slot);
void slots_free(struct slots *slots, const struct s2_env *env);

#endif
