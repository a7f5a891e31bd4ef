/*
 * Registers. The runtime uses general registers only, so that what is in the others stays there for
 * a whole pass: floating point and vector registers with their control words, the bases and MSRs of
 * system calls, debug registers, CR8. All differ by processor; the floating point ones by pass,
 * too.
 */
#include "move.h"

struct area {
	u8 byte[512];
} __attribute__((aligned(16)));

static struct area given[MAX_CPUS];
static u64 sums[4][2];

/* SDM vol. 1 table 10-2. */
enum { FCW = 0, FSW = 2, FTW = 4, MXCSR = 24, ST = 32, XMM = 160 };

static const u32 msrs[] = {MSR_FS_BASE,	     MSR_GS_BASE,     MSR_KERNEL_GS, MSR_STAR,
			   MSR_LSTAR,	     MSR_CSTAR,	      MSR_FMASK,     MSR_SYSENTER_CS,
			   MSR_SYSENTER_ESP, MSR_SYSENTER_EIP};

static u64 msr_value(const struct worker *w, u32 msr)
{
	const u64 low = mix(msr + w->index * 0x100000001ull);

	return msr == MSR_FMASK || msr == MSR_SYSENTER_CS ? low & 0xffff : low & 0x7fffffffffff;
}

static u64 debug_value(const struct worker *w, u32 n)
{
	return mix(w->index * 4 + n + 77) & 0x7fffffffffff;
}

/* 1 + 1/2 + 1/3 ..., in doubles with each rounding, and as the x87 does it. */
static void harmonic(u32 rounding, u64 sum[2])
{
	u32 mxcsr = 0x1f80 | rounding << 13;
	u64 one = 1, n = 1, sse = 0, x87 = 0, left = 40;
	u16 fcw = (u16)(0x37f | rounding << 10);

	asm volatile("fninit\n\tfldcw %[fcw]\n\tldmxcsr %[mxcsr]\n\t"
		     "fldz\n\txorpd %%xmm0, %%xmm0\n"
		     "1:\tcvtsi2sdq %[one], %%xmm1\n\tcvtsi2sdq %[n], %%xmm2\n\t"
		     "divsd %%xmm2, %%xmm1\n\taddsd %%xmm1, %%xmm0\n\t"
		     "fld1\n\tfildll %[n]\n\tfdivrp\n\tfaddp\n\t"
		     "incq %[n]\n\tdecq %[left]\n\tjnz 1b\n\t"
		     "movsd %%xmm0, %[sse]\n\tfstpl %[x87]"
		     : [n] "+m"(n), [left] "+r"(left), [sse] "=m"(sse), [x87] "=m"(x87)
		     : [fcw] "m"(fcw), [mxcsr] "m"(mxcsr), [one] "m"(one)
		     : "memory", "cc");
	sum[0] = sse;
	sum[1] = x87;
}

void registers_begin(void)
{
	for (u32 r = 0; r < 4; r++)
		harmonic(r, sums[r]);
}

void registers_init(struct worker *w)
{
	for (u32 i = 0; i < ARRAY_SIZE(msrs); i++)
		wrmsr(msrs[i], msr_value(w, msrs[i]));
	write_dr0(debug_value(w, 0));
	write_dr1(debug_value(w, 1));
	write_dr2(debug_value(w, 2));
	write_dr3(debug_value(w, 3));
	asm volatile("mov %0, %%cr8" ::"r"(1 + (u64)w->index % 2));
}

void registers_load(struct worker *w)
{
	struct area *a = &given[w->index];
	const u16 fcw = (u16)(0x37f | (w->pass & 3) << 10);
	const u32 mxcsr = 0x1f80 | (w->pass >> 2 & 3) << 13;
	u64 x = mix(w->index + ((u64)w->pass << 8));

	memset(a, 0, sizeof(*a));
	memcpy(a->byte + FCW, &fcw, 2);
	memcpy(a->byte + MXCSR, &mxcsr, 4);
	a->byte[FSW + 1] = (u8)((w->pass & 7) << 3); /* TOP */
	a->byte[FTW] = 0xff;			     /* all valid */
	for (u32 i = 0; i < 8; i++) {
		const u64 mantissa = (x = mix(x)) | BIT(63);
		const u16 exponent = (u16)(0x3fff + i - (x & 0xff));

		memcpy(a->byte + ST + 16 * i, &mantissa, 8);
		memcpy(a->byte + ST + 16 * i + 8, &exponent, 2);
	}
	for (u32 i = 0; i < 32; i++) {
		x = mix(x);
		memcpy(a->byte + XMM + 8 * i, &x, 8);
	}
	asm volatile("fxrstor64 %0" ::"m"(*a));
}

static void check_area(const struct worker *w)
{
	static struct area found[MAX_CPUS];
	const struct area *a = &given[w->index];
	struct area *b = &found[w->index];

	asm volatile("fxsave64 %0" : "=m"(*b));
	if (memcmp(a->byte + FCW, b->byte + FCW, 5) != 0)
		wrong("x87 control, status or tags: 0x%x 0x%x 0x%x", b->byte[FCW + 1],
		      b->byte[FSW + 1], b->byte[FTW]);
	if (memcmp(a->byte + MXCSR, b->byte + MXCSR, 4) != 0)
		wrong("MXCSR: 0x%x", b->byte[MXCSR + 1]);
	for (u32 i = 0; i < 8; i++)
		if (memcmp(a->byte + ST + 16 * i, b->byte + ST + 16 * i, 10) != 0)
			wrong("ST%u", i);
	for (u32 i = 0; i < 16; i++)
		if (memcmp(a->byte + XMM + 16 * i, b->byte + XMM + 16 * i, 16) != 0)
			wrong("XMM%u", i);
}

void registers_check(struct worker *w)
{
	const u64 debug[4] = {read_dr0(), read_dr1(), read_dr2(), read_dr3()};
	u64 sum[2];

	check_area(w);
	for (u32 i = 0; i < ARRAY_SIZE(msrs); i++)
		if (rdmsr(msrs[i]) != msr_value(w, msrs[i]))
			wrong("MSR 0x%x is 0x%lx", msrs[i], rdmsr(msrs[i]));
	for (u32 i = 0; i < 4; i++)
		if (debug[i] != debug_value(w, i))
			wrong("DR%u is 0x%lx", i, debug[i]);
	if (read_cr8() != 1 + (u64)w->index % 2)
		wrong("CR8 is 0x%lx", read_cr8());
	harmonic(w->pass & 3, sum);
	if (memcmp(sum, sums[w->pass & 3], sizeof(sum)) != 0)
		wrong("1 + 1/2 + 1/3 ... is 0x%lx in SSE, 0x%lx in the x87", sum[0], sum[1]);
}
