/*
 * Intel VMX: EPTP gets what libmmu says (SDM vol. 3C chapters 25 to 29; fields: appendix B). A
 * refused access is exit reason 48 with the access and the permissions found in the qualification,
 * or 49, a misconfiguration, which must not be. It says no level.
 */
#include "tests/decoders/x86.h"

uint64_t vmx_enter(uint64_t launched, uint64_t rbx, uint64_t rax);
extern uint32_t vmx_failed;

static _Alignas(4096) uint8_t vmxon_region[4096], vmcs[4096];
static bool launched;

enum {
	EXIT_REASON = 0x4402,
	INSTRUCTION_ERROR = 0x4400,
	QUALIFICATION = 0x6400,
	GUEST_PHYSICAL = 0x2400,
	EPT_POINTER = 0x201a,
	GUEST_CR3 = 0x6802,
	GUEST_RIP = 0x681e,
};

static void put(uint32_t field, uint64_t value)
{
	asm volatile("vmwrite %0, %1" ::"r"(value), "r"((uint64_t)field) : "cc");
}

static uint64_t get(uint32_t field)
{
	uint64_t value;

	asm volatile("vmread %1, %0" : "=r"(value) : "r"((uint64_t)field) : "cc");
	return value;
}

/* What must be 1 and may be 1. */
static uint64_t allowed(uint32_t msr, uint32_t wanted)
{
	uint64_t v = x86_rdmsr(msr);

	return (wanted | (uint32_t)v) & (uint32_t)(v >> 32);
}

static bool vmx_on(const char **why)
{
	uint32_t revision = (uint32_t)x86_rdmsr(0x480);
	uint64_t pa = (uint64_t)(uintptr_t)vmxon_region, cs = (uint64_t)(uintptr_t)vmcs;
	uint8_t bad;

	if (!(x86_rdmsr(0x3a) & 1))
		x86_wrmsr(0x3a, 5); /* IA32_FEATURE_CONTROL: locked, VMX */
	asm volatile("mov %0, %%cr0" ::"r"((X86_READ_CR(0) | x86_rdmsr(0x486)) & x86_rdmsr(0x487)));
	asm volatile("mov %0, %%cr4" ::"r"((X86_READ_CR(4) | 1 << 13 | x86_rdmsr(0x488)) &
					   x86_rdmsr(0x489)));
	memcpy(vmxon_region, &revision, 4);
	memcpy(vmcs, &revision, 4);
	*why = "VMXON fails";
	asm volatile("vmxon %1; setna %0" : "=qm"(bad) : "m"(pa) : "cc", "memory");
	if (bad)
		return false;
	*why = "VMPTRLD fails";
	asm volatile("vmclear %1; setna %0" : "=qm"(bad) : "m"(cs) : "cc", "memory");
	if (!bad)
		asm volatile("vmptrld %1; setna %0" : "=qm"(bad) : "m"(cs) : "cc", "memory");
	return !bad;
}

static void controls(void)
{
	put(0x4000, allowed(0x481, 0));				 /* pin-based */
	put(0x4002, allowed(0x482, UINT32_C(1) << 31 | 1 << 7)); /* secondary, HLT */
	put(0x401e, allowed(0x48b, 1 << 1));			 /* EPT */
	put(0x400c, allowed(0x483, 1 << 9 | 1 << 21));		 /* 64-bit host, load EFER */
	put(0x4012, allowed(0x484, 1 << 9 | 1 << 15));		 /* 64-bit guest, load EFER */
	put(0x4004, 0xffffffff);				 /* every exception */
	put(0x4006, 0);
	put(0x4008, 0);
	put(0x2800, UINT64_MAX); /* link pointer */
}

static void guest(void)
{
	for (uint32_t i = 0; i < 8; i++) { /* ES CS SS DS FS GS LDTR TR */
		bool code = i == 1, tr = i == 7, ldtr = i == 6;

		put(0x800 + 2 * i, code ? 0x08 : tr ? 0x18 : ldtr ? 0 : 0x10);
		put(0x4800 + 2 * i, tr ? 0x67 : 0xffffffff);
		put(0x4814 + 2 * i, code ? 0xa09b : tr ? 0x8b : ldtr ? 0x10000 : 0xc093);
		put(0x6806 + 2 * i, 0);
	}
	put(0x6816, 0), put(0x6818, 0), put(0x4810, 0xffff), put(0x4812, 0xffff); /* GDTR, IDTR */
	put(0x6800, (UINT64_C(0x80010033) | x86_rdmsr(0x486)) & x86_rdmsr(0x487));
	put(0x6804, (0x20 | x86_rdmsr(0x488)) & x86_rdmsr(0x489));
	put(0x681a, 0x400);
	put(0x2802, 0);
	put(0x2806, 1 << 11 | 1 << 10 | 1 << 8); /* EFER: NXE LMA LME */
	put(0x4824, 0);
	put(0x4826, 0);
	put(0x6820, 2);
	put(0x681c, 0);
	put(0x6822, 0);
	put(0x482a, 0), put(0x6824, 0), put(0x6826, 0);
}

static void host(void)
{
	put(0x6c00, X86_READ_CR(0));
	put(0x6c02, X86_READ_CR(3));
	put(0x6c04, X86_READ_CR(4));
	put(0x2c02, x86_rdmsr(0xc0000080));
	put(0xc00, 0x10), put(0xc02, 0x08), put(0xc04, 0x10), put(0xc06, 0x10);
	put(0xc08, 0x10), put(0xc0a, 0x10), put(0xc0c, 0x18);
	put(0x6c06, 0), put(0x6c08, 0), put(0x6c0a, 0), put(0x6c0c, 0), put(0x6c0e, 0);
	put(0x4c00, 0), put(0x6c10, 0), put(0x6c12, 0);
}

bool arch_load(const char **why)
{
	x86_console_init();
	return x86_load(why);
}

bool arch_init(const struct image *image, const char **why)
{
	uint32_t cpu[4];

	x86_cpuid(1, cpu);
	*why = "no VMX";
	if (!(cpu[2] >> 5 & 1))
		return false;
	*why = "no EPT";
	if (!(x86_rdmsr(0x482) >> 63 & 1) || !(x86_rdmsr(0x48b) >> 33 & 1))
		return false;
	x86_stub_init(image, (const uint8_t[]){0x0f, 0x01, 0xc1}); /* vmcall */
	if (!vmx_on(why))
		return false;
	controls();
	guest();
	host();
	return true;
}

bool arch_set(const struct image_set *set, const char **why)
{
	const struct {
		uint64_t eptp, zero;
	} all = {0};
	uint64_t able = x86_rdmsr(0x48c);

	*why = "the processor has no 5-level EPT, or no A and D bits, or no execute-only pages";
	if ((set->root >> 3 & 7) != 3 || (set->root >> 6 & 1 && !(able >> 21 & 1)) || !(able & 1))
		return false;
	put(EPT_POINTER, set->root);
	put(GUEST_CR3, x86_guest_root(set));
	x86_stub_set(set);
	asm volatile("invept %0, %1" ::"m"(all), "r"(UINT64_C(2)) : "cc", "memory");
	return true;
}

void arch_probe(const struct image_set *set, const struct probe *p, uint32_t tag, struct seen *seen)
{
	const struct {
		uint64_t eptp, zero;
	} all = {0};
	uint64_t reason, rax;

	(void)set;
	put(GUEST_RIP, x86_stub_probe(p));
	put(0x6820, 2);
	/* The guest's table has changed. */
	asm volatile("invept %0, %1" ::"m"(all), "r"(UINT64_C(2)) : "cc", "memory");
	vmx_failed = 0;
	rax = vmx_enter(launched, GUEST_PROBE | (p->gpa & 0xfff), tag);
	if (vmx_failed) {
		seen->odd = true;
		seen->info[0] = get(INSTRUCTION_ERROR);
		return;
	}
	launched = true;
	reason = get(EXIT_REASON);
	seen->info[0] = reason;
	seen->info[1] = get(QUALIFICATION);
	seen->info[2] = get(GUEST_PHYSICAL);
	seen->info[3] = get(GUEST_RIP);
	if (reason == 18) { /* VMCALL */
		seen->ok = true;
		seen->value = (uint32_t)rax;
		return;
	}
	seen->gpa = seen->info[2];
	seen->outcome = seen->info[1] & 0x38 ? PROBE_REFUSED : PROBE_ABSENT;
	seen->access = seen->info[1] & 4 ? PROBE_X : seen->info[1] & 2 ? PROBE_W : PROBE_R;
	/* The final address, not a table of the guest's */
	seen->odd = reason != 48 || (seen->info[1] & 0x180) != 0x180;
}
