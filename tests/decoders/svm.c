/*
 * AMD SVM: nCR3 gets what libmmu says, VMRUN enters the guest. A refused access is exit code 0x400
 * with an error code like a page fault's in EXITINFO1 and the guest-physical address in EXITINFO2
 * (APM vol. 2 15.25.6; VMCB: appendix B). It says present or not, no level.
 */
#include "tests/decoders/x86.h"

void svm_enter(uint64_t vmcb, uint64_t rbx);

static _Alignas(4096) uint8_t vmcb[4096], host_save[4096];

static void put8(unsigned at, uint8_t v)
{
	*(volatile uint8_t *)(vmcb + at) = v;
}

static void put32(unsigned at, uint32_t v)
{
	*(volatile uint32_t *)(vmcb + at) = v;
}

static void put64(unsigned at, uint64_t v)
{
	*(volatile uint64_t *)(vmcb + at) = v;
}

static uint64_t get64(unsigned at)
{
	return *(volatile uint64_t *)(vmcb + at);
}

/* selector, attributes, limit, base */
static void segment(unsigned at, uint16_t selector, uint16_t attributes)
{
	put32(at, selector | (uint32_t)attributes << 16);
	put32(at + 4, 0xffffffff);
	put64(at + 8, 0);
}

bool arch_load(const char **why)
{
	(void)why;
	x86_console_init();
	return true;
}

bool arch_init(const struct image *image, const char **why)
{
	uint32_t cpu[4];

	x86_cpuid(0x80000001, cpu);
	if (!(cpu[2] >> 2 & 1)) {
		*why = "no SVM";
		return false;
	}
	x86_cpuid(0x8000000a, cpu);
	if (!(cpu[3] & 1)) {
		*why = "no nested paging";
		return false;
	}
	x86_wrmsr(0xc0000080, x86_rdmsr(0xc0000080) | 1 << 12); /* EFER.SVME */
	x86_wrmsr(0xc0010117, (uint64_t)(uintptr_t)host_save);
	x86_stub_init(image, (const uint8_t[]){0x0f, 0x01, 0xd9}); /* vmmcall */

	put32(0x00c, 1u << 31 | 1 << 24); /* shutdown, HLT */
	put32(0x008, 0xffffffff);	  /* every exception */
	put32(0x010, 3);		  /* VMRUN, VMMCALL */
	put32(0x058, 1);		  /* ASID */
	put8(0x05c, 1);			  /* flush everything */
	put64(0x090, 1);		  /* nested paging */
	for (unsigned at = 0x400; at < 0x460; at += 0x10)
		segment(at, 0x10, 0xc93);
	segment(0x410, 0x08, 0xa9b);
	segment(0x490, 0x18, 0x08b);
	put64(0x4d0, 1 << 12 | 1 << 11 | 1 << 10 | 1 << 8); /* EFER: SVME NXE LMA LME */
	put64(0x548, 0x20);				    /* CR4.PAE */
	put64(0x558, 0x80010033);
	put64(0x560, 0x400);
	put64(0x568, 0xffff0ff0);
	put64(0x668, 0x0007040600070406); /* PAT */
	return true;
}

bool arch_set(const struct image_set *set, const char **why)
{
	/* CR4.LA57 of the host says how many levels nested paging has. */
	if (set->levels != (X86_READ_CR(4) >> 12 & 1) + 4) {
		*why = "these tables have other levels than the host";
		return false;
	}
	put64(0x0b0, set->root);
	put64(0x550, x86_guest_root(set));
	x86_stub_set(set);
	return true;
}

void arch_probe(const struct image_set *set, const struct probe *p, uint32_t tag, struct seen *seen)
{
	uint64_t code;

	(void)set;
	put64(0x578, x86_stub_probe(p));
	put64(0x570, 2);
	put64(0x5d8, 0);
	put64(0x5f8, tag);
	put64(0x0c0, 0);
	svm_enter((uint64_t)(uintptr_t)vmcb, GUEST_PROBE | (p->gpa & 0xfff));
	code = get64(0x070);
	seen->info[0] = code;
	seen->info[1] = get64(0x078);
	seen->info[2] = get64(0x080);
	seen->info[3] = get64(0x578);
	if (code == 0x81) { /* VMMCALL */
		seen->ok = true;
		seen->value = (uint32_t)get64(0x5f8);
		return;
	}
	seen->gpa = seen->info[2];
	seen->outcome = seen->info[1] & 1 ? PROBE_REFUSED : PROBE_ABSENT;
	seen->access = seen->info[1] & 16 ? PROBE_X : seen->info[1] & 2 ? PROBE_W : PROBE_R;
	/* Anything else, a reserved bit, a supervisor access, the guest's own tables */
	seen->odd = code != 0x400 || seen->info[1] & 8 || !(seen->info[1] & 4) ||
		    seen->info[1] >> 32 != 1;
}
