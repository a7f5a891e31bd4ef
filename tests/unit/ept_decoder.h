/*
 * An EPT reader of its own, written from the tables of SDM vol. 3C section 29.3.2 and 29.3.3 and
 * sharing no line with mmu/: what hardware would make of the tables in memory, misconfigurations
 * included. Reads tables through a function that turns a physical address into a pointer.
 */
#ifndef EPT_DECODER_H
#define EPT_DECODER_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum ept_outcome { EPT_TRANSLATED, EPT_VIOLATION, EPT_MISCONFIG };

struct ept_result {
	enum ept_outcome outcome;
	uint64_t address; /* host-physical, of the byte */
	uint64_t size;	  /* bytes the entry covers (the one that ended the walk) */
	uint64_t entry;	  /* that entry */
	bool r, w, x;	  /* and-ed over all levels */
	unsigned memory_type;
	bool ignore_pat, accessed, dirty;
	const char *why; /* of a misconfiguration */
};

struct ept_memory {
	const void *(*table)(void *opaque, uint64_t pa);
	void *opaque;
	unsigned maxphyaddr;
};

static inline bool ept_reserved_set(uint64_t entry, unsigned low, unsigned high)
{
	if (high < low)
		return false;
	return (entry >> low) & ((2ull << (high - low)) - 1);
}

/* Translates a guest-physical address as the EPTP says. */
static inline struct ept_result ept_decode(const struct ept_memory *mem, uint64_t eptp,
					   uint64_t gpa)
{
	struct ept_result res = {.r = true, .w = true, .x = true};
	int walk_length = (int)((eptp >> 3) & 7) + 1;
	uint64_t pa = eptp & 0x000ffffffffff000ull;

	res.outcome = EPT_MISCONFIG;
	if (((eptp & 7) != 6 && (eptp & 7) != 0) || (walk_length != 4 && walk_length != 5) ||
	    (eptp & 0xf00) || ept_reserved_set(eptp, mem->maxphyaddr, 63)) {
		res.why = "EPTP: memory type, walk length or reserved bits";
		return res;
	}
	for (int level = walk_length; level >= 1; level--) {
		int low_bit = 12 + 9 * (level - 1);
		uint64_t entry;
		bool leaf;

		memcpy(&entry,
		       (const char *)mem->table(mem->opaque, pa) + 8 * ((gpa >> low_bit) % 512), 8);
		res.entry = entry;
		res.size = 1ull << low_bit;
		/* 29.3.2: not present if bits 2:0 are all 0 */
		if ((entry & 7) == 0) {
			res.outcome = EPT_VIOLATION;
			return res;
		}
		/* 29.3.3.1 */
		res.why = "writable but not readable";
		if ((entry & 2) && !(entry & 1))
			return res;
		res.why = "address bits beyond the physical address width";
		if (mem->maxphyaddr < 52 && ept_reserved_set(entry, mem->maxphyaddr, 51))
			return res;
		leaf = level == 1 || (level <= 3 && (entry & 0x80));
		if (leaf) {
			res.memory_type = (entry >> 3) & 7;
			res.why = "reserved memory type";
			if (res.memory_type == 2 || res.memory_type == 3 || res.memory_type == 7)
				return res;
			res.why = "reserved bits 20:12 of a 2-MByte page";
			if (level == 2 && ept_reserved_set(entry, 12, 20))
				return res;
			res.why = "reserved bits 29:12 of a 1-GByte page";
			if (level == 3 && ept_reserved_set(entry, 12, 29))
				return res;
		} else {
			res.why = "reserved bits 7:3 of an entry that references a table";
			if (ept_reserved_set(entry, 3, 7))
				return res;
		}
		res.r &= (entry & 1) != 0;
		res.w &= (entry & 2) != 0;
		res.x &= (entry & 4) != 0;
		pa = entry & 0x000ffffffffff000ull;
		if (leaf) {
			res.ignore_pat = (entry & 0x40) != 0;
			res.accessed = (entry & 0x100) != 0;
			res.dirty = (entry & 0x200) != 0;
			res.address = pa + (gpa & (res.size - 1));
			res.outcome = EPT_TRANSLATED;
			res.why = NULL;
			return res;
		}
	}
	res.why = "no leaf at the last level";
	return res;
}

/* Everything that a root leads to. */
struct ept_census {
	uint64_t leaves[6], tables; /* the root included */
	uint64_t marks;		    /* entries that are not present and not zero */
	uint64_t writable;	    /* 4-KByte units that grant W */
};

static inline void ept_census(const struct ept_memory *mem, uint64_t pa, int level,
			      struct ept_census *census)
{
	const char *entries = mem->table(mem->opaque, pa);

	census->tables++;
	for (int i = 0; i < 512; i++) {
		uint64_t entry;

		memcpy(&entry, entries + 8 * i, 8);
		if (!(entry & 7)) {
			census->marks += entry != 0;
		} else if (level == 1 || (level <= 3 && (entry & 0x80))) {
			census->leaves[level]++;
			if (entry & 2)
				census->writable += 1ull << (9 * (level - 1));
		} else {
			ept_census(mem, entry & 0x000ffffffffff000ull, level - 1, census);
		}
	}
}

#endif
