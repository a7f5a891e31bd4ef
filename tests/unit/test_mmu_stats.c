/* Description: what the MMU core counts: every row of the table has a name of its own and stands in
 * mmu/README.md; faults are counted by access, by what they met, and by outcome; flushes by size.
 */
#include <string.h>

#include "tests/unit/test_mmu_util.h"

enum { KiB = 1 << 10, MiB = 1 << 20 };

static const struct {
	const char *name;
	enum s2_format format;
	uint64_t page, block, end; /* end: of the input space */
	const char *page_name, *block_name;
} cases[] = {
	{"ept4", S2_EPT4, 4 * KiB, 2 * MiB, 1ull << 48, "pages.4K", "pages.2M"},
	{"arm64-16k", S2_ARM64_16K, 16 * KiB, 32 * MiB, 1ull << 40, "pages.16K", "pages.32M"},
	{"arm64-64k", S2_ARM64_64K, 64 * KiB, 512 * MiB, 1ull << 40, "pages.64K", "pages.512M"},
	{"sv39x4", S2_SV39X4, 4 * KiB, 2 * MiB, 1ull << 41, "pages.4K", "pages.2M"},
};

struct wanted {
	const char *name;
	uint64_t value;
	unsigned found;
};

static void look(void *opaque, const struct s2_counter *counter)
{
	struct wanted *wanted = opaque;

	if (!strcmp(counter->name, wanted->name)) {
		wanted->value = counter->value;
		wanted->found++;
	}
}

static uint64_t value(struct s2 *s2, const char *name)
{
	struct wanted wanted = {.name = name};

	s2_stats_each(s2, look, &wanted);
	CHECK(wanted.found == 1, "%s: %u times", name, wanted.found);
	return wanted.value;
}

#define EXPECT(which, n)                                                                           \
	CHECK(value(s2, which) == (n), "%s: %s is %" PRIu64, c->name, which, value(s2, which))

static void run(unsigned nr)
{
	const typeof(cases[0]) *c = &cases[nr];
	const struct s2_config config = {.format = c->format};
	const struct s2_slot ram = {.size = 2 * c->block, .page_size = c->block};
	const struct s2_slot rom = {.gpa = 4 * c->block,
				    .size = c->block,
				    .page_size = c->page,
				    .flags = S2_SLOT_READONLY};
	struct s2_thread *t;
	const char *why = "";
	char name[64];
	struct s2 *s2;

	CHECK(!s2_create(&s2, &config, &why), "%s: %s", c->name, why);
	CHECK(!s2_thread_init(&t, s2, "test") && !s2_slot_add(t, &ram) && !s2_slot_add(t, &rom),
	      "%s", c->name);
	s2_fault(t, 0, S2_R, NULL);
	s2_fault(t, 0, S2_W, NULL);
	s2_fault(t, 4 * c->block, S2_X, NULL);
	s2_fault(t, 4 * c->block, S2_W, NULL);
	s2_fault(t, 8 * c->block, S2_W, NULL);
	s2_fault(t, c->end, S2_R, NULL);
	EXPECT("fault-kinds.read.translation.fixed", 1);
	EXPECT("fault-kinds.write.permission.spurious", 1);
	EXPECT("fault-kinds.exec.translation.fixed", 1);
	EXPECT("fault-kinds.write.permission.emulate", 1);
	EXPECT("fault-kinds.write.translation.emulate", 1);
	EXPECT("fault-kinds.read.translation.invalid", 1);
	EXPECT("faults.fixed", 2);
	EXPECT("faults.emulate", 2);
	EXPECT(c->block_name, 1);
	EXPECT(c->page_name, 1);

	s2_write_protect(t, 0, c->block);
	s2_fault(t, 0, S2_W, NULL);
	EXPECT("fault-kinds.write.permission.fixed", 1);
	EXPECT("invalidations", 1);
	snprintf(name, sizeof(name), "flush-sizes.%s", c->page_name + strlen("pages."));
	EXPECT(name, 0);
	EXPECT("full-flushes", 0);
	s2_unmap(t, 4 * c->block, 4 * c->block + c->page);
	EXPECT(name, 1);
	s2_fault(t, 4 * c->block, S2_R, NULL);
	s2_unmap(t, 0, 0);
	EXPECT("full-flushes", 1);
	EXPECT(c->block_name, 0);
	EXPECT(c->page_name, 0);
	EXPECT("deferred", 0);
	s2_thread_exit(t);
	s2_destroy(s2);
}

static void rows(void)
{
	struct s2_counter row, other;
	static char text[1 << 16];
	FILE *file = fopen("mmu/README.md", "r");
	char line[300];

	CHECK(file && fread(text, 1, sizeof(text) - 1, file) > 0, "mmu/README.md");
	if (file)
		fclose(file);
	for (unsigned i = 0; s2_counter_row(i, &row); i++) {
		for (unsigned j = 0; j < i && s2_counter_row(j, &other); j++)
			CHECK(strcmp(row.name, other.name) != 0, "%s twice", row.name);
		snprintf(line, sizeof(line), "\n| `%s` | %s | %s |\n", row.name,
			 row.kind == S2_GAUGE ? "now" : "since the start", row.help);
		CHECK(strstr(text, line), "mmu/README.md lacks this line:%s", line);
	}
}

int main(void)
{
	rows();
	for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		run(i);
	return test_result("stats");
}
