/* The set of contexts of an instance: creation, and which of them stands for which root. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mmu/rcu.h"
#include "mmu/shadow_internal.h"

#define LEVEL_FIELD "guest-level"

enum { FAMILY_EPT, FAMILY_NPT, FAMILY_ARM, FAMILY_RISCV32, FAMILY_RISCV64 };

static int family(enum s2_format format)
{
	switch (format) {
	case S2_EPT4:
	case S2_EPT5: return FAMILY_EPT;
	case S2_NPT4:
	case S2_NPT5: return FAMILY_NPT;
	case S2_ARM64_4K:
	case S2_ARM64_16K:
	case S2_ARM64_64K: return FAMILY_ARM;
	case S2_SV32X4: return FAMILY_RISCV32;
	default: return FAMILY_RISCV64;
	}
}

/* What the instance's format cannot express, the guest must not have been promised. */
static const char *broken_rule(const struct s2 *s2, const struct s2_shadow_config *config)
{
	const struct geometry *g = &s2->pt.geo;
	const char *refused;

	if ((unsigned)config->guest >= S2_NR_FORMATS ||
	    family(config->guest) != family((enum s2_format)s2->root.role.format))
		return "shadows: the guest's second stage is of the same kind as the instance's";
	if (config->guest == S2_NPT5 && s2->root.role.format == S2_NPT4)
		return "shadows: nested paging has the levels of the instance, or fewer";
	refused = s2_options_refused(config->guest, config->options);
	if (refused)
		return refused;
	if (config->options & S2_OPT_EXEC_ONLY && !(g->options & FORMAT_EXEC_ONLY))
		return "shadows: execute-only for the guest needs it in the instance";
	if (config->use_ad && !config->memory.cas)
		return "shadows: the guest's A and D bits need memory.cas";
	if (config->gpa_bits > g->input_bits || (config->gpa_bits && config->gpa_bits < 32))
		return "shadows: the guest's physical width is 32 bits to the instance's input "
		       "width";
	if (!config->memory.load)
		return "shadows: memory.load is missing";
	return NULL;
}

int s2_shadows_create(struct s2_shadows **out, struct s2_thread *t,
		      const struct s2_shadow_config *config, const char **why)
{
	struct s2 *s2 = t->s2;
	const struct s2_env *env = s2->pt.env;
	const char *rule = broken_rule(s2, config);
	struct s2_shadow_config c = *config;
	struct s2_shadows *set;
	int err;

	c.contexts = c.contexts ? c.contexts : 16;
	c.leaves = c.leaves ? c.leaves : 65536;
	c.tables = c.tables ? c.tables : c.leaves / 8 < 64 ? 64 : c.leaves / 8;
	if (!rule && (c.contexts > UINT16_MAX || c.leaves > UINT32_MAX / 64))
		rule = "shadows: too many contexts or leaves";
	if (!rule && c.tables < MMU_MAX_LEVELS - 1)
		rule = "shadows: tables for one leaf are four: a bound below that lets nobody in";
	if (rule) {
		if (why)
			*why = rule;
		return -EINVAL;
	}
	set = aligned_alloc(_Alignof(struct s2_shadows), sizeof(*set));
	if (!set)
		return -ENOMEM;
	memset(set, 0, sizeof(*set));
	set->s2 = s2;
	set->config = c;
	set->max_tables = c.tables;
	set->rules = (struct nested_rules){
		.format = c.guest,
		.options = c.options,
		.gpa_bits = c.gpa_bits ? c.gpa_bits : s2->pt.geo.input_bits,
		.use_ad = c.memory.cas && (c.use_ad || family(c.guest) != FAMILY_RISCV64)};
	/* x86: an address in an entry has 52 bits at most; EPT and NPT of 5 levels take 57. */
	if (family(c.guest) <= FAMILY_NPT && set->rules.gpa_bits > 52)
		set->rules.gpa_bits = 52;
	if (family(c.guest) == FAMILY_RISCV32)
		set->rules.use_ad = c.use_ad;
	set->context_bytes = 4096;
	while (set->context_bytes < c.contexts * sizeof(*set->context))
		set->context_bytes *= 2;
	set->context = env->alloc(env->opaque, set->context_bytes);
	if (!set->context || shadow_map_init(&set->map, env, c.leaves, c.contexts)) {
		if (set->context)
			env->free(env->opaque, set->context, set->context_bytes);
		free(set);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < c.contexts; i++) {
		set->context[i].set = set;
		set->context[i].index = (uint16_t)i;
	}
	pthread_mutex_init(&set->mutex, NULL);
	pthread_mutex_lock(&s2->slots_mutex);
	/* Taken: by another set. */
	err = field_reserve(&s2->fields, s2->ops->format, FIELD_SHADOW, LEVEL_FIELD, 3,
			    FIELD_ANYWHERE, true, &set->level_field)
		      ? -EALREADY
		      : 0;
	if (!err) {
		root_get(&s2->root);
		brlock_write_lock(&s2->lock);
		atomic_store(&s2->shadows, set);
		brlock_write_unlock(&s2->lock);
	}
	pthread_mutex_unlock(&s2->slots_mutex);
	if (err) {
		shadow_map_free(&set->map);
		env->free(env->opaque, set->context, set->context_bytes);
		pthread_mutex_destroy(&set->mutex);
		free(set);
		return err;
	}
	*out = set;
	return 0;
}

void s2_shadows_destroy(struct s2_thread *t, struct s2_shadows *set)
{
	struct s2 *s2 = t->s2;

	for (unsigned i = 0; i < set->config.contexts; i++) {
		struct s2_context *ctx = &set->context[i];
		struct walk_count found = {0};

		if (ctx->made && root_retire(&ctx->root)) {
			shadow_empty(t, ctx);
			root_free(&ctx->root, s2->ops->format, &found);
		}
	}
	pthread_mutex_lock(&s2->slots_mutex);
	pthread_mutex_lock(&s2->threads_mutex); /* nobody counts them */
	brlock_write_lock(&s2->lock);
	atomic_store(&s2->shadows, NULL);
	atomic_store(&s2->contexts, 0);
	brlock_write_unlock(&s2->lock);
	pthread_mutex_unlock(&s2->threads_mutex);
	field_release(&s2->fields, FIELD_SHADOW, LEVEL_FIELD);
	pthread_mutex_unlock(&s2->slots_mutex);
	root_put(&s2->root);
	shadow_map_free(&set->map);
	s2->pt.env->free(s2->pt.env->opaque, set->context, set->context_bytes);
	pthread_mutex_destroy(&set->mutex);
	free(set);
}

/* With the mutex held. A match, with a reference. */
static struct s2_context *find(struct s2_shadows *set, const struct s2_guest_root *key,
			       const struct guest_stage2 *guest)
{
	for (unsigned i = 0; i < set->config.contexts; i++) {
		struct s2_context *c = &set->context[i];

		if (c->made && !c->busy && c->key.off == key->off && c->guest.vmid == guest->vmid &&
		    (key->off || (c->key.root == key->root && c->key.control == key->control)) &&
		    root_get(&c->root))
			return c;
	}
	return NULL;
}

/* With the mutex held. One that nobody references, round robin, from here on the caller's. */
static struct s2_context *take(struct s2_shadows *set)
{
	for (unsigned i = 0; i < set->config.contexts; i++) {
		struct s2_context *c = &set->context[set->next++ % set->config.contexts];

		if (!c->busy && (!c->made || root_retire(&c->root))) {
			c->busy = true;
			return c;
		}
	}
	return NULL;
}

/* The shape of the shadow: as wide as the guest's input, in the instance's format. */
static int shape(const struct s2 *s2, const struct guest_stage2 *guest, struct geometry *geo,
		 const char **why)
{
	const struct geometry *own = &s2->pt.geo;
	const int kind = family((enum s2_format)s2->root.role.format);
	const struct format_config c = {
		.input_bits = guest->geo.input_bits,
		.output_bits = own->output_bits,
		/* nCR3 does not say it: as everywhere on that machine */
		.levels = kind == FAMILY_NPT	   ? own->levels
			  : kind >= FAMILY_RISCV32 ? guest->geo.levels
						   : 0,
		.page_shift = own->page_shift,
		.options = own->options & ~(unsigned)FORMAT_WIDE,
	};

	if (guest->off) {
		*geo = *own;
		return 0;
	}
	if (guest->geo.page_shift < own->page_shift) {
		*why = "the guest's pages are smaller than the instance's smallest";
		return -EINVAL;
	}
	return s2->ops->format->geometry(geo, &c, why);
}

/* With the mutex held, and the context the caller's: it stands for another root from here on, or
 * (root NULL) for none. */
static void settle(struct s2_context *c, const struct root *root, const struct s2_guest_root *key,
		   const struct guest_stage2 *guest)
{
	struct s2 *s2 = c->set->s2;

	brlock_write_lock(&s2->lock);
	atomic_fetch_add(&s2->contexts, !!root - c->made);
	c->made = root;
	if (root) {
		c->key = *key;
		c->guest = *guest;
		c->root.pt = root->pt;
		c->root.role = root->role;
		atomic_store(&c->root.refs, 2); /* ours, which makes it found, and the caller's */
	}
	brlock_write_unlock(&s2->lock);
	c->busy = false;
}

/* Takes down what a context was, with no lock held. */
static void take_down(struct s2_thread *t, struct s2_context *c)
{
	struct walk_count found = {0};

	shadow_empty(t, c);
	root_free(&c->root, t->ops->format, &found);
	atomic_fetch_add(&c->set->recycled, 1);
}

int s2_context_get(struct s2_context **out, struct s2_thread *t, struct s2_shadows *set,
		   const struct s2_guest_root *root, const char **why)
{
	struct s2 *s2 = t->s2;
	const struct role role = {.format = s2->root.role.format,
				  .address_space = s2->root.role.address_space,
				  .kind = ROOT_SHADOW};
	struct s2_guest_root key = *root;
	const char *rule = NULL;
	struct guest_stage2 guest;
	struct s2_context *found, *mine;
	struct root fresh = {0};
	struct geometry geo;
	bool changing = false; /* one of them becomes another */
	int err = guest_stage2_parse(&guest, &set->rules, &key, &rule);

	if (!err)
		err = shape(s2, &guest, &geo, &rule);
	if (err) {
		if (why)
			*why = rule;
		return err;
	}
	if (guest.off)
		guest.geo = geo;
	if (family(set->config.guest) == FAMILY_ARM)
		key.root &= ~UINT64_C(1); /* CnP */

	pthread_mutex_lock(&set->mutex);
	found = find(set, &key, &guest);
	mine = found ? NULL : take(set);
	for (unsigned i = 0; !found && !mine && i < set->config.contexts; i++)
		changing |= set->context[i].busy;
	pthread_mutex_unlock(&set->mutex);
	if (mine) {
		if (mine->made)
			take_down(t, mine);
		err = root_init(&fresh, &role, &geo, s2->pt.env);
		if (err && why)
			*why = s2_root_refused(err, &fresh.pt);
		pthread_mutex_lock(&set->mutex);
		found = err ? NULL : find(set, &key, &guest); /* somebody else was faster */
		settle(mine, err || found ? NULL : &fresh, &key, &guest);
		pthread_mutex_unlock(&set->mutex);
		if (found) {
			struct walk_count count = {0};

			root_free(&fresh, s2->ops->format, &count);
		} else if (!err) {
			found = mine;
		}
	} else if (!found) {
		err = changing ? -EAGAIN : -EBUSY;
	}
	*out = found;
	return err;
}

void s2_context_put(struct s2_context *ctx)
{
	root_put(&ctx->root); /* never the last: the set has one until it retires the root */
}

void s2_context_drop(struct s2_thread *t, struct s2_context *ctx)
{
	shadow_empty(t, ctx);
}

/* With the mutex held: one that has leaves or tables (these stay when leaves go one by one), with a
 * reference, round robin. */
static struct s2_context *find_victim(struct s2_shadows *set, bool unused)
{
	for (unsigned i = 0; i < set->config.contexts; i++) {
		struct s2_context *c = &set->context[set->next++ % set->config.contexts];

		if (c->made && !c->busy && (!unused || atomic_load(&c->root.refs) == 1) &&
		    (atomic_load(&c->tables) ||
		     atomic_load(&set->map.bucket[CHAIN_CONTEXT][c->index])) &&
		    root_get(&c->root))
			return c;
	}
	return NULL;
}

void shadow_evict(struct s2_thread *t, struct s2_context *own)
{
	struct s2_shadows *set = own->set;
	struct s2_context *victim;

	/* Any context may be emptied, also one that somebody runs in, or comes to use meanwhile.
	 * Not always our own of these: another may hold all that is needed. */
	pthread_mutex_lock(&set->mutex);
	victim = find_victim(set, true);
	if (!victim)
		victim = find_victim(set, false);
	pthread_mutex_unlock(&set->mutex);
	shadow_empty(t, victim ? victim : own); /* if only for the nodes that were returned */
	if (victim)
		s2_context_put(victim);
	atomic_fetch_add(&set->evictions, 1);
}

uint32_t s2_context_tag(const struct s2_context *ctx)
{
	return ctx->set->config.first_tag + ctx->index;
}

int s2_context_registers(const struct s2_context *ctx, struct s2_registers *out)
{
	const struct s2 *s2 = ctx->set->s2;
	const bool x86 = family((enum s2_format)s2->root.role.format) <= FAMILY_NPT;
	struct format_registers regs;
	int err = s2->ops->format->registers(&ctx->root.pt.geo, ctx->root.pt.root_pa,
					     x86 ? 0 : s2_context_tag(ctx), &regs);

	if (!err)
		*out = (struct s2_registers){.root = regs.root, .control = regs.control};
	return err;
}

void s2_shadow_get_stats(struct s2_shadows *set, struct s2_shadow_stats *stats)
{
	*stats = (struct s2_shadow_stats){
		.leaves = atomic_load(&set->map.used),
		.tables = atomic_load(&set->tables),
		.invalidated = atomic_load(&set->invalidated),
		.followed = atomic_load(&set->followed),
		.lost_write = atomic_load(&set->lost_write),
		.drops = atomic_load(&set->drops),
		.recycled = atomic_load(&set->recycled),
		.evictions = atomic_load(&set->evictions),
	};
	pthread_mutex_lock(&set->mutex);
	for (unsigned i = 0; i < set->config.contexts; i++)
		stats->contexts += set->context[i].made;
	pthread_mutex_unlock(&set->mutex);
	for (unsigned i = 0; i < S2_NR_RESULTS; i++)
		stats->faults[i] = atomic_load(&set->faults[i]);
}
