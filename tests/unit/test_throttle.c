/*
 * Description: which vCPUs wait when all of them together may dirty so much: the plan over the MMU
 * core's own dirty rates, in a time of its own. Two vCPUs with different rates, the same, few
 * enough; and half as much later.
 */
#include "tests/unit/test_mmu_util.h"
#include "vmm/throttle_plan.h"

enum { VCPUS = 2, PAGES = 1 << 12 /* of each vCPU */, TICK = 10, BEGIN = 1000 /* ms */ };
static const uint64_t ms = 1000000, page = 4096;

static struct s2 *s2;
static struct s2_thread *t, *vcpu[VCPUS];
static uint64_t wrote[VCPUS]; /* pages, ever */

struct outcome {
	uint64_t pages[VCPUS], waited[VCPUS]; /* per second; ms per second */
};

static uint64_t dirty_rate(void *opaque, unsigned i, struct s2_dirty_rate *state, uint64_t now)
{
	(void)opaque;
	return s2_dirty_rate(vcpu[i], state, now);
}

static void write_page(unsigned i)
{
	const uint64_t gpa = (i * PAGES + wrote[i]++ % PAGES) * page;
	struct s2_xlat x;

	while (!s2_translate(vcpu[i], gpa, S2_W, &x))
		if (s2_fault(vcpu[i], gpa, S2_W, &x) != S2_FIXED) {
			CHECK(false, "%#" PRIx64, gpa);
			return;
		}
}

/* So many seconds in which vCPU i writes per_ms[i] pages each ms in which it does not wait. */
static struct outcome pass(struct throttle_plan *p, uint64_t *now, const unsigned per_ms[VCPUS],
			   unsigned seconds)
{
	static uint64_t bitmap[VCPUS * PAGES / 64];
	struct outcome o = {0};

	for (unsigned n = 1; n <= seconds * 1000; n++, *now += ms) {
		for (unsigned i = 0; i < VCPUS; i++) {
			const bool waits = p->vcpu[i].until > *now;

			o.waited[i] += waits;
			for (unsigned w = 0; w < per_ms[i] && !waits; w++, o.pages[i]++)
				write_page(i);
		}
		if (n % TICK)
			continue;
		throttle_plan_tick(p, *now);
		CHECK(s2_dirty_harvest(t, 0, VCPUS * PAGES, bitmap) >= 0, "harvest");
	}
	for (unsigned i = 0; i < VCPUS; i++) {
		o.pages[i] /= seconds;
		o.waited[i] /= seconds;
	}
	printf("%u and %u pages per ms, %" PRIu64 " per s: %" PRIu64 " and %" PRIu64
	       " per s, waited %" PRIu64 " and %" PRIu64 " ms\n",
	       per_ms[0], per_ms[1], p->pages, o.pages[0], o.pages[1], o.waited[0], o.waited[1]);
	return o;
}

static bool near(uint64_t is, uint64_t wanted)
{
	return is >= wanted - wanted / 8 && is <= wanted + wanted / 8;
}

static struct throttle_plan begin(uint64_t pages, uint64_t *now)
{
	struct throttle_plan p = {.count = VCPUS, .pages = pages, .dirty_rate = dirty_rate};

	*now = BEGIN * ms;
	throttle_plan_begin(&p, *now);
	return p;
}

static void run(void)
{
	struct throttle_plan p;
	struct outcome o;
	uint64_t now;

	p = begin(4000, &now);
	pass(&p, &now, (unsigned[]){20, 1}, 2); /* demands are learnt */
	o = pass(&p, &now, (unsigned[]){20, 1}, 8);
	CHECK(o.pages[1] == 1000 && !o.waited[1], "what writes little waits");
	CHECK(near(o.pages[0], 3000), "the other has what is left");
	p.pages = 2500;
	pass(&p, &now, (unsigned[]){20, 1}, 2);
	o = pass(&p, &now, (unsigned[]){20, 1}, 8);
	CHECK(o.pages[1] == 1000 && !o.waited[1], "what writes little waits, later");
	CHECK(near(o.pages[0], 1500), "the other has what is left, later");

	p = begin(4000, &now);
	pass(&p, &now, (unsigned[]){20, 20}, 2);
	o = pass(&p, &now, (unsigned[]){20, 20}, 8);
	CHECK(near(o.pages[0], 2000) && near(o.pages[1], 2000), "a half each");

	p = begin(4000, &now);
	o = pass(&p, &now, (unsigned[]){1, 2}, 4);
	CHECK(!o.waited[0] && !o.waited[1], "both write little enough");
}

int main(void)
{
	const struct s2_config config = {.format = S2_EPT4, .input_bits = 48};
	const struct s2_slot ram = {.size = VCPUS * PAGES * page, .page_size = page};
	const char *why = "no memory";

	if (s2_create(&s2, &config, &why) || s2_thread_init(&t, s2, "test"))
		return 1;
	for (unsigned i = 0; i < VCPUS; i++)
		if (s2_thread_init(&vcpu[i], s2, "vcpu"))
			return 1;
	CHECK(!s2_slot_add(t, &ram) && !s2_dirty_start(t), "start");
	run();
	for (unsigned i = 0; i < VCPUS; i++)
		s2_thread_exit(vcpu[i]);
	s2_thread_exit(t);
	s2_destroy(s2);
	return test_result("throttle");
}
