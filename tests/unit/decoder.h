/*
 * Readers of second-stage tables that share no line with mmu/: each is written from its manual
 * (ept_decoder.h, npt_decoder.h, arm_decoder.h, riscv_decoder.h) and says what hardware would make
 * of registers and entries in memory, misconfigurations included. Here: the walk and the census.
 */
#ifndef DECODER_H
#define DECODER_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* IDLE: a leaf whose first use faults: A is clear and hardware does not set it, or, in EPT,
 * software keeps its permissions in an entry that is not present. */
enum dec_kind { DEC_NONE, DEC_TABLE, DEC_LEAF, DEC_BAD, DEC_IDLE };

struct dec_entry {
	enum dec_kind kind;
	const char *why; /* of DEC_BAD */
	uint64_t pa;	 /* of the table or of what is mapped */
	bool r, w, x;
	bool accessed, dirty;
	char memory;	/* 'W' write-back, 'N' not cached, 'D' device */
	unsigned napot; /* log2 of the entries that map one piece together */
};

/* What registers say. Levels are counted from the leaves. */
struct dec_shape {
	uint64_t root;
	unsigned levels, page_shift, index_bits, root_bits, entry_bytes, input_bits;
	bool wide, exec_only, pbmt, napot, hardware_ad; /* formats' own */
	unsigned pa_bits;
	const char *why; /* impossible */
};

struct decoder {
	const char *name;
	/* `shape` comes with pa_bits and what the hardware can do; for nested paging with levels.
	 */
	void (*open)(struct dec_shape *shape, uint64_t root, uint64_t control);
	void (*entry)(const struct dec_shape *shape, unsigned level, uint64_t value,
		      struct dec_entry *out);
};

struct dec_memory {
	const struct decoder *decoder;
	struct dec_shape shape;
	const void *(*table)(void *opaque, uint64_t pa);
	void *opaque;
};

enum dec_outcome { DEC_TRANSLATED, DEC_FAULT, DEC_MISCONFIG };

struct dec_result {
	enum dec_outcome outcome;
	const char *why;  /* of DEC_MISCONFIG */
	uint64_t address; /* host-physical, of the byte; also behind an idle leaf, a DEC_FAULT */
	uint64_t size;	  /* bytes the entry covers (the one that ended the walk) */
	uint64_t entry;	  /* that entry */
	unsigned level;
	bool r, w, x; /* and-ed over all levels */
	struct dec_entry leaf;
};

/* Bits high:low of a value. */
static inline uint64_t dec_bits(uint64_t value, unsigned high, unsigned low)
{
	return high < low ? 0 : value >> low & ((2ull << (high - low)) - 1);
}

static inline uint64_t dec_load(const struct dec_shape *s, const void *table, uint64_t index)
{
	uint64_t wide;
	uint32_t narrow;

	if (s->entry_bytes == 4) {
		memcpy(&narrow, (const char *)table + 4 * index, 4);
		return narrow;
	}
	memcpy(&wide, (const char *)table + 8 * index, 8);
	return wide;
}

static inline struct dec_result dec_walk(const struct dec_memory *mem, uint64_t gpa)
{
	struct dec_result res = {.outcome = DEC_MISCONFIG, .r = true, .w = true, .x = true};
	const struct dec_shape *s = &mem->shape;
	uint64_t pa = s->root;

	res.why = s->why;
	if (s->why)
		return res;
	if (s->input_bits < 64 && gpa >> s->input_bits) {
		res.outcome = DEC_FAULT;
		return res;
	}
	for (res.level = s->levels; res.level; res.level--) {
		unsigned bits = res.level == s->levels ? s->root_bits : s->index_bits;
		unsigned low = s->page_shift + s->index_bits * (res.level - 1);
		struct dec_entry e = {.memory = 'W'};

		res.entry =
			dec_load(s, mem->table(mem->opaque, pa), gpa >> low & ((1ull << bits) - 1));
		res.size = 1ull << low;
		mem->decoder->entry(s, res.level, res.entry, &e);
		res.leaf = e;
		if (e.kind == DEC_NONE) {
			res.outcome = DEC_FAULT;
			return res;
		}
		res.why = e.why;
		if (e.kind == DEC_BAD)
			return res;
		res.r &= e.r;
		res.w &= e.w;
		res.x &= e.x;
		pa = e.pa;
		if (e.kind == DEC_LEAF || e.kind == DEC_IDLE) {
			res.size <<= e.napot;
			res.address = pa + (gpa & (res.size - 1));
			res.outcome = e.kind == DEC_LEAF ? DEC_TRANSLATED : DEC_FAULT;
			return res;
		}
	}
	res.why = "no leaf at the last level";
	return res;
}

/* Everything that a root leads to. */
struct dec_census {
	uint64_t leaves[6], tables; /* the root included */
	uint64_t marks;		    /* entries that are not present and not zero */
	uint64_t writable;	    /* smallest pages that grant W */
	uint64_t bad;
};

static inline void dec_census_below(const struct dec_memory *mem, uint64_t pa, unsigned level,
				    struct dec_census *census)
{
	const struct dec_shape *s = &mem->shape;
	const void *table = mem->table(mem->opaque, pa);
	unsigned bits = level == s->levels ? s->root_bits : s->index_bits;

	census->tables++;
	for (uint64_t i = 0; i < 1ull << bits; i++) {
		uint64_t value = dec_load(s, table, i);
		struct dec_entry e = {0};

		if (!value)
			continue;
		mem->decoder->entry(s, level, value, &e);
		if (e.kind == DEC_NONE)
			census->marks++;
		else if (e.kind == DEC_BAD || (e.kind == DEC_TABLE && level == 1))
			census->bad++;
		else if (e.kind == DEC_TABLE)
			dec_census_below(mem, e.pa, level - 1, census);
		if (e.kind != DEC_LEAF && e.kind != DEC_IDLE)
			continue;
		census->leaves[level]++;
		if (e.w)
			census->writable += 1ull << (s->index_bits * (level - 1));
	}
}

static inline struct dec_census dec_census(const struct dec_memory *mem)
{
	struct dec_census census = {0};

	if (mem->shape.why)
		census.bad++;
	else
		dec_census_below(mem, mem->shape.root, mem->shape.levels, &census);
	return census;
}

#endif
