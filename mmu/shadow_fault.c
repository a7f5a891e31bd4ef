/* Nested faults: the guest's stage and the instance's, composed. */
#include "mmu/rcu.h"
#include "mmu/shadow_internal.h"

struct composed {
	uint64_t gpa, hpa; /* of the byte */
	unsigned shift;	   /* log2 of what the smaller of the two leaves maps */
	unsigned guest_shift, guest_level;
	uint32_t perm;
};

/* The instance's translation, faulted in if need be. FIXED, or why there is none. */
static enum s2_result own_xlat(struct s2_thread *t, uint64_t gpa, uint32_t access,
			       struct s2_xlat *out)
{
	enum s2_result r = S2_FIXED;

	if (!s2_translate(t, gpa, access, out))
		r = s2_fault(t, gpa, access, out);
	return r == S2_SPURIOUS ? S2_FIXED : r;
}

struct reader {
	struct s2_thread *t;
	const struct s2_guest_memory *memory;
};

static int no_xlat(enum s2_result r)
{
	return r == S2_EMULATE || r == S2_INVALID ? -1 : (int)r;
}

static int reader_load(void *opaque, uint64_t gpa, unsigned bytes, uint64_t *value)
{
	struct reader *r = opaque;
	struct s2_xlat x;
	enum s2_result result = own_xlat(r->t, gpa, S2_R, &x);

	if (result != S2_FIXED)
		return no_xlat(result);
	*value = r->memory->load(r->memory->opaque, x.hpa, bytes);
	return 0;
}

static int reader_cas(void *opaque, uint64_t gpa, unsigned bytes, uint64_t old, uint64_t value)
{
	struct reader *r = opaque;
	struct s2_xlat x;
	enum s2_result result = own_xlat(r->t, gpa, S2_R | S2_W, &x);

	if (result != S2_FIXED)
		return no_xlat(result);
	if (!r->memory->cas(r->memory->opaque, x.hpa, bytes, old, value))
		return S2_RETRY;
	s2_dirty_mark(r->t, gpa, bytes);
	return 0;
}

/* With no lock held: reads the guest's tables and faults in what is missing of the instance's. */
static enum s2_result compose(struct s2_thread *t, struct s2_context *ctx, uint64_t ngpa,
			      uint32_t access, struct composed *m, struct s2_syndrome *why)
{
	struct reader r = {.t = t, .memory = &ctx->set->config.memory};
	const struct guest_stage2_reader reader = {
		.opaque = &r, .load = reader_load, .cas = reader_cas};
	const struct geometry *g = &t->s2->pt.geo;
	struct guest_leaf leaf;
	struct s2_xlat x;
	enum s2_result result;
	int end = guest_stage2_walk(&ctx->guest, &reader, ngpa, access, &leaf);

	*why = (struct s2_syndrome){.kind = leaf.fault,
				    .level = leaf.level,
				    .access = access,
				    .ngpa = ngpa,
				    .gpa = leaf.gpa,
				    .perm = leaf.granted};
	if (end)
		return end > 0 ? (enum s2_result)end : S2_RETRY;
	if (leaf.fault)
		return S2_FORWARD;
	if (leaf.gpa > geometry_max(g)) { /* with the stage off; else it was looked at */
		why->kind = S2_FAULT_SIZE;
		return S2_FORWARD;
	}
	result = own_xlat(t, leaf.gpa, access, &x);
	if (result != S2_FIXED)
		return result;
	/* Being split since before there were shadows. */
	if (x.level > 1 && x.entry & t->ops->format->not_cached)
		return S2_RETRY;
	*m = (struct composed){.gpa = leaf.gpa,
			       .hpa = x.hpa,
			       .shift = geometry_shift(g, x.level),
			       .guest_shift = leaf.shift,
			       .guest_level = leaf.level,
			       .perm = leaf.perm & x.perm};
	if (m->shift > leaf.shift)
		m->shift = leaf.shift;
	return S2_FIXED;
}

enum build { BUILT, BUILD_LOST, BUILD_NOMEM, BUILD_FULL, BUILD_CONFLICT };

/* There is a leaf: the same with more permissions, if it is of the same origin. */
static enum build build_over(struct s2_thread *t, struct s2_context *ctx,
			     const struct shadow_node *node, const struct composed *m,
			     struct walk_entry *w)
{
	const struct format *f = t->ops->format;
	const struct geometry *g = &ctx->root.pt.geo;
	uint64_t value;

	if (geometry_shift(g, w->level) != node->shift ||
	    format_addr(f, g, w->value) != (m->hpa & ~((UINT64_C(1) << node->shift) - 1)) ||
	    !shadow_map_find(&ctx->set->map, node, SHADOW_BUDGET))
		return BUILD_CONFLICT;
	value = format_set_perm(f, g, w->value, f->perm(w->value) | m->perm);
	return value && walk_replace(f, &ctx->root.pt, w, value) ? BUILT : BUILD_LOST;
}

/* Nothing is there yet. */
static enum build build_new(struct s2_thread *t, struct s2_context *ctx,
			    const struct shadow_node *like, const struct composed *m,
			    unsigned level, struct walk_entry *w)
{
	struct s2_shadows *set = ctx->set;
	const struct format *f = t->ops->format;
	const struct geometry *g = &ctx->root.pt.geo;
	unsigned tables = w->level - level;
	uint64_t mask = (UINT64_C(1) << like->shift) - 1, leaf;
	struct shadow_node *node;
	uint32_t index;
	int err;

	leaf = format_make_leaf(f, g, m->hpa & ~mask, level, m->perm);
	if (!leaf)
		return BUILD_LOST; /* cannot be: s2_shadows_create has compared the formats */
	leaf = format_set_ad(f, leaf, FORMAT_A | FORMAT_D);
	leaf = field_put(f, &set->level_field, leaf, m->guest_level);
	if (shadow_tables(ctx, tables) > set->max_tables) {
		shadow_tables(ctx, -(uint64_t)tables);
		return BUILD_FULL;
	}
	index = shadow_map_take(&set->map);
	err = index ? walk_install(f, &ctx->root.pt, &t->pool, w, like->ngpa, level, leaf, 0)
		    : -ENOSPC;
	if (err) {
		shadow_tables(ctx, -(uint64_t)tables);
		if (index)
			shadow_map_return(&set->map, index);
		return err == -ENOSPC ? BUILD_FULL : err == -ENOMEM ? BUILD_NOMEM : BUILD_LOST;
	}
	node = &set->map.node[index];
	node->gpa = like->gpa;
	node->ngpa = like->ngpa;
	node->context = like->context;
	node->shift = like->shift;
	node->guest_shift = like->guest_shift;
	shadow_map_link(&set->map, index);
	*w = (struct walk_entry){.value = leaf, .level = level, .kind = ENTRY_LEAF};
	return BUILT;
}

/* Under the read side of the lock, in a read section, and nothing has been invalidated since before
 * m was made: nor will it be until the lock is left. */
static enum build build(struct s2_thread *t, struct s2_context *ctx, uint64_t ngpa,
			const struct composed *m, struct walk_entry *w)
{
	const struct geometry *g = &ctx->root.pt.geo;
	unsigned level = g->levels;
	struct shadow_node like;
	uint64_t mask;

	*w = walk_lookup(t->ops->format, &ctx->root.pt, ngpa);
	while (level > 1 && (!geometry_has_leaf(g, level) || geometry_shift(g, level) > m->shift))
		level--;
	if (w->kind != ENTRY_LEAF && level > w->level)
		level = w->level; /* a table of smaller leaves is there */
	mask = geometry_size(g, level) - 1;
	like = (struct shadow_node){.gpa = m->gpa & ~mask,
				    .ngpa = ngpa & ~mask,
				    .context = ctx->index,
				    .shift = (uint8_t)geometry_shift(g, level),
				    .guest_shift = (uint8_t)m->guest_shift};
	if (w->kind == ENTRY_LEAF)
		return build_over(t, ctx, &like, m, w);
	return build_new(t, ctx, &like, m, level, w);
}

static enum s2_result fault_once(struct s2_thread *t, struct s2_context *ctx, uint64_t ngpa,
				 uint32_t access, struct s2_xlat *out, struct s2_syndrome *why)
{
	struct s2_shadows *set = ctx->set;
	struct s2 *s2 = t->s2;
	const struct format *f = t->ops->format;
	const struct geometry *g = &ctx->root.pt.geo;
	uint64_t seq = atomic_load(&set->seq);
	enum build built = BUILD_LOST;
	struct composed m;
	struct walk_entry w = {0};
	enum s2_result result = compose(t, ctx, ngpa, access, &m, why);

	if (result != S2_FIXED)
		return result;
	/* Best effort: most faults need fewer tables, or none. */
	table_pool_fill(&t->pool, g->levels - 1u);
	MMU_RACE_POINT();
	brlock_read_lock(&s2->lock, &t->reader);
	rcu_enter();
	if (atomic_load(&set->seq) == seq)
		built = build(t, ctx, ngpa, &m, &w);
	if (built == BUILT && out) {
		out->hpa = format_addr(f, g, w.value) | (ngpa & (geometry_size(g, w.level) - 1));
		out->perm = f->perm(w.value);
		out->level = w.level;
		out->entry = w.value;
	}
	rcu_exit();
	brlock_read_unlock(&t->reader);
	switch (built) {
	case BUILT: return S2_FIXED;
	case BUILD_NOMEM: return S2_NOMEM;
	case BUILD_FULL: shadow_evict(t, ctx); return S2_RETRY;
	case BUILD_CONFLICT:
		/* The guest has other leaves there by now, or the instance smaller ones: what is
		 * there goes first (on arm64 it must). */
		shadow_forget(t, ctx, ngpa, ngpa);
		return S2_RETRY;
	default: return S2_RETRY;
	}
}

bool s2_context_translate(struct s2_thread *t, struct s2_context *ctx, uint64_t ngpa,
			  uint32_t access, struct s2_xlat *out)
{
	return t->translate_shadow(&ctx->root.pt, ngpa, access, out);
}

enum s2_result s2_context_fault(struct s2_thread *t, struct s2_context *ctx, uint64_t ngpa,
				uint32_t access, struct s2_xlat *out, struct s2_syndrome *why)
{
	struct s2_syndrome unused;
	struct s2_xlat x;
	enum s2_result result;

	if (s2_context_translate(t, ctx, ngpa, access, &x)) {
		if (out)
			*out = x;
		result = S2_SPURIOUS;
	} else {
		result = fault_once(t, ctx, ngpa, access, out, why ? why : &unused);
	}
	if (result == S2_FORWARD)
		count_fault(&t->stats, access, false, result);
	atomic_fetch_add(&ctx->set->faults[result], 1);
	return result;
}
