/*
 * Instantiates the policy for one format: STAGE2_DEFINE_OPS(NAME, symbol) in stage2_NAME.c, which
 * includes mmu/format/NAME.h. Every line binds a constant format, from which the compiler makes a
 * copy of the common code without indirect calls.
 */
#ifndef MMU_STAGE2_OPS_H
#define MMU_STAGE2_OPS_H

#include "mmu/stage2_age.h"
#include "mmu/stage2_collapse.h"
#include "mmu/stage2_range.h"
#include "mmu/stage2_restore.h"
#include "mmu/stage2_split.h"
#include "mmu/stage2_usual.h"

#define STAGE2_DEFINE_OPS(fmt, symbol)                                                             \
	/* What is seldom is a function of its own, at the end of the other: so that calls in it   \
	 * cost the usual way no saved registers. */                                               \
	static __attribute__((noinline, cold)) bool fmt##_translate_other(                         \
		const struct pgtable *pt, uint64_t gpa, uint32_t access, struct s2_xlat *out)      \
	{                                                                                          \
		return stage2_translate(&fmt##_format, pt, gpa, access, out,                       \
					STAGE2_SECTION_FIRST);                                     \
	}                                                                                          \
	static bool fmt##_translate(const struct pgtable *pt, uint64_t gpa, uint32_t access,       \
				    struct s2_xlat *out)                                           \
	{                                                                                          \
		if (__builtin_expect(rcu_registered, 1))                                           \
			return stage2_translate(&fmt##_format, pt, gpa, access, out,               \
						STAGE2_SECTION);                                   \
		return fmt##_translate_other(pt, gpa, access, out);                                \
	}                                                                                          \
	static bool fmt##_translate_client(const struct pgtable *pt, uint64_t gpa,                 \
					   uint32_t access, struct s2_xlat *out)                   \
	{                                                                                          \
		return stage2_translate(&fmt##_format, pt, gpa, access, out, STAGE2_CLIENT);       \
	}                                                                                          \
	static __attribute__((noinline)) enum s2_result fmt##_fault_other(                         \
		struct s2_thread *t, uint64_t gpa, uint32_t access, struct s2_xlat *out)           \
	{                                                                                          \
		return stage2_fault(&fmt##_format, t, gpa, access, out);                           \
	}                                                                                          \
	static __attribute__((noinline)) enum s2_result fmt##_fault_none(                          \
		struct s2_thread *t, uint64_t gpa, uint32_t access, struct s2_xlat *out,           \
		const struct slot *slot, void *entry)                                              \
	{                                                                                          \
		return stage2_fault_none(&fmt##_format, t, gpa, access, out, slot, entry);         \
	}                                                                                          \
	static __attribute__((noinline)) enum s2_result fmt##_fault_leaf(                          \
		struct s2_thread *t, uint64_t gpa, uint32_t access, struct s2_xlat *out,           \
		const struct slot *slot, void *entry)                                              \
	{                                                                                          \
		return stage2_fault_leaf(&fmt##_format, t, gpa, access, out, slot, entry);         \
	}                                                                                          \
	static enum s2_result fmt##_fault(struct s2_thread *t, uint64_t gpa, uint32_t access,      \
					  struct s2_xlat *out)                                     \
	{                                                                                          \
		return stage2_fault_page(&fmt##_format, t, gpa, access, out, fmt##_fault_none,     \
					 fmt##_fault_leaf, fmt##_fault_other);                     \
	}                                                                                          \
	static bool fmt##_freeze_range(struct s2_thread *t, uint64_t *start, uint64_t *end,        \
				       uint64_t *tables)                                           \
	{                                                                                          \
		return stage2_freeze(&fmt##_format, t, start, end, tables);                        \
	}                                                                                          \
	static bool fmt##_protect(struct s2_thread *t, uint64_t *start, uint64_t *end, bool track) \
	{                                                                                          \
		return stage2_protect(&fmt##_format, t, start, end, track);                        \
	}                                                                                          \
	static void fmt##_thaw(struct s2_thread *t, uint64_t start, uint64_t end)                  \
	{                                                                                          \
		stage2_thaw(&fmt##_format, t, start, end);                                         \
	}                                                                                          \
	static unsigned fmt##_protect_word(struct s2_thread *t, uint64_t gpa, uint64_t bits)       \
	{                                                                                          \
		return stage2_protect_word(&fmt##_format, t, gpa, bits);                           \
	}                                                                                          \
	static void fmt##_gather(struct s2_thread *t, uint64_t start, uint64_t end)                \
	{                                                                                          \
		stage2_gather(&fmt##_format, t, start, end);                                       \
	}                                                                                          \
	static void fmt##_age(struct s2_thread *t, struct age *age)                                \
	{                                                                                          \
		stage2_age(&fmt##_format, t, age);                                                 \
	}                                                                                          \
	static bool fmt##_restore(struct s2_thread *t, uint64_t gpa, uint32_t access,              \
				  struct walk_entry *w, uint64_t *found)                           \
	{                                                                                          \
		return stage2_restore(&fmt##_format, t, gpa, access, w, found);                    \
	}                                                                                          \
	static int fmt##_split(struct s2_thread *t, uint64_t start, uint64_t end, unsigned level)  \
	{                                                                                          \
		return stage2_split(&fmt##_format, t, start, end, level);                          \
	}                                                                                          \
	static int64_t fmt##_collapse(struct s2_thread *t, uint64_t start, uint64_t end)           \
	{                                                                                          \
		return stage2_collapse(&fmt##_format, t, start, end);                              \
	}                                                                                          \
	const struct stage2_ops symbol = {                                                         \
		.format = &fmt##_format,                                                           \
		.translate = fmt##_translate,                                                      \
		.translate_other = fmt##_translate_other,                                          \
		.translate_client = fmt##_translate_client,                                        \
		.fault = fmt##_fault,                                                              \
		.fault_other = fmt##_fault_other,                                                  \
		.freeze = fmt##_freeze_range,                                                      \
		.protect = fmt##_protect,                                                          \
		.thaw = fmt##_thaw,                                                                \
		.protect_word = fmt##_protect_word,                                                \
		.gather = fmt##_gather,                                                            \
		.age = fmt##_age,                                                                  \
		.restore = fmt##_restore,                                                          \
		.split = fmt##_split,                                                              \
		.collapse = fmt##_collapse,                                                        \
	}

#endif
