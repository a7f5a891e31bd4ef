/* Creation, slots, and the way from the public functions into the specialised ones. */
#include "mmu/second_stage.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mmu/dirty.h"
#include "mmu/internal.h"
#include "mmu/missing_internal.h"
#include "mmu/range.h"
#include "mmu/rcu.h"
#include "mmu/sharing_internal.h"
#include "mmu/stage2_fault.h"

static const struct {
	const char *name;
	const struct stage2_ops *ops;
	uint8_t levels; /* 0: from the input width */
	uint8_t page_shift;
} formats[S2_NR_FORMATS] = {
	[S2_EPT4] = {"ept4", &stage2_ept_ops, 4, 12},
	[S2_EPT5] = {"ept5", &stage2_ept_ops, 5, 12},
	[S2_NPT4] = {"npt4", &stage2_npt_ops, 4, 12},
	[S2_NPT5] = {"npt5", &stage2_npt_ops, 5, 12},
	[S2_ARM64_4K] = {"arm64-4k", &stage2_arm4k_ops, 0, 12},
	[S2_ARM64_16K] = {"arm64-16k", &stage2_arm16k_ops, 0, 14},
	[S2_ARM64_64K] = {"arm64-64k", &stage2_arm64k_ops, 0, 16},
	[S2_SV32X4] = {"sv32x4", &stage2_riscv32_ops, 2, 12},
	[S2_SV39X4] = {"sv39x4", &stage2_riscv64_ops, 3, 12},
	[S2_SV48X4] = {"sv48x4", &stage2_riscv64_ops, 4, 12},
	[S2_SV57X4] = {"sv57x4", &stage2_riscv64_ops, 5, 12},
};

/* What *why points at where a rule names what the caller brought. */
static _Thread_local char rule_text[160];

const char *s2_format_name(enum s2_format format)
{
	return (unsigned)format < S2_NR_FORMATS ? formats[format].name : "unknown";
}

const char *s2_name(const struct s2 *s2)
{
	return formats[s2->which].name;
}

const char *s2_options_refused(enum s2_format format, unsigned options)
{
	static const char *const names[] = {"S2_OPT_EXEC_ONLY", "S2_OPT_VMID16", "S2_OPT_PBMT",
					    "S2_OPT_NAPOT", "S2_OPT_NX_HUGE"};
	unsigned other = options & ~(unsigned)formats[format].ops->format->options;
	unsigned bit = other ? (unsigned)__builtin_ctz(other) : 0;

	if (!other)
		return NULL;
	if (bit < sizeof(names) / sizeof(*names))
		snprintf(rule_text, sizeof(rule_text), "%s does not have the option %s",
			 formats[format].name, names[bit]);
	else
		snprintf(rule_text, sizeof(rule_text), "%s does not have the option %#x: unknown",
			 formats[format].name, 1u << bit);
	return rule_text;
}

const char *s2_root_refused(int err, const struct pgtable *pt)
{
	if (err == -ENOMEM)
		return "no memory";
	if (err == -ERANGE)
		snprintf(rule_text, sizeof(rule_text),
			 "a table page at 0x%" PRIx64
			 " lies above hpa_bits %u: allocate table pages "
			 "below it (env.alloc)",
			 pt->root_pa, pt->geo.output_bits);
	else
		snprintf(rule_text, sizeof(rule_text),
			 "a table page at 0x%" PRIx64
			 " is not aligned to its size, %zu (env.alloc)",
			 pt->root_pa, geometry_table_bytes(&pt->geo, pt->geo.levels));
	return rule_text;
}

static void say_why(const char **why, const char *rule)
{
	if (why)
		*why = rule;
}

int s2_create(struct s2 **out, const struct s2_config *config, const char **why)
{
	const struct s2_env *env = config->env ? config->env : &s2_env_default;
	const struct role role = {.format = (uint8_t)config->format, .kind = ROOT_CANONICAL};
	const unsigned hardware = config->options & ~(unsigned)S2_OPT_NX_HUGE;
	const char *rule = "unknown format";
	const struct stage2_ops *ops;
	struct format_config fc;
	struct geometry geo;
	struct s2 *s2;
	int err = -EINVAL;

	if ((unsigned)config->format < S2_NR_FORMATS)
		rule = s2_options_refused(config->format, hardware);
	if (!rule) {
		ops = formats[config->format].ops;
		fc = (struct format_config){.input_bits = config->input_bits,
					    .output_bits = config->hpa_bits,
					    .levels = formats[config->format].levels,
					    .page_shift = formats[config->format].page_shift,
					    .options = hardware | (config->use_ad ? FORMAT_AD : 0)};
		err = ops->format->geometry(&geo, &fc, &rule);
		if (!err && config->bbm_level > (ops->format->break_before_make ? 2 : 0)) {
			rule = "break-before-make has levels 0 to 2, on arm64";
			err = -EINVAL;
		}
	}
	if (err) {
		say_why(why, rule);
		return err;
	}
	say_why(why, "no memory");
	s2 = aligned_alloc(_Alignof(struct s2), sizeof(*s2));
	if (!s2)
		return -ENOMEM;
	memset(s2, 0, sizeof(*s2));
	err = rcu_init() ? -ENOMEM : root_init(&s2->root, &role, &geo, env);
	if (err) {
		say_why(why, s2_root_refused(err, &s2->pt));
		free(s2);
		return err;
	}
	s2->ops = ops;
	s2->use_ad = config->use_ad;
	s2->which = (uint8_t)config->format;
	s2->pt.need = format_hides(ops->format, &geo) ? 0 : ops->format->accessed;
	s2->nx_huge = config->options & S2_OPT_NX_HUGE;
	s2->bbm_level = (uint8_t)config->bbm_level;
	s2_make_fresh(s2);
	brlock_init(&s2->lock);
	tlb_init(&s2->tlb);
	pthread_mutex_init(&s2->slots_mutex, NULL);
	pthread_mutex_init(&s2->sharing_mutex, NULL);
	pthread_mutex_init(&s2->dirty_mutex, NULL);
	nx_init(&s2->nx);
	pthread_mutex_init(&s2->threads_mutex, NULL);
	*out = s2;
	return 0;
}

void s2_destroy(struct s2 *s2)
{
	struct walk_count found = {0};

	if (!s2)
		return;
	root_free(&s2->root, s2->ops->format, &found);
	missing_destroy(s2);
	slots_free(&s2->slots, s2->pt.env);
	brlock_destroy(&s2->lock);
	tlb_destroy(&s2->tlb);
	pthread_mutex_destroy(&s2->slots_mutex);
	pthread_mutex_destroy(&s2->sharing_mutex);
	pthread_mutex_destroy(&s2->dirty_mutex);
	nx_destroy(&s2->nx, s2->pt.env);
	pthread_mutex_destroy(&s2->threads_mutex);
	free(s2);
}

void s2_make_fresh(struct s2 *s2)
{
	const struct format *f = s2->ops->format;

	for (unsigned i = 0; i < 4; i++) {
		const struct s2_slot slot = {.flags = i & S2_SLOT_LOG};
		uint32_t access = i & 1 ? S2_W : S2_R;
		uint32_t grant = stage2_grant(&slot, access, stage2_dbit(f, s2));
		uint64_t leaf = format_make_leaf(f, &s2->pt.geo, 0, 1, grant);

		leaf = stage2_set_ad(f, s2, leaf, 0, access);
		s2->fresh[i] = (struct s2_xlat){
			.perm = pgtable_perm(f, &s2->pt, leaf), .level = 1, .entry = leaf};
	}
}

static bool slot_valid(const struct s2 *s2, const struct s2_slot *s)
{
	const struct geometry *g = &s2->pt.geo;
	uint64_t mask = geometry_size(g, 1) - 1;

	if (!s->size || (s->gpa | s->size | s->hpa) & mask)
		return false;
	if (s->size - 1 > geometry_max(g) || s->gpa > geometry_max(g) - (s->size - 1))
		return false;
	if (s->hpa >> g->output_bits || s->size - 1 > (UINT64_C(1) << g->output_bits) - 1 - s->hpa)
		return false;
	/* Any power of two of a page or more: leaves are as large as fits below it. */
	return s->page_size > mask && !(s->page_size & (s->page_size - 1)) &&
	       !(s->flags & ~(uint32_t)(S2_SLOT_READONLY | S2_SLOT_LOG));
}

static uint8_t slot_top(const struct s2 *s2, const struct s2_slot *s)
{
	const struct geometry *g = &s2->pt.geo;
	uint8_t level = g->levels;

	while (level > 1 &&
	       (!geometry_has_leaf(g, level) || geometry_size(g, level) > s->page_size ||
		(s->gpa ^ s->hpa) & (geometry_size(g, level) - 1)))
		level--;
	return level;
}

int s2_slot_add(struct s2_thread *t, const struct s2_slot *s)
{
	struct s2 *s2 = t->s2;
	const struct s2_env *env = s2->pt.env;
	struct slot slot = {.s = *s, .top = slot_top(s2, s)};
	struct slots copy, old;
	int err = 0;

	if (!slot_valid(s2, s))
		return -EINVAL;
	pthread_mutex_lock(&s2->slots_mutex);
	if (s2->logging)
		slot.s.flags |= S2_SLOT_LOG | (s2->ring_entries ? SLOT_RINGS : 0);
	if (slots_overlap(&s2->slots, s->gpa, s->size))
		err = -EEXIST;
	if (!err && slot.s.flags & S2_SLOT_LOG)
		err = dirty_alloc(&slot, env);
	if (!err)
		err = missing_slot_add(s2, &slot);
	if (!err)
		err = sharing_slot_add(s2, &slot);
	if (!err)
		err = slots_grow(&s2->slots, env, &copy);
	if (!err) {
		slots_insert(&copy, &slot);
		brlock_write_lock(&s2->lock);
		old = s2->slots;
		s2->slots = copy;
		brlock_write_unlock(&s2->lock);
		old.count = 0; /* bitmaps live on in the copy */
		slots_free(&old, env);
	} else {
		dirty_free(&slot, env);
		states_free(&slot.missing, env);
		states_free(&slot.sharing, env);
	}
	pthread_mutex_unlock(&s2->slots_mutex);
	return err;
}

/* With slots_mutex held. */
static struct slot *slot_at(struct s2 *s2, uint64_t gpa)
{
	size_t hint = 0;
	struct slot *slot = slots_find(&s2->slots, gpa, &hint);

	return slot && slot->s.gpa == gpa ? slot : NULL;
}

int s2_slot_remove(struct s2_thread *t, uint64_t gpa)
{
	struct s2 *s2 = t->s2;
	struct slot *slot, gone;

	pthread_mutex_lock(&s2->slots_mutex);
	slot = slot_at(s2, gpa);
	if (!slot || slot->s.flags & SLOT_DYING) {
		pthread_mutex_unlock(&s2->slots_mutex);
		return -ENOENT;
	}
	pthread_mutex_lock(&s2->sharing_mutex);
	if (!sharing_slot_idle(s2, slot)) {
		pthread_mutex_unlock(&s2->sharing_mutex);
		pthread_mutex_unlock(&s2->slots_mutex);
		return -EBUSY;
	}
	brlock_write_lock(&s2->lock);
	slot->s.flags |= SLOT_DYING;
	brlock_write_unlock(&s2->lock);
	pthread_mutex_unlock(&s2->sharing_mutex);
	gone = *slot;
	pthread_mutex_unlock(&s2->slots_mutex);

	missing_slot_dying(t, &gone);
	/* No fault maps it any more. The mutex is not held while clients acknowledge: one of them
	 * may be waiting for it. */
	range_unmap(t, gone.s.gpa, gone.s.gpa + gone.s.size);
	nx_forget(&s2->nx, gone.s.gpa, gone.s.gpa + (gone.s.size - 1));

	pthread_mutex_lock(&s2->slots_mutex);
	slot = slot_at(s2, gpa);
	brlock_write_lock(&s2->lock);
	gone = *slot;
	slots_erase(&s2->slots, slot);
	brlock_write_unlock(&s2->lock);
	dirty_free(&gone, s2->pt.env);
	missing_slot_gone(s2, &gone);
	states_free(&gone.sharing, s2->pt.env);
	pthread_mutex_unlock(&s2->slots_mutex);
	return 0;
}

bool s2_translate(struct s2_thread *t, uint64_t gpa, uint32_t access, struct s2_xlat *out)
{
	return t->translate(&t->s2->pt, gpa, access, out);
}

uint64_t s2_level_size(const struct s2 *s2, uint32_t level)
{
	return geometry_size(&s2->pt.geo, level);
}

enum s2_result s2_fault(struct s2_thread *t, uint64_t gpa, uint32_t access, struct s2_xlat *out)
{
	return atomic_load_explicit(&t->fault, memory_order_relaxed)(t, gpa, access, out);
}

void s2_tlb_client_add(struct s2_thread *t, struct s2_tlb_client *client)
{
	tlb_add(&t->s2->tlb, client);
	if (client->thread && t->s2->pt.identity)
		client->thread->translate = t->ops->translate_client;
}

void s2_tlb_client_remove(struct s2_thread *t, struct s2_tlb_client *client)
{
	if (client->thread)
		client->thread->translate = client->thread->translate_shadow;
	tlb_remove(&t->s2->tlb, client);
}

int s2_registers(const struct s2 *s2, unsigned vmid, struct s2_registers *out)
{
	struct format_registers regs;
	int err = s2->ops->format->registers(&s2->pt.geo, s2->pt.root_pa, vmid, &regs);

	if (!err)
		*out = (struct s2_registers){.root = regs.root, .control = regs.control};
	return err;
}

uint64_t s2_root(const struct s2 *s2)
{
	struct s2_registers regs = {0};

	s2_registers(s2, 0, &regs);
	return regs.root;
}
