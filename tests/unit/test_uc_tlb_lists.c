/* Description: The lists of what a load of CR3 drops (TLB entries and blocks of pages that are not
 * global) end somewhere; what is entered behind their end must be dropped, too: by a load of CR3,
 * by CR4.PGE, by INVLPG. Also with more global pages than a list is long. */
#include "uc_tlb.h"

/* Pages LOCAL.. and GLOBAL.. of PROBE lead to one set of physical pages or to another. Each holds
 * "mov $NUMBER, %eax; ret". */
enum { LOCAL = 4, GLOBAL = 4, PROBES = LOCAL + GLOBAL };

#define PROBE	"0x90000"
#define BLOCKER "0x98000"
#define FRESH	FLIP_PGE FLIP_PGE
/* One page, entered and dropped again and again, fills the lists. */
#define FILL                                                                                       \
	"	mov $" BLOCKER ", %esi\n mov $700, %ecx\n"                                         \
	"1:	call *%rsi\n mov (%rsi), %eax\n invlpg (%rsi)\n dec %ecx\n jnz 1b\n"
#define SHOW                                                                                       \
	"	mov $" PROBE ", %esi\n mov $8, %ecx\n"                                             \
	"1:	call *%rsi\n out %eax, $0x20\n mov 1(%rsi), %eax\n out %eax, $0x20\n"                  \
	"	add $0x1000, %rsi\n dec %ecx\n jnz 1b\n"
#define INVLPG_ALL                                                                                 \
	"	mov $" PROBE ", %esi\n mov $8, %ecx\n"                                             \
	"1:	invlpg (%rsi)\n add $0x1000, %rsi\n dec %ecx\n jnz 1b\n"
/* 1024 pages of two large ones, which are global. */
#define SUMS SUM("0x200000") SUM("0x400000")

#define CASE_0 MAP("0") FRESH FILL SHOW MAP("1") LOAD_CR3 SHOW
#define CASE_1 MAP("0") FRESH FILL SHOW MAP("1") FLIP_PGE FLIP_PGE SHOW
#define CASE_2 MAP("0") FRESH FILL SHOW MAP("1") INVLPG_ALL SHOW
/* Two loads: what the first has dropped must not count as dropped for the second. */
#define CASE_3 MAP("0") FRESH FILL LOAD_CR3 SHOW MAP("1") LOAD_CR3 SHOW
#define CASE_4 MAP("0") FRESH SUMS SHOW MAP("1") LOAD_CR3 SHOW
#define CASE_5 MAP("0") FRESH SUMS MAP("2") LOAD_CR3 FLIP_PGE SUMS FLIP_PGE

GUEST(lists, CASE_0 CASE_1 CASE_2 CASE_3 CASE_4 CASE_5 END)

static void map(uint32_t which)
{
	for (uint64_t i = 0; which < 2 && i < PROBES; i++)
		gpa_q(PT + (0x90 + i) * 8,
		      (0xb0000 + (which * PROBES + i) * PAGE) | (i < LOCAL ? 7 : 7 | G));
	for (uint64_t i = 1; i <= 2; i++)
		gpa_q(PD + i * 8, (which == 2 ? 3 - i : i) << 21 | 0x87 | G);
}

static void setup(void)
{
	guest_memory(lists_code, lists_end);
	for (uint32_t i = 0; i < 2 * PROBES; i++)
		number(0xb0000 + i * PAGE, 1 + i);
	number(0x98000, 0);
	number_large();
}

/* One SHOW: pages of the set `local`, and of `global` (-1: of either, each page of one). */
static unsigned check_shown(unsigned at, const char *name, unsigned local, int global)
{
	for (unsigned i = 0; i < 2 * PROBES; i++) {
		const unsigned page = i / 2, got = seen[at + i];
		const bool first = got == 1 + page, second = got == 1 + PROBES + page;
		const int want = page < LOCAL ? (int)local : global;

		CHECK(want < 0 ? first || second
		      : want   ? second
			       : first,
		      "%s, page %u, %s: %u", name, page, i % 2 ? "read" : "executed", got);
	}
	return at + 2 * PROBES;
}

static unsigned check_sums(unsigned at, const char *name, uint32_t a, uint32_t b)
{
	const uint32_t sum = LARGE * (LARGE - 1);

	CHECK(seen[at] == a * sum && seen[at + 1] == b * sum, "%s: %u and %u, not %u and %u", name,
	      seen[at], seen[at + 1], a * sum, b * sum);
	return at + 2;
}

int main(void)
{
	for (int parallel = 0; parallel < 2; parallel++) {
		static const char *const names[] = {"a load of CR3", "CR4.PGE", "INVLPG",
						    "a second load of CR3"};
		static const int globals[] = {-1, 1, 1, -1};
		unsigned at = 0;

		setup();
		tlb_run(parallel, map);
		for (unsigned i = 0; i < 4; i++) {
			at = check_shown(at, "at first", 0, 0);
			at = check_shown(at, names[i], 1, globals[i]);
		}
		at = check_sums(at, "many global pages", 1, 2);
		at = check_shown(at, "many global pages", 0, 0);
		at = check_shown(at, "many global pages, a load of CR3", 1, -1);
		at = check_sums(at, "many global pages", 1, 2);
		at = check_sums(at, "many global pages, CR4.PGE", 2, 1);
		CHECK(at == n_seen, "%u numbers, not %u", n_seen, at);
		printf("parallel %d: %u numbers as mapped\n", parallel, n_seen);
	}
	return 0;
}
