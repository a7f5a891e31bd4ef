/* Description: What of the TLB and of the jump cache outlives a load of CR3 (entries of global
 * pages, SDM vol. 3A 4.10.4.1), and that all else does not: data and code, few pages and many,
 * INVLPG in a large page, CR4.PGE. The host changes the page tables; the guest says when it drops
 * what it knows. */
#include "uc_tlb.h"

enum { HALVES = 0x10001 };

/* Each page holds "mov $NUMBER, %eax; ret" where it is called: executed and read, it says which one
 * is mapped. */
#define PROBE(at)                                                                                  \
	"	mov $" at ", %esi\n call *%rsi\n out %eax, $0x20\n mov 1(%rsi), %eax\n"            \
	"	out %eax, $0x20\n"
#define PROBES PROBE("0x90000") PROBE("0x91000") PROBE("0x92ffd")

/* The probes: a local page, a global one, and an instruction with an end of a page in it, whose
 * number has a half on each.
 * 0: all first. 1: the local ones second. 2: all second. 3: the local ones first again. 4: the
 * second half of CROSS. 5: all first, PGE is off. 6: all second. */
#define STEP_0 PROBES
#define STEP_1 MAP("1") LOAD_CR3 PROBES
#define STEP_2 "	invlpg 0x91000\n" PROBES
#define STEP_3 MAP("0") "	invlpg 0x90000\n invlpg 0x92000\n invlpg 0x93000\n" PROBES
#define STEP_4 MAP("1") "	invlpg 0x93000\n" PROBES
#define STEP_5 MAP("0") FLIP_PGE PROBES
#define STEP_6 MAP("1") LOAD_CR3 PROBES FLIP_PGE
/* As they are, swapped, and back. */
#define MANY_0 SUM("0x200000") SUM("0x400000")
#define MANY_1 MAP("2") LOAD_CR3 SUM("0x200000") SUM("0x400000")
#define MANY_2 MAP("3") "	invlpg 0x3ff000\n invlpg 0x401000\n" SUM("0x200000") SUM("0x400000")

GUEST(tlb, STEP_0 STEP_1 STEP_2 STEP_3 STEP_4 STEP_5 STEP_6 MANY_0 MANY_1 MANY_2 END)

static void map(uint32_t which)
{
	const uint64_t local = which ? 0x98000 : 0x95000;

	if (which < 2) {
		gpa_q(PT + 0x90 * 8, local | 7);
		gpa_q(PT + 0x91 * 8, local | G | 7);
		gpa_q(PT + 0x92 * 8, (local + 0x1000) | 7);
		gpa_q(PT + 0x93 * 8, (local + 0x2000) | 7);
	} else {
		gpa_q(PD + (which == 2 ? 2 : 1) * 8, 0x200000 | 0x87);
		gpa_q(PD + (which == 2 ? 1 : 2) * 8, 0x400000 | 0x87);
	}
}

static void setup(void)
{
	guest_memory(tlb_code, tlb_end);
	map(0);
	for (uint32_t i = 0; i < 2; i++) {
		number(0x95000 + i * 0x3000, 1 + i);
		number(0x96ffd + i * 0x3000, HALVES * (1 + i));
	}
	number_large();
}

int main(void)
{
	/* A global page's old translation may stay, and must for speed; so may any before INVLPG.
	 */
	static const uint32_t want[7][3] = {
		{1, 1, HALVES},	 {2, 1, 2 * HALVES}, {2, 2, 2 * HALVES}, {1, 2, HALVES},
		{1, 2, 0x20001}, {1, 1, HALVES},     {2, 2, 2 * HALVES}};
	const uint32_t sum = LARGE * (LARGE - 1);
	const uint32_t sums[6] = {sum, 2 * sum, 2 * sum, sum, sum, 2 * sum};

	for (int parallel = 0; parallel < 2; parallel++) {
		setup();
		tlb_run(parallel, map);
		CHECK(n_seen == 48, "%u numbers", n_seen);
		for (unsigned i = 0; i < 42; i++)
			CHECK(seen[i] == want[i / 6][i % 6 / 2], "step %u, page %u, %s: %x, not %x",
			      i / 6, i % 6 / 2, i % 2 ? "read" : "executed", seen[i],
			      want[i / 6][i % 6 / 2]);
		for (unsigned i = 0; i < 6; i++)
			CHECK(seen[42 + i] == sums[i], "sum %u: %u, not %u", i, seen[42 + i],
			      sums[i]);
		printf("parallel %d: 3 pages in 7 states, 1024 pages in 3: as mapped\n", parallel);
	}
	return 0;
}
