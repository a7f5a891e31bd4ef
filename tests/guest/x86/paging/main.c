#include "paging.h"

const char *const access_name[] = {"read", "write", "fetch"};

bool have_nx, have_1g, have_smep, have_smap;
u32 phys_bits;
u64 kernel_cr4;
static u64 kernel_efer;

static void detect(void)
{
	struct cpuid ext = cpuid(0x80000001, 0);

	have_nx = ext.d & BIT(20);
	have_1g = ext.d & BIT(26);
	if (cpuid(0, 0).a >= 7) {
		have_smep = cpuid(7, 0).b & BIT(7);
		have_smap = cpuid(7, 0).b & BIT(20);
	}
	phys_bits = 36;
	if (cpuid(0x80000000, 0).a >= 0x80000008)
		phys_bits = cpuid(0x80000008, 0).a & 0xff;
	kernel_cr4 = read_cr4();
	kernel_efer = rdmsr(MSR_EFER);
}

bool mode_possible(const struct mode *m)
{
	return (have_nx || !m->nxe) && (have_smep || !m->smep) && (have_smap || !m->smap);
}

void mode_set(const struct mode *m)
{
	write_cr0(m->wp ? read_cr0() | CR0_WP : read_cr0() & ~CR0_WP);
	write_cr4(kernel_cr4 | (m->smep ? CR4_SMEP : 0) | (m->smap ? CR4_SMAP : 0));
	if (have_nx)
		wrmsr(MSR_EFER, m->nxe ? kernel_efer | EFER_NXE : kernel_efer & ~EFER_NXE);
}

void mode_reset(void)
{
	mode_set(&(struct mode){.wp = true, .nxe = have_nx});
}

u64 oracle(const struct walk *walk, const struct mode *m, enum access a, bool user)
{
	u64 err = (a == WRITE ? PF_W : 0) | (user ? PF_U : 0) |
		  (a == FETCH && (m->nxe || m->smep) ? PF_I : 0);
	bool w = true, u = true, nx = false;

	for (u32 i = 0; i < walk->n; i++) {
		u64 e = walk->entry[i];

		if (!(e & PTE_P))
			return err;
		if ((e & walk->rsvd[i]) || ((e & PTE_NX) && !m->nxe))
			return err | PF_P | PF_RSVD;
		w &= !!(e & PTE_W);
		u &= !!(e & PTE_U);
		nx |= !!(e & PTE_NX);
	}
	err |= PF_P;
	if (user && !u)
		return err;
	if (a == WRITE && !w && (user || m->wp))
		return err;
	if (a == FETCH && nx)
		return err;
	if (!user && u) {
		if (a == FETCH ? m->smep : m->smap && !m->ac)
			return err;
	}
	return NO_ERROR;
}

u64 defective(u64 good, u64 rsvd, u32 defects)
{
	if (defects & 1)
		good &= ~PTE_P;
	if (defects & 2)
		good &= ~PTE_W;
	if (defects & 4)
		good &= ~PTE_U;
	if (defects & 8)
		good |= PTE_NX;
	if (defects & 16)
		good |= rsvd;
	return good;
}

void test_main(void)
{
	detect();
	test_rights();
	test_crossing();
	test_invalidation();
	test_implicit();
	test_legacy();
}
