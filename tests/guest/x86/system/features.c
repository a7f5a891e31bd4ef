/* CPUID: consistent in itself, and with what the processor executes (SDM vol. 2 CPUID). */
#include "insn.h"
#include "system.h"

enum reg { EAX, EBX, ECX, EDX };

static u32 feature_word(u32 leaf, u32 sub, enum reg r)
{
	struct cpuid c;

	if (cpuid(leaf & 0x80000000, 0).a < leaf)
		return 0;
	c = cpuid(leaf, sub);
	return r == EAX ? c.a : r == EBX ? c.b : r == ECX ? c.c : c.d;
}

static bool has(u32 leaf, u32 sub, enum reg r, u32 bit)
{
	return feature_word(leaf, sub, r) >> bit & 1;
}

#define ALWAYS                                                                                     \
	1 /* an older meaning of the bytes executes where the feature is missing: not asked then   \
	   */

static const struct feature {
	const char *name;
	u32 leaf, sub;
	enum reg reg;
	u32 bit;
	const char *bytes;
	u32 len;
	u32 flags;
	u64 rax, rcx;
} features[] = {
	{"x87", 1, 0, EDX, 0, CODE("\xd9\xe8"), 0},
	{"TSC", 1, 0, EDX, 4, CODE("\x0f\x31"), 0},
	{"MSR", 1, 0, EDX, 5, CODE("\x0f\x32"), 0, 0, 0x10},
	{"CX8", 1, 0, EDX, 8, CODE("\x0f\xc7\x0e"), 0},
	{"CMOV", 1, 0, EDX, 15, CODE("\x0f\x44\xc1"), 0},
	{"CLFLUSH", 1, 0, EDX, 19, CODE("\x0f\xae\x3e"), 0},
	{"MMX", 1, 0, EDX, 23, CODE("\x0f\xfc\xc0"), 0},
	{"FXSR", 1, 0, EDX, 24, CODE("\x0f\xae\x06"), 0},
	{"SSE", 1, 0, EDX, 25, CODE("\x0f\x58\xc0"), 0},
	{"SSE2", 1, 0, EDX, 26, CODE("\x66\x0f\x58\xc0"), 0},
	{"SSE3 haddps", 1, 0, ECX, 0, CODE("\xf2\x0f\x7c\xc0"), 0},
	{"SSE3 lddqu", 1, 0, ECX, 0, CODE("\xf2\x0f\xf0\x06"), 0},
	{"SSE3 fisttp", 1, 0, ECX, 0, CODE("\xdb\x0e"), 0},
	{"PCLMULQDQ", 1, 0, ECX, 1, CODE("\x66\x0f\x3a\x44\xc0\x00"), 0},
	{"MONITOR", 1, 0, ECX, 3, CODE("\x0f\x01\xc8"), 0},
	{"VMX", 1, 0, ECX, 5, CODE("\x0f\x01\xc4"), ALWAYS}, /* vmxoff outside of VMX is #UD */
	{"SSSE3 pabsb", 1, 0, ECX, 9, CODE("\x66\x0f\x38\x1c\xc0"), 0},
	{"SSSE3 pshufb", 1, 0, ECX, 9, CODE("\x66\x0f\x38\x00\xc0"), 0},
	{"SSSE3 palignr", 1, 0, ECX, 9, CODE("\x66\x0f\x3a\x0f\xc0\x01"), 0},
	{"FMA", 1, 0, ECX, 12, CODE("\xc4\xe2\x71\x98\xc2"), 0},
	{"CX16", 1, 0, ECX, 13, CODE("\x48\x0f\xc7\x0e"), 0},
	{"SSE4.1 pblendvb", 1, 0, ECX, 19, CODE("\x66\x0f\x38\x10\xc0"), 0},
	{"SSE4.1 roundps", 1, 0, ECX, 19, CODE("\x66\x0f\x3a\x08\xc0\x00"), 0},
	{"SSE4.1 pmulld", 1, 0, ECX, 19, CODE("\x66\x0f\x38\x40\xc0"), 0},
	{"SSE4.2 pcmpgtq", 1, 0, ECX, 20, CODE("\x66\x0f\x38\x37\xc0"), 0},
	{"SSE4.2 crc32", 1, 0, ECX, 20, CODE("\xf2\x0f\x38\xf1\xc0"), 0},
	{"SSE4.2 pcmpistri", 1, 0, ECX, 20, CODE("\x66\x0f\x3a\x63\xc0\x00"), 0},
	{"MOVBE", 1, 0, ECX, 22, CODE("\x0f\x38\xf0\x06"), 0},
	{"POPCNT", 1, 0, ECX, 23, CODE("\xf3\x0f\xb8\xc0"), 0},
	{"AES", 1, 0, ECX, 25, CODE("\x66\x0f\x38\xdc\xc0"), 0},
	{"XSAVE xgetbv", 1, 0, ECX, 26, CODE("\x0f\x01\xd0"), 0},
	{"AVX", 1, 0, ECX, 28, CODE("\xc5\xf8\x58\xc0"), 0},
	{"AVX ymm", 1, 0, ECX, 28, CODE("\xc5\xfc\x58\xc0"), 0},
	{"AVX vzeroupper", 1, 0, ECX, 28, CODE("\xc5\xf8\x77"), 0},
	{"F16C", 1, 0, ECX, 29, CODE("\xc4\xe2\x79\x13\xc0"), 0},
	{"RDRAND", 1, 0, ECX, 30, CODE("\x0f\xc7\xf0"), 0},
	{"FSGSBASE", 7, 0, EBX, 0, CODE("\xf3\x0f\xae\xc0"), 0},
	{"BMI1 andn", 7, 0, EBX, 3, CODE("\xc4\xe2\x78\xf2\xc0"), 0},
	{"AVX2", 7, 0, EBX, 5, CODE("\xc5\xfd\xfe\xc0"), 0},
	{"BMI2 shrx", 7, 0, EBX, 8, CODE("\xc4\xe2\x7b\xf7\xc0"), 0},
	{"BMI2 mulx", 7, 0, EBX, 8, CODE("\xc4\xe2\x7b\xf6\xc0"), 0},
	{"INVPCID", 7, 0, EBX, 10, CODE("\x66\x0f\x38\x82\x06"), 0, 2},
	{"RDSEED", 7, 0, EBX, 18, CODE("\x0f\xc7\xf8"), 0},
	{"ADX", 7, 0, EBX, 19, CODE("\x66\x0f\x38\xf6\xc0"), 0},
	{"SMAP clac", 7, 0, EBX, 20, CODE("\x0f\x01\xca"), 0},
	{"CLFLUSHOPT", 7, 0, EBX, 23, CODE("\x66\x0f\xae\x3e"), ALWAYS},
	{"CLWB", 7, 0, EBX, 24, CODE("\x66\x0f\xae\x36"), ALWAYS},
	{"SHA", 7, 0, EBX, 29, CODE("\x0f\x38\xc8\xc0"), 0},
	{"PKU rdpkru", 7, 0, ECX, 3, CODE("\x0f\x01\xee"), 0},
	{"RDPID", 7, 0, ECX, 22, CODE("\xf3\x0f\xc7\xf8"), 0},
	{"XSAVEOPT", 0xd, 1, EAX, 0, CODE("\x0f\xae\x36"), 0},
	{"XSAVEC", 0xd, 1, EAX, 1, CODE("\x0f\xc7\x26"), 0},
	{"RDTSCP", 0x80000001, 0, EDX, 27, CODE("\x0f\x01\xf9"), 0},
	{"3DNow! pfadd", 0x80000001, 0, EDX, 31, CODE("\x0f\x0f\xc0\x9e"), 0},
	{"LAHF", 0x80000001, 0, ECX, 0, CODE("\x9f"), 0},
	{"LZCNT", 0x80000001, 0, ECX, 5, CODE("\xf3\x0f\xbd\xc0"), ALWAYS},
	{"SSE4A insertq", 0x80000001, 0, ECX, 6, CODE("\xf2\x0f\x79\xc1"), 0},
	{"PREFETCHW", 0x80000001, 0, ECX, 8, CODE("\x0f\x0d\x0e"), ALWAYS},
	{"XOP vphaddbw", 0x80000001, 0, ECX, 11, CODE("\x8f\xe9\x78\xc1\xc0"), 0},
	{"FMA4", 0x80000001, 0, ECX, 16, CODE("\xc4\xe3\xf9\x68\xc0\x00"), 0},
};

/* These must be #UD where their feature bit is clear, and may be what they like where it is set. */
static const struct feature virtualisation[] = {
	{"VMX vmxon", 1, 0, ECX, 5, CODE("\xf3\x0f\xc7\x36"), 0},
	{"VMX vmptrld", 1, 0, ECX, 5, CODE("\x0f\xc7\x36"), 0},
	{"SVM vmload", 0x80000001, 0, ECX, 2, CODE("\x0f\x01\xda"), 0},
	{"SVM stgi", 0x80000001, 0, ECX, 2, CODE("\x0f\x01\xdc"), 0},
	{"SMX getsec", 1, 0, ECX, 6, CODE("\x0f\x37"), 0},
	{"RTM xtest", 7, 0, EBX, 11, CODE("\x0f\x01\xd6"), 0},
};

static void test_executes(void)
{
	u64 cr4 = read_cr4(), on = cr4;

	if (has(1, 0, ECX, 26))
		on |= CR4_XSAVE;
	if (has(7, 0, EBX, 0))
		on |= CR4_FSGS;
	if (has(7, 0, ECX, 3))
		on |= CR4_PKE;
	write_cr4(on);
	if (on & CR4_XSAVE)
		asm volatile("xsetbv" ::"c"(0), "d"(0), "a"(has(1, 0, ECX, 28) ? 7 : 3));
	for (u32 i = 0; i < ARRAY_SIZE(features); i++) {
		const struct feature *f = &features[i];
		bool want = has(f->leaf, f->sub, f->reg, f->bit);
		struct insn insn = {f->name,  K64,   f->bytes, f->len, want ? VEC_DONE : UD,
				    NO_ERROR, f->rax};
		char name[64];

		if (f->flags & ALWAYS && !want)
			continue;
		if (f->leaf == 1 && f->reg == ECX && f->bit == 5)
			continue;
		insn.rcx = f->rcx;
		snprintf(name, sizeof(name), "cpuid: %s: %s", f->name,
			 want ? "advertised, executes" : "not advertised, #UD");
		test_begin(name);
		insn_run(&insn);
		test_end();
		asm volatile("fninit");
	}
	write_cr4(cr4);
	test_begin("cpuid: virtualisation, SMX, RTM: #UD unless advertised");
	for (u32 i = 0; i < ARRAY_SIZE(virtualisation); i++) {
		const struct feature *f = &virtualisation[i];
		struct insn insn = {f->name, K64, f->bytes, f->len, UD, NO_ERROR};

		test_context("%s", f->name);
		if (!has(f->leaf, f->sub, f->reg, f->bit))
			insn_run(&insn);
		else
			expect("advertised", true, true);
	}
	test_context(NULL);
	test_end();
}

static void test_leaves(void)
{
	struct cpuid l0 = cpuid(0, 0), l1 = cpuid(1, 0);
	u32 vendor[3] = {l0.b, l0.d, l0.c};
	u64 a, b, c, d, cr4 = read_cr4();

	test_begin("cpuid: leaves 0, 1, 80000000h");
	for (u32 i = 0; i < 12; i++)
		expect("vendor is printable", true,
		       ((u8 *)vendor)[i] >= ' ' && ((u8 *)vendor)[i] < 127);
	expect("leaf 1 is there", true, l0.a >= 1);
	expect("extended leaves", true, cpuid(0x80000000, 0).a >= 0x80000008);
	expect("long mode", true, has(0x80000001, 0, EDX, 29));
	expect("PAE, PSE, CX8, MSR, APIC, CMOV", true,
	       (l1.d & 0x8368) == 0x8368); /* what runs in long mode has them */
	if (l1.d & BIT(19))
		expect("CLFLUSH line", true, (l1.b >> 8 & 0xff) * 8 == 64);
	expect("APIC id", lapic_read(LAPIC_ID) >> 24, l1.b >> 24);
	/* CPUID clears the upper halves in 64-bit mode. */
	a = b = c = d = ~0ull;
	asm volatile("mov $-1, %%rbx; mov $-1, %%rdx; xor %%ecx, %%ecx; movabs "
		     "$0xffffffff00000000, %%rax\n"
		     "cpuid"
		     : "=a"(a), "=b"(b), "=c"(c), "=d"(d));
	expect("upper halves", 0, (a | b | c | d) >> 32);
	expect("leaf in EAX only", l0.a, a);
	test_end();

	test_begin("cpuid: features that need others");
	static const struct {
		u32 leaf;
		enum reg reg;
		u32 bit, needs_leaf;
		enum reg needs_reg;
		u32 needs_bit;
	} needs[] = {
		{1, EDX, 26, 1, EDX, 25}, /* SSE2 -> SSE */
		{1, ECX, 0, 1, EDX, 26},  {1, ECX, 9, 1, ECX, 0},   {1, ECX, 19, 1, ECX, 9},
		{1, ECX, 20, 1, ECX, 19}, {1, ECX, 28, 1, ECX, 26}, /* AVX -> XSAVE */
		{1, ECX, 12, 1, ECX, 28}, {1, ECX, 29, 1, ECX, 28}, {7, EBX, 5, 1, ECX, 28},
		{7, EBX, 16, 7, EBX, 5},  {1, ECX, 25, 1, EDX, 26}, {1, EDX, 25, 1, EDX, 24},
		{7, EBX, 10, 1, ECX, 17}, /* INVPCID -> PCID */
	};
	for (u32 i = 0; i < ARRAY_SIZE(needs); i++)
		if (has(needs[i].leaf, 0, needs[i].reg, needs[i].bit))
			expect("needed by row of the table", i + 1,
			       has(needs[i].needs_leaf, 0, needs[i].needs_reg, needs[i].needs_bit)
				       ? i + 1
				       : 0);
	expect("any", true, true);
	test_end();

	test_begin("cpuid: OSXSAVE and OSPKE follow CR4");
	if (l1.c & BIT(26)) {
		expect("OSXSAVE clear", false, has(1, 0, ECX, 27));
		write_cr4(cr4 | CR4_XSAVE);
		expect("OSXSAVE set", true, has(1, 0, ECX, 27));
		write_cr4(cr4);
	}
	expect("OSXSAVE without CR4", false, has(1, 0, ECX, 27));
	if (has(7, 0, ECX, 3)) {
		write_cr4(cr4 | CR4_PKE);
		expect("OSPKE set", true, has(7, 0, ECX, 4));
		write_cr4(cr4);
	}
	expect("OSPKE without CR4", false, has(7, 0, ECX, 4));
	test_end();

	test_begin("cpuid: address sizes and brand string");
	u32 sizes = cpuid(0x80000008, 0).a;

	expect("physical bits", true, (sizes & 0xff) >= 36 && (sizes & 0xff) <= 52);
	expect("linear bits", true, (sizes >> 8 & 0xff) == 48 || (sizes >> 8 & 0xff) == 57);
	expect("57 bits only with LA57", true, (sizes >> 8 & 0xff) == 48 || has(7, 0, ECX, 16));
	for (u32 i = 0; i < 3; i++) {
		struct cpuid r = cpuid(0x80000002 + i, 0);

		for (u32 k = 0; k < 16; k++) {
			u8 ch = ((u8 *)&r)[k];

			expect("brand character", true, ch == 0 || (ch >= ' ' && ch < 127));
		}
	}
	test_end();
	if (l1.c & BIT(26)) {
		struct cpuid x = cpuid(0xd, 0);

		test_begin("cpuid: leaf 0Dh");
		expect("x87 and SSE", 3, x.a & 3);
		expect("AVX state if AVX", !!(l1.c & BIT(28)), !!(x.a & 4));
		expect("size of all", true, x.c >= 576 && x.c >= x.b);
		if (x.a & 4) {
			expect("AVX state size", 256, cpuid(0xd, 2).a);
			expect("AVX state offset", 576, cpuid(0xd, 2).b);
		}
		test_end();
	}
}

/* Vol. 3B 19.7.3: leaf 15h says the TSC's frequency, 16h the nominal one. */
static void test_frequency(void)
{
	u64 hz = tsc_hz();

	if (cpuid(0, 0).a >= 0x15 && cpuid(0x15, 0).a && cpuid(0x15, 0).c) {
		struct cpuid r = cpuid(0x15, 0);
		u64 said = (u64)r.c * r.b / r.a;

		test_begin("cpuid: leaf 15h agrees with the TSC");
		test_context("said %lu, measured %lu", said, hz);
		expect("within 2 per cent", true, about(said, hz, 2));
		test_end();
	} else {
		test_skip("cpuid: leaf 15h agrees with the TSC", "no crystal frequency given");
	}
	if (cpuid(0, 0).a >= 0x16 && (cpuid(0x16, 0).a & 0xffff)) {
		u64 said = (cpuid(0x16, 0).a & 0xffff) * 1000000ull;

		test_begin("cpuid: leaf 16h agrees with the TSC");
		test_context("said %lu, measured %lu", said, hz);
		expect("within 2 per cent", true, about(said, hz, 2));
		test_end();
	}
}

void test_features(void)
{
	test_leaves();
	test_executes();
	test_frequency();
}
