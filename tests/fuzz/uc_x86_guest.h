/* The hostile guest's memory and code: page tables, descriptor tables and stacks, then instructions
 * of every kind, some of them random bytes. Included once. */
#ifndef TESTS_FUZZ_UC_X86_GUEST_H
#define TESTS_FUZZ_UC_X86_GUEST_H

#include <string.h>

#include "tests/fuzz/uc_x86_random.h"

/* --- memory --- */

static void st(uint64_t at, uint64_t v, size_t n)
{
	memcpy(ram + at % (RAM - 8), &v, n);
}

static void tables(enum mode mode)
{
	const bool wide = mode <= COMPAT16;
	uint64_t i;

	memset(ram, 0, RAM);
	st(PML4, PDPT | 7, 8);
	st(PML4 + 8 * 256, PDPT | 7, 8);
	st(PML4 + 8 * 511, PDPT | 7, 8);
	for (i = 0; i < 512; i++)
		st(PDPT + i * 8, mode == PAE32 ? PD | 1 : PD | 7, 8);
	for (i = 0; i < 512; i++)
		st(PD + i * 8, one_in(3) ? 0x87 : PT | 7, 8);
	st(PD, PT | 7, 8);
	for (i = 0; i < 512; i++) {
		uint64_t pte = (i % PAGES) << 12 | 7;

		if (one_in(24) && i > 16 && i != CODE >> 12)
			pte = one_in(2) ? rnd() : pte ^ UINT64_C(1) << below(13);
		st(PT + i * 8, pte, 8);
	}
	for (i = 0; i < 1024; i++)
		st(PD32 + i * 4, one_in(3) ? 0x87 : 0x87 ^ (one_in(20) ? 1u << below(8) : 0), 4);
	for (i = 1; i < 64; i++) { /* segments, gates, TSSs, noise */
		static const uint64_t good[] = {
			0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff,
			0x008f9b000000ffff, 0x00cff3000000ffff, 0x00affb000000ffff,
			0x00cffb000000ffff, 0x0000890a00000067, 0x00008c0000080000,
			0x0000ec00000800ff, 0x0000850000380000, 0x0000810a00000067,
			0x0000e50000380000, 0x000082060000ffff, 0x00008b0a00000067,
			0x0000000000000000,
		};
		uint64_t d = good[i < 16 ? i - 1 : below(16)];

		if (one_in(6))
			d ^= UINT64_C(1) << below(64);
		if (one_in(24))
			d = rnd();
		st(GDT + i * 8, d, 8);
	}
	for (i = 0; i < 256; i++) {
		const uint64_t to = CODE + below(CODE_SIZE);
		uint64_t g = (to & 0xffff) | (to >> 16 & 0xffff) << 48 | 0x8e0000000000 |
			     (uint64_t)(wide		 ? 8
					: mode == PROT16 ? 0x20
							 : 0x18)
				     << 16;

		g |= (uint64_t)(one_in(4) ? below(4) : 3) << 45 |
		     (uint64_t)(one_in(3) && wide ? below(8) : 0) << 32;
		if (one_in(3))
			g ^= UINT64_C(1) << 40; /* a trap gate */
		if (one_in(16))
			g = one_in(2) ? rnd() : g ^ UINT64_C(1) << below(64);
		if (one_in(16))
			g = 0x0000e50000400000;
		if (mode == REAL16)
			st(IDT + i * 4, (to & 0xf) | (to >> 4) << 16, 4);
		else if (wide)
			st(IDT + i * 16, g, 8);
		else
			st(IDT + i * 8, g, 8);
	}
	for (i = 0; i < 0x100; i += 4)
		st(TSS + i, one_in(4) ? rnd() : STACK + below(0x8000), 4);
	for (i = 0; i < 8; i++)
		st(TSS + 4 + i * 8, one_in(8) ? value() : STACK + below(0x8000), 8);
	if (!wide) {
		st(TSS + 8, 0x10, 4);
		st(TSS + 0x1c, PD32, 4);
		st(TSS + 0x4c, 0x18, 4);
		st(TSS + 0x50, 0x10, 4);
	}
	st(TSS + 0x66, below(0x200), 2);
	for (i = 0; i < 0x4000; i += 8)
		st(DATA + i, value(), 8);
	for (i = 0; i < 0x8000; i += 8)
		st(STACK + i,
		   one_in(3)   ? CODE + below(CODE_SIZE)
		   : one_in(3) ? below(0x80)
			       : value(),
		   8);
	for (i = 0; i < PAGES; i++)
		policy[i] = one_in(20) ? (uint8_t)below(4) : RAM_RW;
}

/* --- code --- */

static uint8_t *put(uint8_t *p, uint64_t v, unsigned n)
{
	memcpy(p, &v, n);
	return p + n;
}

static uint8_t *modrm(uint8_t *p, bool memory)
{
	uint8_t m = (uint8_t)rnd();

	if (memory && m >= 0xc0)
		m = (uint8_t)(m & 0x3f) | 0x40;
	*p++ = m;
	/* enough for SIB and displacement; if they are not eaten they are the next instruction */
	return put(p, one_in(3) ? value() : below(256), m < 0xc0 ? 1 + below(5) : 0);
}

static uint8_t *prefixes(uint8_t *p, enum mode mode)
{
	static const uint8_t list[] = {0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e,
				       0x36, 0x3e, 0x26, 0x64, 0x65, 0x66};

	while (one_in(3))
		*p++ = list[below(sizeof(list))];
	if (mode == LONG64 && one_in(2))
		*p++ = 0x40 | (uint8_t)below(16);
	return p;
}

/* One instruction, or what looks like one, of at most 32 bytes. */
static uint8_t *instruction(uint8_t *p, enum mode mode)
{
	static const uint8_t sse[] = {0, 0x66, 0xf2, 0xf3};
	static const uint32_t msrs[] = {
		0x10,	    0x1b,	0x174,	    0x175,	0x176,	    0x179,	0x17a,
		0x1a0,	    0x200,	0x20f,	    0x250,	0x277,	    0x2ff,	0x400,
		0x428,	    0xd90,	0xc0000080, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084,
		0xc0000100, 0xc0000101, 0xc0000102, 0xc0000103, 0xc0010117, 0x12345678};
	uint8_t *start = p;
	unsigned n;

	switch (below(24)) {
	case 0: /* noise, or what the input brought */
		for (n = 1 + below(12); n; n--)
			*p++ = raw_len && one_in(2) ? raw[below((unsigned)raw_len)]
						    : (uint8_t)rnd();
		break;
	case 1:
	case 2:
	case 3:
	case 4:
		p = prefixes(p, mode);
		*p++ = (uint8_t)rnd();
		p = modrm(p, one_in(2));
		break;
	case 5:
	case 6:
	case 7:
		p = prefixes(p, mode);
		*p++ = 0x0f;
		*p++ = (uint8_t)rnd();
		p = modrm(p, one_in(2));
		break;
	case 8:
	case 9:
		if ((*p = sse[below(4)]))
			p++;
		*p++ = 0x0f;
		*p++ = one_in(2) ? 0x38 : 0x3a;
		*p++ = (uint8_t)rnd();
		p = modrm(p, one_in(2));
		*p++ = (uint8_t)rnd();
		break;
	case 10:
	case 11:
		if ((*p = sse[below(4)]))
			p++;
		*p++ = 0x0f;
		*p++ = (uint8_t)(0x10 + below(0xf0));
		p = modrm(p, one_in(2));
		break;
	case 12: /* x87 */
		*p++ = 0xd8 + (uint8_t)below(8);
		p = modrm(p, one_in(3));
		break;
	case 13: /* VEX */
		*p++ = one_in(2) ? 0xc5 : 0xc4;
		if (p[-1] == 0xc4)
			*p++ = 0xe0 | (uint8_t)below(4);
		*p++ = (uint8_t)rnd();
		*p++ = one_in(2) ? 0xf0 + (uint8_t)below(8) : (uint8_t)rnd();
		p = modrm(p, one_in(2));
		break;
	case 14: /* control and debug registers */
		*p++ = 0x0f;
		*p++ = 0x20 + (uint8_t)below(4);
		*p++ = 0xc0 | (uint8_t)rnd();
		break;
	case 15: /* MSRs */
		*p++ = 0xb9;
		p = put(p,
			msrs[below(sizeof(msrs) / sizeof(msrs[0]))] + (one_in(4) ? below(16) : 0),
			4);
		*p++ = 0x0f;
		*p++ = one_in(2) ? 0x30 : 0x32;
		break;
	case 16: /* system tables and segments */
		*p++ = 0x0f;
		*p++ = (uint8_t)below(2);
		p = modrm(p, one_in(2));
		break;
	case 17: { /* transfers */
		static const uint8_t t[] = {0xcf, 0xcb, 0xca, 0xc3, 0xc2, 0xcd, 0xcc, 0xce, 0xf1,
					    0xf4, 0x9d, 0x9c, 0xfb, 0xfa, 0x17, 0x1f, 0xc8, 0xc9,
					    0xe8, 0xe9, 0xeb, 0xe2, 0xe3, 0x9a, 0xea};

		p = prefixes(p, mode);
		*p++ = t[below(sizeof(t))];
		p = put(p, one_in(2) ? below(64) : value(), below(7));
		break;
	}
	case 18: { /* system calls and their kin */
		static const uint16_t t[] = {0x050f, 0x070f, 0x340f, 0x350f, 0xa20f, 0x310f,
					     0x330f, 0xaa0f, 0x060f, 0x080f, 0x090f, 0xff0f};

		if (mode == LONG64 && one_in(2))
			*p++ = 0x48;
		p = put(p, t[below(sizeof(t) / sizeof(t[0]))], 2);
		break;
	}
	case 19: { /* strings and ports */
		static const uint8_t t[] = {0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac,
					    0xad, 0xae, 0xaf, 0x6c, 0x6d, 0x6e, 0x6f,
					    0xe4, 0xe5, 0xe6, 0xe7, 0xec, 0xef};

		*p++ = 0xb1; /* mov cl, imm: not for ever */
		*p++ = (uint8_t)below(40);
		p = prefixes(p, mode);
		*p++ = one_in(2) ? 0xf3 : 0xf2;
		*p++ = t[below(sizeof(t))];
		*p++ = (uint8_t)rnd();
		break;
	}
	case 20: { /* division by and of the edges */
		const uint32_t den = one_in(2) ? 0xffffffff : (uint32_t)value();

		*p++ = 0xba; /* mov edx */
		p = put(p, one_in(2) ? 0x80000000 : value(),
			mode == PROT16 || mode == REAL16 || mode == VM86 ? 2 : 4);
		*p++ = 0x31;
		*p++ = 0xc0; /* xor eax, eax */
		*p++ = 0xb9;
		p = put(p, den, mode == PROT16 || mode == REAL16 || mode == VM86 ? 2 : 4);
		if (mode == LONG64 && one_in(2))
			*p++ = 0x48;
		*p++ = 0xf6 | (uint8_t)below(2);
		*p++ = (uint8_t)(0xf1 | below(2) << 3); /* div, idiv ecx */
		break;
	}
	case 21: /* LOCK */
		*p++ = 0xf0;
		if (one_in(2))
			*p++ = 0x0f;
		*p++ = (uint8_t)rnd();
		p = modrm(p, one_in(2));
		break;
	case 22: /* a store into the code */
		*p++ = 0xc7;
		if (mode == REAL16 || mode == VM86 || mode == PROT16) {
			*p++ = 0x06;
			p = put(p, below(CODE_SIZE), 2);
			p = put(p, rnd(), 2);
		} else {
			*p++ = mode == LONG64 ? 0x04 : 0x05;
			if (mode == LONG64)
				*p++ = 0x25;
			p = put(p, CODE + below(CODE_SIZE), 4);
			p = put(p, rnd(), 4);
		}
		break;
	default: /* new values for the registers */
		if (mode == LONG64)
			*p++ = 0x48 | (uint8_t)below(2);
		*p++ = 0xb8 | (uint8_t)below(8);
		p = put(p, value(), mode == LONG64 ? 8 : 4);
		break;
	}
	return p - start > 32 ? start + 32 : p;
}

static void program(enum mode mode)
{
	uint8_t *p = ram + CODE, *end = ram + CODE + CODE_SIZE - 64, one[64];

	if (one_in(4)) { /* one instruction, again and again */
		size_t n = (size_t)(instruction(one, mode) - one);

		for (int i = 0; i < 600 && p + n < end; i++, p += n)
			memcpy(p, one, n);
	}
	while (p < end)
		p = instruction(p, mode);
}

#endif
