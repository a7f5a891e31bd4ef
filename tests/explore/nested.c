/* A guest that runs a guest: its tables are made by a second instance in guest memory, and changed
 * by hand. Nested page n leads to page n, and after a change nested page 0 to page 1. */
#include "mmu/shadow_internal.h"
#include "tests/explore/calls.h"
#include "tests/explore/world.h"

enum { TABLES = 8, VMID = 3 };

static uint64_t guest_table[TABLES]; /* gpa */
static unsigned guest_tables;
static struct s2 *guest;
static uint64_t *guest_leaf[PAGES], leaf[PAGES]; /* where they are, what they were */
static struct s2_guest_root root;
static struct s2_shadows *shadows;
static struct s2_context *context; /* NULL: threads come and go */
static bool quietly;		   /* the guest has changed something and not said so */

/* Beyond the entries that are points. */
static uint64_t tables_gpa(void)
{
	return format->base + (UINT64_C(1) << 31) + (UINT64_C(129) << 16);
}

static uint64_t tables_hpa(void)
{
	return format->hpa + (tables_gpa() - format->base);
}

static uint64_t guest_to_pa(void *opaque, const void *table)
{
	(void)opaque;
	return tables_gpa() + explore_address(table);
}

static void *guest_from_pa(void *opaque, uint64_t pa)
{
	(void)opaque;
	return explore_memory(pa - tables_gpa());
}

static void *guest_alloc(void *opaque, size_t bytes)
{
	void *table = explore_alloc(bytes < K4 ? K4 : bytes);

	if (guest_tables < TABLES)
		guest_table[guest_tables++] = guest_to_pa(opaque, table);
	return table;
}

static void guest_free(void *opaque, void *memory, size_t bytes)
{
	(void)opaque;
	explore_free(memory, bytes);
}

static const struct s2_env guest_env = {
	.alloc = guest_alloc, .free = guest_free, .to_pa = guest_to_pa, .from_pa = guest_from_pa};

/* What no thread changes is no point. */
static uint64_t load(void *opaque, uint64_t hpa, unsigned bytes)
{
	const uint64_t *entry = explore_memory(hpa - tables_hpa());

	(void)opaque;
	for (unsigned i = 0; i < PAGES; i++) {
		if (entry == guest_leaf[i])
			return explore_load(entry, bytes, __ATOMIC_ACQUIRE);
	}
	return *entry;
}

/* ---- beginning and end ---- */

static void make_guest(void)
{
	struct s2_config c = format->c;
	const struct s2_slot slot = {.gpa = format->base,
				     .size = 2 * format->large,
				     .hpa = format->base,
				     .page_size = K4};
	struct s2_registers regs;
	struct s2_thread *t;
	struct s2_xlat x;

	guest_tables = 0;
	c.env = &guest_env;
	c.bbm_level = 0;
	if (s2_create(&guest, &c, NULL) || s2_thread_init(&t, guest, "guest") ||
	    s2_slot_add(t, &slot))
		explore_fail("no guest");
	for (unsigned i = 0; i < PAGES; i++) {
		uint64_t ngpa = format->base + i * K4;

		if (s2_fault(t, ngpa, S2_W, &x) != S2_FIXED)
			explore_fail("the guest's fault");
		guest_leaf[i] = walk_lookup(guest->ops->format, &guest->pt, ngpa).entry;
		leaf[i] = *guest_leaf[i];
	}
	s2_thread_exit(t);
	if (s2_registers(guest, format->c.format == S2_EPT4 ? 0 : VMID, &regs))
		explore_fail("the guest's registers");
	root = (struct s2_guest_root){.root = regs.root, .control = regs.control};
}

static bool comes_and_goes(void)
{
	for (unsigned i = 0; i < EXPLORE_THREADS; i++) {
		if (scenario->thread[i] == visits || scenario->thread[i] == visits_other)
			return true;
	}
	return false;
}

static struct s2_guest_root other_root(void)
{
	struct s2_guest_root other = root;

	other.off = true;
	return other;
}

void nested_setup(void)
{
	const struct s2_slot slot = {
		.gpa = tables_gpa(), .size = 64 * K4, .hpa = tables_hpa(), .page_size = K4};
	const struct s2_shadow_config config = {.guest = format->c.format,
						.contexts = comes_and_goes() ? 1 : 2,
						.leaves = 8,
						.tables = 16,
						.first_tag = 1,
						.memory = {.load = load}};
	struct s2_xlat x;

	quietly = false;
	context = NULL;
	make_guest();
	if (s2_slot_add(main_thread, &slot) ||
	    s2_shadows_create(&shadows, main_thread, &config, NULL))
		explore_fail("no shadows");
	for (unsigned i = 0; i < guest_tables; i++)
		s2_fault(main_thread, guest_table[i], S2_R, &x);
	explore_watch(&shadows->seq, sizeof(shadows->seq));
	explore_watch(&s2->tlb.mutex, 1);
	explore_watch(&s2->lock.mutex, 1); /* after a change, and before shadows follow */
	if (comes_and_goes())
		return;
	if (s2_context_get(&context, main_thread, shadows, &root, NULL))
		explore_fail("no context");
	if (scenario->state & MAPPED && !(scenario->state & FRESH) &&
	    s2_context_fault(main_thread, context, format->base, S2_R, &x, NULL) != S2_FIXED)
		explore_fail("setup: nested");
}

static struct dec_result look(const struct s2_registers *regs, uint64_t address)
{
	struct dec_memory mem = memory_of(regs);

	return dec_walk(&mem, address);
}

/* What a shadow grants, the instance and (if it has said what it changed) the guest do. */
static void check_shadow(unsigned page)
{
	struct s2_registers shadow, own;
	struct dec_result r, below;
	uint64_t to;

	s2_context_registers(context, &shadow);
	s2_registers(s2, 0, &own);
	r = look(&shadow, format->base + page * K4);
	if (r.outcome == DEC_FAULT)
		return;
	to = (r.address - format->hpa) / K4;
	if (r.outcome != DEC_TRANSLATED || to >= PAGES)
		explore_fail("nested page %u: %s", page, r.why ? r.why : "leads elsewhere");
	below = look(&own, format->base + to * K4);
	if (below.outcome != DEC_TRANSLATED || below.address != r.address || (r.w && !below.w))
		explore_fail("nested page %u stands on what is not there", page);
	if (quietly)
		return;
	if (format_addr(guest->ops->format, &guest->pt.geo, *guest_leaf[page]) !=
	    format->base + to * K4)
		explore_fail("nested page %u is not the guest's", page);
	if (r.w && !(guest->ops->format->perm(*guest_leaf[page]) & S2_W))
		explore_fail("nested page %u: the guest has taken W", page);
}

static void check_context(void)
{
	struct dec_memory mem;
	struct s2_registers regs;
	struct dec_census census;
	uint64_t leaves = 0;

	for (unsigned i = 0; i < PAGES; i++)
		check_shadow(i);
	s2_context_registers(context, &regs);
	mem = memory_of(&regs);
	census = dec_census(&mem);
	for (unsigned level = 1; level < 6; level++)
		leaves += census.leaves[level];
	if (census.bad || census.marks || leaves != atomic_load(&shadows->map.used) ||
	    census.tables != 1 + atomic_load(&shadows->tables))
		explore_fail("a shadow of %d leaves, %d tables, %d bad; counted: %d, %d",
			     (int)leaves, (int)census.tables, (int)census.bad,
			     (int)shadows->map.used, (int)shadows->tables);
	s2_context_put(context);
}

void nested_finish(void)
{
	if (context)
		check_context();
	s2_shadows_destroy(main_thread, shadows);
	s2_destroy(guest);
	if (s2_slot_remove(main_thread, tables_gpa()))
		explore_fail("the guest's slot");
}

/* ---- what threads do ---- */

static void access_nested(struct s2_context *ctx, bool write, bool hold)
{
	uint32_t access = write ? S2_W : S2_R;
	struct s2_registers regs;
	struct s2_xlat x;
	struct taken taken;
	bool changed;
	uint64_t page;

	for (;;) {
		struct s2_syndrome why;
		enum s2_result r;

		acknowledge();
		busy++;
		changed = done[INVALIDATE][0];
		r = s2_context_translate(me(), ctx, format->base, access, &x)
			    ? S2_FIXED
			    : s2_context_fault(me(), ctx, format->base, access, &x, &why);
		busy--;
		if (r == S2_FIXED || r == S2_SPURIOUS)
			break;
		/* W has been taken away by the guest. */
		if ((r == S2_EMULATE && removing) || (r == S2_FORWARD && begun[INVALIDATE][0]))
			return;
		if (r != S2_RETRY)
			explore_fail("nested: result %d, %d at level %u", r, why.kind, why.level);
		acknowledge();
		explore_yield();
	}
	page = (x.hpa - format->hpa) / K4;
	if (page >= PAGES)
		explore_fail("nested page 0 -> %llx", (unsigned long long)x.hpa);
	if (changed && format_addr(guest->ops->format, &guest->pt.geo, *guest_leaf[0]) !=
			       format->base + page * K4)
		explore_fail("nested page 0 -> page %u, which the guest has changed",
			     (unsigned)page);
	taken = take(format->base, (unsigned)page);
	s2_context_registers(ctx, &regs);
	if (hold)
		explore_point("holds");
	/* Others go on; what it may write to, until a protection has ended. */
	while (hold && acknowledge_others()) {
		explore_yield();
		if (!write || done[PROTECT][page])
			break;
	}
	use(&taken, &regs, write);
	acknowledge();
}

void nested_reads(void *arg)
{
	(void)arg;
	access_nested(context, false, false);
	processor_ends();
}

/* A translation of somebody whom nobody waits for. */
void nested_looks(void *arg)
{
	struct s2_xlat x;

	(void)arg;
	if (s2_context_translate(me(), context, format->base, S2_R, &x) && x.hpa != format->hpa)
		explore_fail("nested page 0 -> %llx", (unsigned long long)x.hpa);
}

/* Other invalidations than of nested translations leave it what it has. */
void nested_holds(void *arg)
{
	(void)arg;
	access_nested(context, false, true);
	processor_ends();
}

void nested_holds_written(void *arg)
{
	(void)arg;
	access_nested(context, true, true);
	processor_ends();
}

void nested_writes(void *arg)
{
	(void)arg;
	access_nested(context, true, false);
	processor_ends();
}

void nested_writes_twice(void *arg)
{
	(void)arg;
	access_nested(context, true, false);
	access_nested(context, true, false);
	processor_ends();
}

static void invalidate(enum s2_inv_kind kind)
{
	const struct s2_inv inv = {.kind = kind,
				   .vmid = format->c.format == S2_EPT4 ? 0 : VMID,
				   .start = format->base,
				   .end = format->base + K4};

	s2_shadow_invalidate(me(), shadows, &inv);
}

static void guest_changes(uint64_t value, enum s2_inv_kind kind)
{
	struct operating o = operation_begins(INVALIDATE, PAGES);

	explore_write(guest_leaf[0], value);
	invalidate(kind);
	operation_ends(INVALIDATE, PAGES, &o);
}

void guest_remaps(void *arg)
{
	(void)arg;
	guest_changes(leaf[1], S2_INV_IPA);
}

void guest_protects(void *arg)
{
	const struct format *f = guest->ops->format;

	(void)arg;
	guest_changes(format_set_perm(f, &guest->pt.geo, leaf[0], S2_R), S2_INV_RANGE);
}

void guest_flushes(void *arg)
{
	(void)arg;
	guest_changes(leaf[1], S2_INV_VMID);
}

/* What stands in the shadow is met by the next fault. */
void guest_remaps_quietly(void *arg)
{
	(void)arg;
	quietly = true;
	explore_write(guest_leaf[0], leaf[1]);
}

void drops_context(void *arg)
{
	(void)arg;
	s2_context_drop(me(), context);
}

static void visit(const struct s2_guest_root *which)
{
	struct s2_context *ctx;
	int err;

	while ((err = s2_context_get(&ctx, me(), shadows, which, NULL)) == -EBUSY ||
	       err == -EAGAIN) {
		acknowledge();
		explore_yield();
	}
	if (err)
		explore_fail("context: %d", err);
	access_nested(ctx, true, false);
	s2_context_put(ctx);
	processor_ends();
}

void visits(void *arg)
{
	(void)arg;
	visit(&root);
}

void visits_other(void *arg)
{
	const struct s2_guest_root other = other_root();

	(void)arg;
	visit(&other);
}
