#include "cpu/x86/model.h"

#include <string.h>

#define B(n) (1u << (n))

enum {
	/* CPUID.1:ECX */
	SSE3 = B(0),
	PCLMULQDQ = B(1),
	SSSE3 = B(9),
	CX16 = B(13),
	SSE41 = B(19),
	SSE42 = B(20),
	X2APIC = B(21),
	MOVBE = B(22),
	POPCNT = B(23),
	TSC_DEADLINE = B(24),
	AES = B(25),
	RDRAND = B(30),
	/* CPUID.1:EDX */
	FPU = B(0),
	DE = B(2),
	PSE = B(3),
	TSC = B(4),
	MSR = B(5),
	PAE = B(6),
	MCE = B(7),
	CX8 = B(8),
	APIC = B(9),
	SEP = B(11),
	MTRR = B(12),
	PGE = B(13),
	MCA = B(14),
	CMOV = B(15),
	PAT = B(16),
	PSE36 = B(17),
	CLFSH = B(19),
	MMX = B(23),
	FXSR = B(24),
	SSE = B(25),
	SSE2 = B(26),
	/* CPUID.7:EBX */
	FSGSBASE = B(0),
	TSC_ADJUST = B(1),
	BMI1 = B(3),
	SMEP = B(7),
	BMI2 = B(8),
	ADX = B(19),
	SMAP = B(20),
	CLFLUSHOPT = B(23),
	CLWB = B(24),
	/* CPUID.7:EDX */
	SPEC_CTRL = B(26),
	ARCH_CAPABILITIES = B(29),
	/* CPUID.80000001h */
	LAHF = B(0),
	ABM = B(5),
	SYSCALL = B(11),
	NX = B(20),
	PAGE1GB = B(26),
	RDTSCP = B(27),
	LM = B(29),
};
#define HYPERVISOR B(31)

#define BASE_EDX                                                                                   \
	(FPU | DE | PSE | TSC | MSR | PAE | MCE | MCA | CX8 | APIC | SEP | MTRR | PGE | CMOV |     \
	 PAT | PSE36 | CLFSH | MMX | FXSR | SSE | SSE2)
#define V2_ECX (SSE3 | SSSE3 | CX16 | SSE41 | SSE42 | X2APIC | POPCNT | TSC_DEADLINE)

/* ERMS is left out: the soft engine moves a page at a time whatever the operand's size, so that
 * REP MOVSB wins nothing over REP MOVSQ. No model has XSAVE yet, so none has AVX. */
const struct x86_model x86_models[] = {
	{
		.name = "ferry64-v1",
		.help = "x86-64-v2 with AES, BMI, RDRAND, SMEP and SMAP; runs on every engine "
			"(default)",
		.leaf1_ecx = V2_ECX | PCLMULQDQ | MOVBE | AES | RDRAND | HYPERVISOR,
		.leaf1_edx = BASE_EDX,
		.leaf7_ebx =
			FSGSBASE | TSC_ADJUST | BMI1 | BMI2 | SMEP | SMAP | ADX | CLFLUSHOPT | CLWB,
		.leaf7_edx = SPEC_CTRL | ARCH_CAPABILITIES,
		.ext1_ecx = LAHF | ABM,
		.ext1_edx = SYSCALL | NX | PAGE1GB | RDTSCP | LM,
	},
	{
		.name = "x86-64-v2",
		.help = "the psABI level, nothing more for user programs",
		.leaf1_ecx = V2_ECX | HYPERVISOR,
		.leaf1_edx = BASE_EDX,
		.leaf7_ebx = TSC_ADJUST | SMEP | SMAP,
		.leaf7_edx = SPEC_CTRL | ARCH_CAPABILITIES,
		.ext1_ecx = LAHF,
		.ext1_edx = SYSCALL | NX | PAGE1GB | RDTSCP | LM,
	},
	{
		.name = "x86-64-v1",
		.help = "the oldest 64-bit processors: SSE2",
		.leaf1_ecx = CX16 | X2APIC | TSC_DEADLINE | HYPERVISOR,
		.leaf1_edx = BASE_EDX,
		.leaf7_ebx = TSC_ADJUST,
		.leaf7_edx = SPEC_CTRL | ARCH_CAPABILITIES,
		.ext1_edx = SYSCALL | NX | RDTSCP | LM,
	},
	{.name = NULL},
};

const struct x86_model *x86_model_find(const char *name)
{
	for (const struct x86_model *m = x86_models; m->name; m++)
		if (!strcmp(m->name, name))
			return m;
	return NULL;
}

static void text(uint32_t out[4], const char *s, unsigned from)
{
	char buf[48] = {0};

	strncpy(buf, s, sizeof(buf) - 1);
	memcpy(out, buf + from, 16);
}

/* Leaf 0Bh: one thread a core, all cores in one package. */
static void topology(const struct x86_cpuid_context *ctx, unsigned vcpu, uint32_t subleaf,
		     uint32_t out[4])
{
	unsigned shift = 0;

	while ((1u << shift) < ctx->vcpus)
		shift++;
	out[2] = subleaf & 0xff;
	out[3] = vcpu;
	if (subleaf == 0) {
		out[1] = 1;
		out[2] |= 1 << 8;
	} else if (subleaf == 1) {
		out[0] = shift;
		out[1] = ctx->vcpus;
		out[2] |= 2 << 8;
	}
}

/* Leaf 4: what a guest may use to size its buffers; 32 KiB, 32 KiB, 512 KiB, shared 8 MiB. */
static void caches(const struct x86_cpuid_context *ctx, uint32_t subleaf, uint32_t out[4])
{
	static const struct {
		uint32_t type, level, ways, sets;
	} c[] = {{1, 1, 8, 64}, {2, 1, 8, 64}, {3, 2, 8, 1024}, {3, 3, 16, 8192}};

	if (subleaf >= sizeof(c) / sizeof(c[0]))
		return;
	out[0] = c[subleaf].type | c[subleaf].level << 5 | 1 << 8 | (ctx->vcpus - 1) << 26;
	if (c[subleaf].level == 3)
		out[0] |= (ctx->vcpus - 1) << 14;
	out[1] = 63 | (c[subleaf].ways - 1) << 22;
	out[2] = c[subleaf].sets - 1;
}

static uint64_t gcd(uint64_t a, uint64_t b)
{
	while (b) {
		uint64_t r = a % b;

		a = b;
		b = r;
	}
	return a;
}

void x86_cpuid(const struct x86_cpuid_context *ctx, unsigned vcpu, uint32_t leaf, uint32_t subleaf,
	       uint32_t out[4])
{
	static const char brand[] = "ferry virtual processor";
	const struct x86_model *m = ctx->model;
	const uint32_t max = 0x16, hyper_max = 0x40000001, ext_max = 0x80000008;

	memset(out, 0, 4 * sizeof(out[0]));
	/* Beyond the last basic leaf a processor answers as for the last one (SDM): zeroes are
	 * kinder and what hypervisors do. */
	if ((leaf < 0x40000000 && leaf > max) ||
	    (leaf >= 0x40000000 && leaf < 0x80000000 && leaf > hyper_max) || leaf > ext_max)
		return;
	switch (leaf) {
	case 0:
		out[0] = max;
		/* CPUID 15h counts for Linux on this vendor only. */
		memcpy(&out[1], "Genu", 4);
		memcpy(&out[3], "ineI", 4);
		memcpy(&out[2], "ntel", 4);
		break;
	case 1:
		out[0] = 6 << 8 | 0xf << 4 | 0xf << 16 |
			 1; /* family 6, a model in no table of errata or leaks */
		out[1] = vcpu << 24 | ctx->vcpus << 16 | 8 << 8;
		out[2] = m->leaf1_ecx;
		out[3] = m->leaf1_edx | (ctx->vcpus > 1 ? B(28) : 0);
		break;
	case 4: caches(ctx, subleaf, out); break;
	case 6: out[0] = B(2); break; /* ARAT: the APIC timer never stops */
	case 7:
		if (subleaf == 0) {
			out[0] = 2;
			out[1] = m->leaf7_ebx;
			out[2] = m->leaf7_ecx;
			out[3] = m->leaf7_edx;
		} else if (subleaf == 2) {
			/* BHI_CTRL: a switch for branch histories that are not kept; without it
			 * Linux clears them in a loop at each system call. */
			out[3] = B(4);
		}
		break;
	case 0xb: topology(ctx, vcpu, subleaf, out); break;
	case 0x15: {
		/* TSC = crystal * ebx / eax, in lowest terms: Linux multiplies in 32 bits of kHz.
		 */
		uint64_t d = gcd(ctx->tsc_hz, ctx->crystal_hz);

		out[0] = (uint32_t)(ctx->crystal_hz / d);
		out[1] = (uint32_t)(ctx->tsc_hz / d);
		out[2] = (uint32_t)ctx->crystal_hz;
		break;
	}
	case 0x16: out[0] = out[1] = (uint32_t)(ctx->tsc_hz / 1000000); break;
	case 0x40000000:
		out[0] = hyper_max;
		/* The signature that makes guests use x2APIC without interrupt remapping. */
		memcpy(&out[1], "KVMKVMKVM\0\0\0", 12);
		break;
	case 0x40000001: out[0] = B(1); break; /* no need for I/O delays; nothing else */
	case 0x80000000: out[0] = ext_max; break;
	case 0x80000001:
		out[2] = m->ext1_ecx;
		out[3] = m->ext1_edx;
		break;
	case 0x80000002: text(out, brand, 0); break;
	case 0x80000003: text(out, brand, 16); break;
	case 0x80000004: text(out, brand, 32); break;
	case 0x80000006: out[2] = 64 | 6 << 12 | 512 << 16; break;
	case 0x80000007: out[3] = B(8); break; /* invariant TSC */
	case 0x80000008: out[0] = X86_PHYSICAL_BITS | 48 << 8; break;
	default: break;
	}
}
