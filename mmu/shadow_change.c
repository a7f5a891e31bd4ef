/* What takes leaves out of shadows, or permissions from them: changes of the instance's own tables,
 * the guest's invalidations, dropping. All under the write side of the instance's lock, in pieces;
 * waiting and freeing come after. */
#include "mmu/rcu.h"
#include "mmu/shadow_internal.h"

void shadow_flush_add(struct shadow_flush *flush, uint32_t tag, uint64_t start, uint64_t last)
{
	unsigned i = 0;

	while (i < flush->n && flush->range[i].tag != tag)
		i++;
	if (i == sizeof(flush->range) / sizeof(*flush->range)) {
		flush->all = true;
		return;
	}
	if (i == flush->n) {
		flush->n++;
		flush->range[i].tag = tag;
		flush->range[i].start = start;
		flush->range[i].last = last;
	}
	if (start < flush->range[i].start)
		flush->range[i].start = start;
	if (last > flush->range[i].last)
		flush->range[i].last = last;
}

struct change {
	struct s2_shadows *set;
	struct shadow_flush flush;
	uint64_t generation; /* to wait for; 0: nothing was said */
	uint64_t zapped, weakened;
};

/* Tells the TLB clients what was gathered: before the lock is left under which it was done. Whoever
 * finds a leaf gone or weaker after that has nothing to say of it, and posts, and waits for, a
 * later generation. */
static void say(struct change *c)
{
	struct tlb *tlb = &c->set->s2->tlb;
	struct shadow_flush *flush = &c->flush;

	for (unsigned i = 0; flush->all && i < c->set->config.contexts; i++)
		c->generation = tlb_post_tag(tlb, c->set->config.first_tag + i, 0, 0);
	for (unsigned i = 0; !flush->all && i < flush->n; i++)
		c->generation = tlb_post_tag(tlb, flush->range[i].tag, flush->range[i].start,
					     flush->range[i].last + 1);
	*flush = (struct shadow_flush){0};
}

/* TLBs forget what they hold of this leaf. */
static void flush_leaf(struct change *c, const struct shadow_node *n)
{
	shadow_flush_add(&c->flush, s2_context_tag(&c->set->context[n->context]), n->ngpa,
			 n->ngpa | ((UINT64_C(1) << n->shift) - 1));
}

static void zap(void *opaque, uint32_t index)
{
	struct change *c = opaque;
	const struct shadow_node *n = &c->set->map.node[index];
	struct s2_context *ctx = &c->set->context[n->context];
	const struct format *f = c->set->s2->ops->format;
	struct walk_entry w = walk_lookup(f, &ctx->root.pt, n->ngpa);

	/* Only hardware's A and D bits can come between. */
	while (w.kind == ENTRY_LEAF && !walk_replace(f, &ctx->root.pt, &w, 0))
		;
	flush_leaf(c, n);
	shadow_map_remove(&c->set->map, index);
	c->zapped++;
}

/* What has become of the part of the instance's tables that a leaf was made of. */
static void follow(void *opaque, uint32_t index)
{
	struct change *c = opaque;
	struct s2 *s2 = c->set->s2;
	const struct shadow_node *n = &c->set->map.node[index];
	struct s2_context *ctx = &c->set->context[n->context];
	const struct format *f = s2->ops->format;
	const struct geometry *g = &s2->pt.geo;
	struct walk_entry own, w;
	uint32_t had, may;
	uint64_t value;

	if (ctx->root.role.address_space != s2->root.role.address_space)
		return;
	own = walk_lookup(f, &s2->pt, n->gpa);
	w = walk_lookup(f, &ctx->root.pt, n->ngpa);
	for (;;) {
		uint64_t inside = n->gpa & (geometry_size(g, own.level) - 1);

		if (own.kind != ENTRY_LEAF || w.kind != ENTRY_LEAF ||
		    geometry_shift(g, own.level) < n->shift ||
		    (format_addr(f, g, own.value) | inside) != format_addr(f, g, w.value))
			break;
		had = f->perm(w.value);
		may = shadow_may(s2, own.value);
		if (!(had & ~may)) {
			/* W may have been taken and, by another's fault, given back: no TLB keeps
			 * what it got before. */
			if (had & S2_W)
				flush_leaf(c, n);
			return;
		}
		value = format_set_perm(f, g, w.value, had & may);
		if (!(had & may) || !value)
			break;
		if (!walk_replace(f, &ctx->root.pt, &w, value))
			continue;
		flush_leaf(c, n);
		c->weakened++;
		return;
	}
	zap(c, index);
}

void shadow_follow(struct s2_thread *t, uint64_t start, uint64_t end)
{
	struct s2 *s2 = t->s2;
	struct shadow_cursor cursor = {0};
	struct change c = {0};
	bool more;

	do {
		struct s2_shadows *set;

		brlock_write_lock(&s2->lock);
		set = atomic_load(&s2->shadows);
		more = false;
		if (set && (!c.set || c.set == set)) {
			if (!c.set)
				atomic_fetch_add(&set->seq, 1);
			c.set = set;
			more = shadow_map_visit(&set->map, CHAIN_GPA, 0, start, end - 1, &cursor,
						SHADOW_BUDGET, follow, &c);
			say(&c);
			if (!more) {
				atomic_fetch_add(&set->followed, c.zapped);
				atomic_fetch_add(&set->lost_write, c.weakened);
			}
		}
		brlock_write_unlock(&s2->lock);
	} while (more);
}

/* Unlinks up to `max` trees from an empty context's root. */
static unsigned detach(struct s2_context *ctx, const struct format *f, void **tree, unsigned max)
{
	const struct pgtable *pt = &ctx->root.pt;
	const struct geometry *g = &pt->geo;
	unsigned n = 0;

	for (size_t i = 0; n < max && i < geometry_entries(g, g->levels); i++) {
		void *entry = entry_at(g, pt->root, i);
		uint64_t value = entry_load(g, entry);

		if (format_kind(f, value, g->levels) != ENTRY_TABLE)
			continue;
		tree[n++] = pgtable_at(pt, format_addr(f, g, value));
		entry_store(g, entry, 0);
	}
	return n;
}

void shadow_empty(struct s2_thread *t, struct s2_context *ctx)
{
	struct s2_shadows *set = ctx->set;
	const struct format *f = t->ops->format;
	_Atomic uint32_t *chain = &set->map.bucket[CHAIN_CONTEXT][ctx->index];
	void *tree[64];
	unsigned trees;

	do {
		struct change c = {.set = set};
		bool more;

		brlock_write_lock(&t->s2->lock);
		atomic_fetch_add(&set->seq, 1);
		shadow_flush_add(&c.flush, s2_context_tag(ctx), 0, UINT64_MAX);
		for (int i = 0; i < SHADOW_BUDGET && atomic_load(chain); i++)
			zap(&c, atomic_load(chain));
		shadow_map_reclaim(&set->map, SHADOW_BUDGET);
		more = atomic_load(chain);
		trees = more ? 0 : detach(ctx, f, tree, 64);
		say(&c);
		brlock_write_unlock(&t->s2->lock);
		if (more) {
			trees = 64; /* go on */
			continue;
		}
		tlb_wait_tag(&t->s2->tlb, c.generation);
		if (trees)
			rcu_synchronize();
		for (unsigned i = 0; i < trees; i++) {
			struct walk_count found = {0};

			walk_free_tree(f, &ctx->root.pt, tree[i], ctx->root.pt.geo.levels - 1u,
				       &found);
			shadow_tables(ctx, -found.tables);
		}
	} while (trees == 64);
	atomic_fetch_add(&set->drops, 1);
}

/* Also what is in TLBs only: another thread has taken it out of the shadow, and its flush is under
 * way. */
static void forget(struct change *c, struct s2_context *ctx, uint64_t start, uint64_t last)
{
	struct s2 *s2 = c->set->s2;
	struct shadow_cursor cursor = {0};
	bool more;

	do {
		brlock_write_lock(&s2->lock);
		atomic_fetch_add(&c->set->seq, 1);
		more = ctx->made && shadow_map_visit(&c->set->map, CHAIN_BLOCK, ctx->index, start,
						     last, &cursor, SHADOW_BUDGET, zap, c);
		if (!more)
			shadow_map_leave(&c->set->map, &cursor); /* the context has gone */
		shadow_flush_add(&c->flush, s2_context_tag(ctx), start, last);
		say(c);
		brlock_write_unlock(&s2->lock);
	} while (more);
}

static void forgotten(struct change *c)
{
	say(c); /* what needs no lock */
	atomic_fetch_add(&c->set->invalidated, c->zapped);
	if (c->generation)
		tlb_wait_tag(&c->set->s2->tlb, c->generation);
}

void shadow_forget(struct s2_thread *t, struct s2_context *ctx, uint64_t start, uint64_t last)
{
	struct change c = {.set = ctx->set};

	(void)t;
	forget(&c, ctx, start, last);
	forgotten(&c);
}

static bool concerns(struct s2_context *ctx, const struct s2_inv *inv)
{
	bool hit;

	pthread_mutex_lock(&ctx->set->mutex);
	hit = ctx->made;
	if (inv->kind == S2_INV_RANGE || inv->kind == S2_INV_IPA)
		hit &= !ctx->guest.off;
	if (inv->kind == S2_INV_ROOT)
		hit &= !ctx->guest.off &&
		       ctx->guest.root == (inv->root & UINT64_C(0xffffffffff000));
	else if (inv->kind != S2_INV_ALL)
		hit &= ctx->guest.vmid == inv->vmid;
	pthread_mutex_unlock(&ctx->set->mutex);
	return hit;
}

void s2_shadow_invalidate(struct s2_thread *t, struct s2_shadows *set, const struct s2_inv *inv)
{
	struct change c = {.set = set};
	uint64_t start = inv->start, last = inv->end - 1;

	if (inv->kind == S2_INV_IPA) {
		uint64_t mask = inv->shift && inv->shift < 64 ? (UINT64_C(1) << inv->shift) - 1 : 0;

		start = inv->start & ~mask;
		last = inv->start | mask;
	}
	for (unsigned i = 0; i < set->config.contexts; i++) {
		struct s2_context *ctx = &set->context[i];

		if (!concerns(ctx, inv))
			continue;
		switch (inv->kind) {
		case S2_INV_STAGE1:
			shadow_flush_add(&c.flush, s2_context_tag(ctx), 0, UINT64_MAX);
			break;
		case S2_INV_RANGE:
		case S2_INV_IPA:
			if (start <= last)
				forget(&c, ctx, start, last);
			break;
		default:
			/* Without a reference to be had nobody runs in it, and it is emptied. */
			if (root_get(&ctx->root)) {
				shadow_empty(t, ctx);
				s2_context_put(ctx);
			}
		}
	}
	forgotten(&c);
}
