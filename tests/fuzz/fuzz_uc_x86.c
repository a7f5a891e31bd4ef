/*
 * A hostile guest on the patched Unicorn: random instructions in every mode, random tables, control
 * registers and debug registers, and a second stage that says RAM, read-only, MMIO or "not there"
 * as it likes. Whatever the guest does, the process lives, every run ends in an exit, none of them
 * is ERROR, and a state that was taken is a state that is accepted.
 *
 * An input is a seed (all of its bytes, hashed) and machine code (its bytes from the ninth on,
 * mixed into what the seed generates). The address of the kicks is the one thing that is not
 * reproduced: they come from a thread, so that an endless loop of the guest is an exit like any
 * other.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <unicorn/unicorn.h>
#include <unicorn/vcpu.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum {
	PAGE = 4096,
	RAM = 1 << 20,
	PAGES = RAM / PAGE,
	PML4 = 0x1000,
	PDPT = 0x2000,
	PD = 0x3000,
	PT = 0x4000,
	PD32 = 0x5000,
	GDT = 0x6000,
	IDT = 0x8000,
	TSS = 0xa000,
	CODE = 0x10000,
	CODE_SIZE = 0x3000,
	DATA = 0x20000,
	STACK = 0x30000,
	EXITS = 24,	   /* per input */
	ENGINE_LIFE = 200, /* inputs; then it is closed, with whatever it holds */
};
enum mode { LONG64, COMPAT32, COMPAT16, PROT32, PROT16, PAE32, REAL16, VM86, MODES };
enum policy { RAM_RW, RAM_RO, MISSING, MMIO };

static uint8_t *ram;
static uc_engine *uc;
static bool kicking;
static uint8_t policy[PAGES];
static uint64_t rng;
static uint64_t inputs, refused, exits_by[8];
static const uint8_t *raw;
static size_t raw_len;

static uint64_t rnd(void)
{
	uint64_t z = rng += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static unsigned below(unsigned n)
{
	return (unsigned)(rnd() % n);
}

static bool one_in(unsigned n)
{
	return below(n) == 0;
}

/* A value for a register: an edge, an address of something, noise. */
static uint64_t value(void)
{
	static const uint64_t edges[] = {0,
					 1,
					 2,
					 15,
					 16,
					 31,
					 32,
					 63,
					 64,
					 0x7f,
					 0x80,
					 0xff,
					 0x7fff,
					 0x8000,
					 0xffff,
					 0x7fffffff,
					 0x80000000,
					 0xffffffff,
					 0x100000000,
					 0x7fffffffffff,
					 0x800000000000,
					 0xffff7fffffffffff,
					 0xffff800000000000,
					 0x7fffffffffffffff,
					 0x8000000000000000,
					 0xffffffffffffffff,
					 0xffffffff80000000,
					 0xfffffffffffffff0};

	switch (below(4)) {
	case 0: return edges[below(sizeof(edges) / sizeof(edges[0]))];
	case 1: return rnd() >> below(64);
	default: return below(RAM) - (one_in(8) ? below(64) : 0);
	}
}

/* --- callbacks --- */

static int op_translate(void *opaque, uint64_t gpa, uint64_t gva, uint32_t access, uint32_t walk,
			uc_vcpu_xlat *out)
{
	(void)opaque, (void)gva, (void)walk;
	if (gpa >= RAM)
		return gpa & 0x1000 ? UC_VCPU_XLAT_MMIO : UC_VCPU_XLAT_FAULT;
	out->hpa = gpa;
	switch (policy[gpa / PAGE]) {
	case RAM_RO:
		if (access & UC_VCPU_WRITE)
			return UC_VCPU_XLAT_FAULT;
		out->prot = UC_PROT_READ | UC_PROT_EXEC;
		return UC_VCPU_XLAT_RAM;
	case MISSING: return UC_VCPU_XLAT_FAULT;
	case MMIO: return UC_VCPU_XLAT_MMIO;
	default: out->prot = UC_PROT_ALL; return UC_VCPU_XLAT_RAM;
	}
}

static uint64_t op_mmio_read(void *opaque, uint64_t gpa, unsigned size)
{
	(void)opaque, (void)gpa, (void)size;
	return value();
}

static void op_mmio_write(void *opaque, uint64_t gpa, unsigned size, uint64_t v)
{
	(void)opaque, (void)gpa, (void)size, (void)v;
}

static uint32_t op_pio_read(void *opaque, uint16_t port, unsigned size)
{
	(void)opaque, (void)port, (void)size;
	return (uint32_t)value();
}

static void op_pio_write(void *opaque, uint16_t port, unsigned size, uint32_t v)
{
	uc_x86_vcpu_state s;

	(void)opaque, (void)port, (void)size, (void)v;
	if (one_in(4)) /* a callback may look */
		uc_x86_vcpu_get_state(uc, &s);
}

static int op_irq_ack(void *opaque)
{
	(void)opaque;
	uc_vcpu_set_irq(uc, false);
	return one_in(8) ? -1 : (int)below(256);
}

static uint64_t op_tsc(void *opaque)
{
	(void)opaque;
	return rnd();
}

static int op_rdmsr(void *opaque, uint32_t msr, uint64_t *v)
{
	(void)opaque;
	if ((msr & 7) == 7) {
		*v = rnd();
		return 0;
	}
	return msr & 0x20 ? 1 : (int)below(2) + 1;
}

static int op_wrmsr(void *opaque, uint32_t msr, uint64_t v)
{
	(void)opaque, (void)v;
	return (msr & 7) == 7 ? 0 : 1;
}

static void op_cpuid(void *opaque, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	(void)opaque, (void)subleaf;
	memset(out, 0, 16);
	switch (leaf) {
	case 0:
		out[0] = 13, memcpy(&out[1], "Genu", 4), memcpy(&out[3], "ineI", 4),
		memcpy(&out[2], "ntel", 4);
		break;
	case 1: out[2] = 0x04d82201, out[3] = 0x0783fbff; break;
	case 7: out[1] = 1 | 1 << 3 | 1 << 7 | 1 << 8 | 1 << 20; break;
	case 0xd: out[0] = 3; break;
	case 0x80000001: out[3] = 1 << 11 | 1 << 20 | 1 << 27 | 1 << 29; break;
	}
}

static uint64_t op_cr8_read(void *opaque)
{
	(void)opaque;
	return below(16);
}

static void op_cr8_write(void *opaque, uint64_t v)
{
	(void)opaque, (void)v;
}

static const uc_vcpu_ops ops = {op_translate, op_mmio_read, op_mmio_write, op_pio_read,
				op_pio_write, op_irq_ack,   op_tsc,	   op_rdmsr,
				op_wrmsr,     op_cpuid,	    op_cr8_read,   op_cr8_write};

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

/* --- state --- */

static uc_x86_vcpu_seg segment(uint16_t selector, unsigned attr, uint64_t base, uint32_t limit)
{
	return (uc_x86_vcpu_seg){base, limit, selector, (uint16_t)attr};
}

static void random_state(uc_x86_vcpu_state *s, enum mode mode)
{
	const unsigned cpl = mode == VM86     ? 3
			     : mode == REAL16 ? 0
			     : one_in(2)      ? 0
			     : one_in(6)      ? below(4)
					      : 3;
	const bool wide = mode <= COMPAT16, small = mode == REAL16 || mode == VM86;
	static const unsigned code[MODES] = {0xa9b, 0xc9b, 0x89b, 0xc9b,
					     0x89b, 0xc9b, 0x09b, 0x0fb};
	unsigned i;

	memset(s, 0, sizeof(*s));
	for (i = 0; i < 16; i++)
		s->gpr[i] = wide ? value() : (uint32_t)value();
	if (!one_in(6))
		s->gpr[4] = small ? 0x7000 : STACK + 0x4000 + (one_in(4) ? below(16) : 0);
	s->rip = one_in(3) ? below(CODE_SIZE) : 0;
	if (!small)
		s->rip += CODE;
	s->rflags = 2 | (rnd() & 0x3f7fd7 & (one_in(3) ? ~UINT64_C(0) : 0xcd5));
	s->rflags &= ~UINT64_C(0x20100);
	if (one_in(8))
		s->rflags |= 0x100;
	if (mode == VM86)
		s->rflags |= 0x20000;
	for (i = 0; i < 6; i++)
		s->seg[i] = small ? segment(DATA >> 4, mode == VM86 ? 0xf3 : 0x93, DATA, 0xffff)
				  : segment((uint16_t)(0x10 | cpl), 0xc93 | cpl << 5,
					    one_in(16) ? value() & 0xffffff : 0, 0xffffffff);
	if (small)
		s->seg[2] = segment(STACK >> 4, mode == VM86 ? 0xf3 : 0x93, STACK, 0xffff);
	s->seg[1] = small ? segment(CODE >> 4, code[mode], CODE, 0xffff)
			  : segment((uint16_t)((wide ? 8 : 0x18) | cpl), code[mode] | cpl << 5, 0,
				    0xffffffff);
	if (small && one_in(4)) /* "unreal" */
		s->seg[3] = segment(0, mode == VM86 ? 0xf3 : 0x893, 0, 0xffffffff);
	s->tr = one_in(6)
			? segment(0x38, 1 << 12, 0, 0)
			: segment(0x40,
				  0x80 | (one_in(4) && !wide ? 1 + below(2) * 2 : 9 + below(2) * 2),
				  TSS, one_in(4) ? below(0x100) : 0x1ff);
	s->ldt = one_in(2) ? segment(0, 1 << 12, 0, 0) : segment(0x70, 0x82, GDT, below(0x400));
	s->gdt_base = one_in(20) ? value() & 0xfffff : GDT;
	s->gdt_limit = (uint16_t)(one_in(8) ? below(0x200) : 0x1ff);
	s->idt_base = one_in(20) ? value() & 0xfffff : IDT;
	s->idt_limit = (uint16_t)(one_in(8) ? below(0x1000) : 0xfff);
	s->cr0 = 0x30 | (one_in(3) ? 0 : 2);
	s->cr0 |= mode == REAL16 ? 0 : 0x80000001 | (one_in(2) ? 0x10000 : 0);
	if ((mode == PROT32 || mode == PROT16) && one_in(3))
		s->cr0 &= ~UINT64_C(0x80000000);
	if (one_in(6))
		s->cr0 ^= 1u << (1 + below(3)); /* MP EM TS */
	if (one_in(6))
		s->cr0 ^= 0x20; /* NE */
	s->cr2 = value();
	s->cr3 = wide ? PML4 : mode == PAE32 ? PDPT : PD32;
	s->cr4 = (one_in(8) ? 0 : 0x600) | 0x10 | (wide || mode == PAE32 ? 0x20 : 0);
	s->cr4 |= rnd() & (0x40000 | 0x100 | 0x80 | 8 | 4);
	if (one_in(8))
		s->cr4 |= rnd() & 0x310000;
	s->efer = (wide ? 0x500 : 0) | (one_in(4) ? 0 : 0x800) | (one_in(4) ? 0 : 1);
	s->xcr0 = one_in(2) ? 3 : 1;
	for (i = 0; i < 4; i++)
		s->dr[i] = one_in(2) ? CODE + below(256) : value();
	s->dr[6] = 0xffff0ff0;
	s->dr[7] = 0x400 | (one_in(3) ? rnd() & 0xffff23ff : 0);
	s->star = rnd() & 0x0078007800000000;
	s->lstar = CODE + below(CODE_SIZE);
	s->cstar = CODE + below(CODE_SIZE);
	s->fmask = rnd() & 0x47700;
	s->kernel_gs_base = DATA;
	s->sysenter_cs = one_in(4) ? 0 : 8;
	s->sysenter_esp = STACK;
	s->sysenter_eip = CODE + below(CODE_SIZE);
	s->pat = 0x0007040600070406;
	s->fxsave[0] = one_in(3) ? (uint8_t)rnd() & 0x3f : 0x7f;
	s->fxsave[1] = one_in(3) ? (uint8_t)below(16) : 3;
	s->fxsave[2] = one_in(4) ? (uint8_t)rnd() : 0;
	s->fxsave[3] = one_in(4) ? (uint8_t)rnd() : 0;
	s->fxsave[4] = (uint8_t)rnd();
	s->fxsave[24] = one_in(3) ? (uint8_t)rnd() : 0x80;
	s->fxsave[25] = one_in(3) ? (uint8_t)rnd() : 0x1f;
	for (i = 32; i < 416; i++)
		s->fxsave[i] = one_in(3) ? (uint8_t)rnd() : one_in(2) ? 0xff : 0;
	s->interrupt_shadow = one_in(16);
	s->halted = one_in(50);
	s->irq_line = one_in(3);
	s->nmi_pending = one_in(20);
	if (one_in(10)) {
		static const uint32_t types[] = {0, 2, 3, 4, 6};

		s->pending_valid = 1;
		s->pending_type = types[below(5)];
		s->pending_vector = s->pending_type == 2   ? 2
				    : s->pending_type == 3 ? below(20)
				    : s->pending_type == 6 ? 3 + below(2)
							   : below(256);
		s->pending_error = (uint32_t)below(0x10000);
		s->pending_has_error = one_in(2);
		s->pending_insn_len = below(4);
	}
}

/* --- runs --- */

static void *kicker(void *arg)
{
	(void)arg;
	for (;;) {
		uc_engine *e;

		usleep(500);
		e = __atomic_load_n(&uc, __ATOMIC_ACQUIRE);
		if (e && __atomic_load_n(&kicking, __ATOMIC_ACQUIRE))
			uc_vcpu_kick(e);
	}
	return NULL;
}

static void die(const char *what, const char *text)
{
	fprintf(stderr, "fuzz_uc_x86: %s: %s\n", what, text ? text : "");
	abort();
}

/* The engine reported a state that it does not take back: one that hardware is never in. */
static void die_of_state(const uc_x86_vcpu_state *s)
{
	char text[768];

	snprintf(text, sizeof(text),
		 "cr0 %llx cr3 %llx cr4 %llx efer %llx xcr0 %llx rflags %llx dr6 %llx dr7 %llx gdt "
		 "%llx idt %llx "
		 "ldt %llx/%x tr %llx/%x fs %llx gs %llx kgs %llx cs %x lstar %llx cstar %llx esp "
		 "%llx eip %llx "
		 "event %u type %u vector %u length %u",
		 (unsigned long long)s->cr0, (unsigned long long)s->cr3, (unsigned long long)s->cr4,
		 (unsigned long long)s->efer, (unsigned long long)s->xcr0,
		 (unsigned long long)s->rflags, (unsigned long long)s->dr[6],
		 (unsigned long long)s->dr[7], (unsigned long long)s->gdt_base,
		 (unsigned long long)s->idt_base, (unsigned long long)s->ldt.base, s->ldt.attr,
		 (unsigned long long)s->tr.base, s->tr.attr, (unsigned long long)s->seg[4].base,
		 (unsigned long long)s->seg[5].base, (unsigned long long)s->kernel_gs_base,
		 s->seg[1].attr, (unsigned long long)s->lstar, (unsigned long long)s->cstar,
		 (unsigned long long)s->sysenter_esp, (unsigned long long)s->sysenter_eip,
		 s->pending_valid, s->pending_type, s->pending_vector, s->pending_insn_len);
	die("its own state was refused", text);
}

static void open_engine(void)
{
	uc_engine *e;

	if (uc_open(UC_ARCH_X86, UC_MODE_64, &e) || uc_mem_map_ptr(e, 0, RAM, UC_PROT_ALL, ram) ||
	    uc_vcpu_enable(e, &ops, NULL, 1 << 20, one_in(2)))
		die("no engine", NULL);
	__atomic_store_n(&uc, e, __ATOMIC_RELEASE);
}

static void close_engine(void)
{
	uc_engine *e = uc;

	__atomic_store_n(&kicking, false, __ATOMIC_RELEASE);
	__atomic_store_n(&uc, NULL, __ATOMIC_RELEASE);
	usleep(2000); /* the kicker has let go of it */
	uc_close(e);
}

static void report(void)
{
	printf("fuzz_uc_x86: %llu inputs, %llu states refused; exits: kick %llu, halt %llu, "
	       "shutdown %llu, fault %llu, atomic %llu, step %llu\n",
	       (unsigned long long)inputs, (unsigned long long)refused,
	       (unsigned long long)exits_by[0], (unsigned long long)exits_by[1],
	       (unsigned long long)exits_by[2], (unsigned long long)exits_by[3],
	       (unsigned long long)exits_by[4], (unsigned long long)exits_by[5]);
}

static void once(void)
{
	pthread_t t;

	if (ram)
		return;
	ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (ram == MAP_FAILED || pthread_create(&t, NULL, kicker, NULL))
		die("no memory", NULL);
	atexit(report);
}

/* What the owner may do between two runs. Returns false when this guest is done. */
static bool between(const uc_vcpu_run_info *info)
{
	uc_x86_vcpu_state s;

	switch (info->reason) {
	case UC_VCPU_EXIT_FAULT:
		if (info->fault.gpa < RAM) {
			policy[info->fault.gpa / PAGE] = RAM_RW;
			uc_vcpu_flush_hpa(uc, info->fault.gpa & ~UINT64_C(4095), PAGE);
		} else if (one_in(2)) {
			return false;
		}
		break;
	case UC_VCPU_EXIT_HLT:
		uc_vcpu_set_irq(uc, true);
		if (one_in(4))
			uc_vcpu_nmi(uc);
		break;
	case UC_VCPU_EXIT_SHUTDOWN: return false;
	default: break;
	}
	switch (below(12)) {
	case 0: uc_vcpu_flush_tlb(uc); break;
	case 1: uc_vcpu_invalidate_code(uc, below(RAM), below(3 * PAGE)); break;
	case 2: uc_vcpu_set_irq(uc, one_in(2)); break;
	case 3: /* a page goes away or becomes read-only */
		policy[below(PAGES)] = (uint8_t)below(4);
		uc_vcpu_flush_tlb(uc);
		break;
	case 4:
	case 5:
		if (uc_x86_vcpu_get_state(uc, &s) || uc_x86_vcpu_set_state(uc, &s))
			die_of_state(&s);
		break;
	}
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	uc_x86_vcpu_state s;
	uc_vcpu_run_info info;
	enum mode mode;
	int kicks = 0;

	once();
	rng = 0xcbf29ce484222325;
	for (size_t i = 0; i < len; i++)
		rng = (rng ^ data[i]) * 0x100000001b3;
	raw = len > 8 ? data + 8 : NULL;
	raw_len = len > 8 ? len - 8 : 0;
	if (uc && inputs % ENGINE_LIFE == 0)
		close_engine();
	if (!uc)
		open_engine();
	inputs++;

	mode = (enum mode)below(MODES);
	tables(mode);
	program(mode);
	uc_vcpu_flush_tlb(uc);
	uc_vcpu_invalidate_code(uc, 0, RAM);
	random_state(&s, mode);
	if (uc_x86_vcpu_set_state(uc, &s)) {
		refused++;
		return 0;
	}
	__atomic_store_n(&kicking, true, __ATOMIC_RELEASE);
	memset(&info, 0, sizeof(info));
	for (int i = 0; i < EXITS && kicks < 3; i++) {
		uc_err e = info.reason == UC_VCPU_EXIT_ATOMIC ? uc_vcpu_step_exclusive(uc, &info)
			   : one_in(6)			      ? uc_vcpu_step(uc, &info)
							      : uc_vcpu_run(uc, &info);

		if (e)
			die("run", uc_strerror(e));
		if (info.reason == UC_VCPU_EXIT_ERROR)
			die("ERROR", info.error);
		exits_by[info.reason & 7]++;
		kicks += info.reason == UC_VCPU_EXIT_KICK;
		if (!between(&info))
			break;
	}
	__atomic_store_n(&kicking, false, __ATOMIC_RELEASE);
	return 0;
}
