/*
 * Description: the guest's own first stage, read from memory: x86 (32-bit with and without PSE,
 * PAE, 4 and 5 levels), arm64 (granules, TTBR0 and TTBR1, LPA2, tables that take permissions away),
 * Sv39 to Sv57 (NAPOT): each against tables written entry by entry here; reserved bits, roots and
 * addresses that the manuals refuse; tables that loop, lead out of memory, or are random.
 */
#include <errno.h>

#include "mmu/guest/stage1.h"
#include "tests/unit/test_mmu_util.h"

enum { MEMORY = 1 << 20 };
static unsigned char ram[MEMORY];
static unsigned loads;

static int load(void *opaque, uint64_t gpa, unsigned bytes, uint64_t *value)
{
	(void)opaque;
	loads++;
	CHECK(gpa % bytes == 0, "misaligned %" PRIx64, gpa);
	if (gpa > MEMORY - bytes)
		return -EFAULT;
	*value = 0;
	memcpy(value, ram + gpa, bytes);
	return 0;
}

static const struct guest_reader memory = {.load = load};

static void put64(uint64_t at, uint64_t index, uint64_t value)
{
	memcpy(ram + at + 8 * index, &value, 8);
}

static void put32(uint64_t at, uint64_t index, uint32_t value)
{
	memcpy(ram + at + 4 * index, &value, 4);
}

static struct guest_xlat x;

static enum guest_fault walk(const struct guest_paging *p, uint64_t va)
{
	enum guest_fault fault = guest_translate(p, &memory, va, &x);

	CHECK(fault == x.fault && x.steps <= GUEST_MAX_LEVELS, "fault");
	return fault;
}

#define MAPS(p, va, to, bytes, kernel, users)                                                      \
	do {                                                                                       \
		enum guest_fault got = walk(p, va);                                                \
		CHECK(got == GUEST_MAPPED && x.gpa == (to) && x.size == (bytes) &&                 \
			      x.perm == (kernel) && x.user == (users),                             \
		      "%" PRIx64 ": fault %d, gpa %" PRIx64 ", size %" PRIx64 ", %u, %u",          \
		      (uint64_t)(va), got, x.gpa, x.size, x.perm, x.user);                         \
	} while (0)
#define REFUSES(p, va, why)                                                                        \
	do {                                                                                       \
		enum guest_fault got = walk(p, va);                                                \
		CHECK(got == (why), "%" PRIx64 ": %d", (uint64_t)(va), got);                       \
	} while (0)

enum { R = S2_R, W = S2_W, X = S2_X };
#define K4  UINT64_C(0x1000)
#define M2  UINT64_C(0x200000)
#define GiB UINT64_C(0x40000000)
#define NX  (UINT64_C(1) << 63)

static void x86_long(bool five)
{
	struct guest_paging p = {
		.arch = GUEST_X86,
		.gpa_bits = 40,
		.x86 = {.cr0 = UINT64_C(0x80010001),
			.cr3 = 0x1000,
			.cr4 = five ? 0x1020 : 0x20,
			.efer = 0xd01},
	};
	/* indices 300, 3, 4, 5: in the upper half (of 48 bits) */
	uint64_t va = UINT64_C(300) << 39 | 3 * GiB | 4 * M2 | 5 * K4 | 0x123;

	memset(ram, 0, sizeof(ram));
	va |= five ? UINT64_C(511) << 48 | UINT64_C(0xfe) << 56 : UINT64_C(0xffff) << 48;
	if (five) {
		p.x86.cr3 = 0x6000 | 0x18; /* PWT, PCD */
		put64(0x6000, 256 + (va >> 48 & 255), 0x1000 | 0x67);
		va = (uint64_t)((int64_t)(va << 7) >> 7);
		put64(0x6000, va >> 48 & 511, 0x1000 | 0x67);
	}
	put64(0x1000, 300, 0x2000 | 0x67);
	put64(0x2000, 3, 0x3000 | 0x67);
	put64(0x2000, 6, 5 * GiB | 0xe7); /* 1 GiB */
	put64(0x3000, 4, 0x4000 | 0x67);
	put64(0x3000, 8, (7 * M2) | 0x1083 | NX); /* 2 MiB, PAT, no execute, kernel only */
	put64(0x4000, 5, UINT64_C(0x1234567000) | 0x65);
	MAPS(&p, va, UINT64_C(0x1234567123), K4, R | X, R | X);
	CHECK(x.levels == (five ? 5 : 4) && x.steps == x.levels && x.accessed && x.dirty &&
		      x.step[x.steps - 1].gpa == 0x4028 && x.step[x.steps - 1].level == 1,
	      "steps");
	MAPS(&p, va + 3 * GiB, 5 * GiB + (va & (GiB - 1)), GiB, R | W | X, R | W | X);
	MAPS(&p, va + 4 * M2, 7 * M2 + (va & (M2 - 1)), M2, R | W, 0);
	REFUSES(&p, va + K4, GUEST_NOT_PRESENT);
	REFUSES(&p, va ^ UINT64_C(1) << 60, GUEST_NOT_CANONICAL);
	put64(0x4000, 5, UINT64_C(0x1234567000) | 0xe7); /* bit 7 of a small page is its PAT */
	MAPS(&p, va, UINT64_C(0x1234567123), K4, R | W | X, R | W | X);
	put64(0x4000, 5, UINT64_C(1) << 40 | 0x67);
	REFUSES(&p, va, GUEST_RESERVED);
	put64(0x4000, 5, 0x67 | NX);
	p.x86.efer &= ~UINT64_C(0x800);
	REFUSES(&p, va, GUEST_RESERVED);
	put64(0x3000, 4, (7 * M2) | 0x2083); /* a reserved address bit */
	REFUSES(&p, va, GUEST_RESERVED);
	put64(0x1000, 300, 0x2000 | 0xe7); /* PS in a level-4 entry */
	REFUSES(&p, va, GUEST_RESERVED);
	put64(0x1000, 300, MEMORY | 0x67); /* out of memory */
	REFUSES(&p, va, GUEST_NO_MEMORY);
	put64(0x1000, 300, 0x1000 | 0x67); /* loops: ends with the levels */
	loads = 0;
	walk(&p, va);
	CHECK(loads <= 5, "%u", loads);
	p.x86.cr4 = 0;
	REFUSES(&p, va, GUEST_BAD_ROOT);
	p.x86.cr0 = 1;
	MAPS(&p, 0x12345, 0x12345, 0, R | W | X, R | W | X);
}

static void x86_small(void)
{
	struct guest_paging p = {.arch = GUEST_X86,
				 .gpa_bits = 40,
				 .x86 = {.cr0 = 0x80000001, .cr3 = 0x1000, .cr4 = 0x10}};

	memset(ram, 0, sizeof(ram));
	put32(0x1000, 3, 0x2000 | 7);
	put32(0x2000, 1023, 0x87654000 | 5);
	put32(0x1000, 9, 0x12400000 | 0xab << 13 | 0x87); /* 4 MiB, bits 39:32 */
	MAPS(&p, 0xfff123, 0x87654123, K4, R | X, R | X);
	MAPS(&p, 0x2512345, UINT64_C(0xab12400000) | 0x112345, UINT64_C(1) << 22, R | W | X,
	     R | W | X);
	REFUSES(&p, UINT64_C(1) << 32, GUEST_NOT_CANONICAL);
	/* bit 7 of a small page is its PAT, not PS, with CR4.PSE, too */
	put32(0x2000, 1022, 0x345087);
	MAPS(&p, 0xffe123, 0x345123, K4, R | W | X, R | W | X);
	CHECK(x.step[1].value == 0x345087, "shown as it is");
	put32(0x1000, 9, 0x12600000 | 0x87);
	REFUSES(&p, 0x2512345, GUEST_RESERVED);
	p.x86.cr4 = 0; /* no PSE: the same is a table */
	put32(0x1000, 9, 0x2000 | 0x87);
	MAPS(&p, 0x27ff456, 0x87654456, K4, R | X, R | X);
	MAPS(&p, 0x27fe123, 0x345123, K4, R | W | X, R | W | X);

	p.x86.cr4 = 0x20; /* PAE */
	p.x86.efer = 0x800;
	p.x86.cr3 = 0x3020;
	memset(ram, 0, sizeof(ram));
	put64(0x3020, 2, 0x4000 | 1);
	put64(0x4000, 5, 0x5000 | 7);
	put64(0x4000, 6, UINT64_C(0x1200200000) | 0x85 | NX);
	put64(0x5000, 7, UINT64_C(0xfedcba9000) | 3);
	put64(0x5000, 8, UINT64_C(0xfed5745000) | 0x83); /* PAT */
	MAPS(&p, 2 * GiB + 5 * M2 + 7 * K4 + 9, UINT64_C(0xfedcba9009), K4, R | W | X, 0);
	MAPS(&p, 2 * GiB + 5 * M2 + 8 * K4 + 9, UINT64_C(0xfed5745009), K4, R | W | X, 0);
	MAPS(&p, 2 * GiB + 6 * M2 + 7, UINT64_C(0x1200200007), M2, R, R);
	put64(0x3020, 2, 0x4000 | 3);
	REFUSES(&p, 2 * GiB, GUEST_RESERVED);
	REFUSES(&p, GiB, GUEST_NOT_PRESENT);
}

static void arm(void)
{
	/* 48 bits both, 4K both, EL1 on; IPS 48 bits */
	struct guest_paging p = {
		.arch = GUEST_ARM64,
		.arm64 = {.sctlr = 1,
			  .tcr = 16 | 16 << 16 | UINT64_C(2) << 30 | UINT64_C(5) << 32,
			  .ttbr0 = 0x1000 | UINT64_C(7) << 48 | 1,
			  .ttbr1 = 0x2000},
	};
	const uint64_t high = UINT64_C(0xffff) << 48;

	memset(ram, 0, sizeof(ram));
	put64(0x1000, 1, 0x3000 | 3);
	put64(0x2000, 511, 0x3000 | 3 | UINT64_C(1) << 62 | UINT64_C(1) << 60);
	put64(0x3000, 2, GiB * 3 | 0x401); /* block of 1 GiB, kernel, RWX */
	put64(0x3000, 3, 0x4000 | 3);
	put64(0x4000, 4, 0x5000 | 3);
	put64(0x4000, 5, M2 * 9 | 0x4c1 | UINT64_C(3) << 53); /* RO for both, nobody executes */
	put64(0x5000, 5, 0xabcde000 | 0x443);		      /* both write and execute */
	put64(0x5000, 6, 0xabcde000 | 0x441);		      /* no page at the last level */
	MAPS(&p, UINT64_C(1) << 39 | 2 * GiB | 5, 3 * GiB + 5, GiB, R | W | X, X);
	/* what users write, the kernel does not execute */
	MAPS(&p, UINT64_C(1) << 39 | 3 * GiB | 4 * M2 | 5 * K4 | 6, 0xabcde006, K4, R | W,
	     R | W | X);
	MAPS(&p, UINT64_C(1) << 39 | 3 * GiB | 5 * M2 | 6, M2 * 9 + 6, M2, R, R);
	/* through TTBR1: its table takes W from both and X from users */
	MAPS(&p, high | UINT64_C(511) << 39 | 3 * GiB | 4 * M2 | 5 * K4, 0xabcde000, K4, R | X, R);
	/* APTable[0] takes reading and writing from users, and leaves executing to UXN */
	put64(0x1000, 1, 0x3000 | 3 | UINT64_C(1) << 61);
	MAPS(&p, UINT64_C(1) << 39 | 3 * GiB | 4 * M2 | 5 * K4, 0xabcde000, K4, R | W | X, X);
	put64(0x1000, 1, 0x3000 | 3);
	REFUSES(&p, UINT64_C(1) << 39 | 3 * GiB | 4 * M2 | 6 * K4, GUEST_RESERVED);
	REFUSES(&p, UINT64_C(1) << 50, GUEST_NOT_CANONICAL);
	REFUSES(&p, UINT64_C(2) << 39, GUEST_NOT_PRESENT);
	put64(0x1000, 1, 0x3000 | 1); /* a block of 512 GiB needs LPA2 */
	REFUSES(&p, UINT64_C(1) << 39, GUEST_RESERVED);
	p.arm64.tcr |= UINT64_C(1) << 37; /* TBI */
	put64(0x1000, 1, 0x3000 | 3);
	MAPS(&p, UINT64_C(0xab) << 56 | UINT64_C(1) << 39 | 2 * GiB, 3 * GiB, GiB, R | W | X, X);
	p.arm64.tcr |= 1 << 7; /* EPD0 */
	REFUSES(&p, UINT64_C(1) << 39, GUEST_NOT_PRESENT);

	/* 64K, 42 bits: two levels; and 16K, 47 bits: three */
	p.arm64.tcr = 22 | 1 << 14 | UINT64_C(5) << 32;
	p.arm64.ttbr0 = 0x10000;
	memset(ram, 0, sizeof(ram));
	put64(0x10000, 8191, 0x20000 | 3);
	put64(0x20000, 1, UINT64_C(0x123456780000) | 0x443);
	MAPS(&p, UINT64_C(8191) << 29 | 0x12345, UINT64_C(0x123456782345), 0x10000, R | W,
	     R | W | X);
	CHECK(x.levels == 2, "%u", x.levels);
	p.arm64.tcr = 17 | 2 << 14 | UINT64_C(5) << 32;
	put64(0x10000, 2047, 0x17000 | 3); /* bits 13:12 are not looked at */
	put64(0x14000, 3, (UINT64_C(5) << 25) | 0x401);
	MAPS(&p, UINT64_C(2047) << 36 | UINT64_C(3) << 25 | 9, (UINT64_C(5) << 25) + 9,
	     UINT64_C(1) << 25, R | W | X, X);

	/* LPA2: 52 bits, five levels of 4K */
	p.arm64.tcr = 12 | UINT64_C(6) << 32 | UINT64_C(1) << 59;
	p.arm64.ttbr0 = 0x1000;
	memset(ram, 0, sizeof(ram));
	put64(0x1000, 15, 0x2000 | 3);
	put64(0x2000, 1, (UINT64_C(1) << 39) | 0x401 | 2 << 8); /* 512 GiB, bit 51 */
	MAPS(&p, UINT64_C(15) << 48 | UINT64_C(1) << 39 | 7,
	     UINT64_C(1) << 51 | UINT64_C(1) << 39 | 7, UINT64_C(1) << 39, R | W | X, X);
	p.arm64.sctlr = 0;
	MAPS(&p, 77, 77, 0, R | W | X, R | W | X);
}

static void riscv(unsigned levels)
{
	struct guest_paging p = {.arch = GUEST_RISCV64,
				 .riscv.satp =
					 (uint64_t)(levels + 5) << 60 | UINT64_C(9) << 44 | 1};
	uint64_t va = UINT64_C(3) << (12 + 9 * (levels - 1)), table = 0x1000;

	memset(ram, 0, sizeof(ram));
	put64(table, 511, (UINT64_C(5) << (12 + 9 * (levels - 1))) >> 2 | 0xdf); /* user, RWX */
	put64(table, 510, 0xdf | 1 << 10);					 /* misaligned */
	for (unsigned level = levels; level > 1; level--, table += K4)
		put64(table, level == levels ? 3 : 0, (table + K4) >> 2 | 1);
	put64(table, 1, 0x12345000 >> 2 | 0xcb);	 /* kernel, R X */
	put64(table, 2, 0x12345000 >> 2 | 0x5);		 /* W without R */
	put64(table, 3, 0x12345000 >> 2 | 1);		 /* a table at the last level */
	put64(table, 21, (0x12348000 >> 2) | 0xd7 | NX); /* one of 16: NAPOT, user, R W */
	MAPS(&p, va + K4 + 5, 0x12345005, K4, R | X, 0);
	MAPS(&p, va + 21 * K4 + 5, 0x12340000 + 5 * K4 + 5, 16 * K4, R | W, R | W);
	REFUSES(&p, va + 2 * K4, GUEST_RESERVED);
	REFUSES(&p, va + 3 * K4, GUEST_RESERVED);
	REFUSES(&p, va + 4 * K4, GUEST_NOT_PRESENT);
	va = ~UINT64_C(0) << (12 + 9 * (levels - 1));
	MAPS(&p, va + 9, (UINT64_C(5) << (12 + 9 * (levels - 1))) + 9,
	     UINT64_C(1) << (12 + 9 * (levels - 1)), R | W, R | W | X);
	REFUSES(&p, va - 9, GUEST_RESERVED);
	REFUSES(&p, UINT64_C(1) << (11 + 9 * levels), GUEST_NOT_CANONICAL);
	p.riscv.satp = UINT64_C(3) << 60;
	REFUSES(&p, va, GUEST_BAD_ROOT);
	p.riscv.satp = 0;
	MAPS(&p, va, va, 0, R | W | X, R | W | X);
}

/* Anything in memory and in registers: it ends, within memory and within the levels. */
static void random_tables(uint64_t *seed, int rounds)
{
	for (int i = 0; i < rounds; i++) {
		struct guest_paging p = {.arch = (enum guest_arch)(test_random(seed) % 3)};
		uint64_t *words = (uint64_t *)(void *)ram;

		if (i % 64 == 0) {
			for (size_t w = 0; w < MEMORY / 8; w++)
				words[w] = test_random(seed) &
					   (test_random(seed) % 2 ? UINT64_C(0xff0ff) : UINT64_MAX);
		}
		p.gpa_bits = test_random(seed) % 2 ? 0 : 32 + (unsigned)(test_random(seed) % 21);
		p.x86.cr0 = test_random(seed) | UINT64_C(1) << 31;
		p.x86.cr3 = test_random(seed) & 0xff0ff;
		p.x86.cr4 = test_random(seed);
		p.x86.efer = test_random(seed);
		if (p.arch == GUEST_RISCV64)
			p.riscv.satp = (8 + test_random(seed) % 3) << 60 | test_random(seed) % 256;
		for (int n = 0; n < 16; n++) {
			uint64_t va =
				(uint64_t)((int64_t)test_random(seed) >> (test_random(seed) % 60));

			loads = 0;
			walk(&p, va);
			CHECK(loads <= GUEST_MAX_LEVELS && x.steps <= loads, "%u loads", loads);
		}
	}
}

int main(int argc, char **argv)
{
	uint64_t seed = test_seed(argc, argv);

	x86_long(false);
	x86_long(true);
	x86_small();
	arm();
	for (unsigned levels = 3; levels <= 5; levels++)
		riscv(levels);
	random_tables(&seed, test_scale(3000));
	return test_result("guest");
}
