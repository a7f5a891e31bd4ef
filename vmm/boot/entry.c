#include "vmm/boot/entry.h"

#include <errno.h>
#include <inttypes.h>

#include "vmm/boot/layout.h"

/* Descriptors have their accessed bit set, so that loading one never writes to the table. */
#define DESC_CODE64 0x00af9b000000ffffull
#define DESC_CODE32 0x00cf9b000000ffffull
#define DESC_DATA   0x00cf93000000ffffull
#define DESC_TSS    0x00008b0000000067ull /* busy 32-bit/64-bit TSS, limit 67h; base added below */

enum { CR0_PE = 1, CR0_ET = 0x10, CR0_PG = 1u << 31, CR4_PAE = 0x20 };
enum { EFER_LME = 1 << 8, EFER_LMA = 1 << 10 };
enum { PTE_P = 1, PTE_W = 2, PTE_A = 0x20, PTE_D = 0x40, PTE_PS = 0x80 };
enum { MTRR_ENABLE = 1 << 11, MTRR_WB = 6 };

static void set_segment(struct x86_seg *seg, uint16_t selector, uint32_t attr)
{
	*seg = (struct x86_seg){.limit = 0xffffffff, .attr = attr, .selector = selector};
}

static int entry_common(struct boot_job *job, uint64_t rip, uint64_t code, struct error *err)
{
	const uint64_t gdt[] = {0, 0, code, DESC_DATA, DESC_TSS | (uint64_t)BOOT_TSS << 16, 0};
	struct x86_state *s = job->cpu;
	uint8_t raw[sizeof(gdt)];
	unsigned i;
	int ret;

	if (rip < job->kernel_start || rip >= job->kernel_end)
		return error_set(err, -EINVAL,
				 "the kernel wants to be entered at %#" PRIx64
				 ", outside of what it loads",
				 rip);
	for (i = 0; i < sizeof(gdt) / sizeof(gdt[0]); i++)
		put_le64(raw + 8 * i, gdt[i]);
	ret = place_put(job, BOOT_GDT, raw, sizeof(raw), err);
	if (!ret)
		ret = place_zero(job, BOOT_TSS, 104, err);
	if (ret)
		return ret;

	for (i = 0; i < 16; i++)
		s->gpr[i] = 0;
	s->gpr[RSP] = BOOT_STACK; /* no protocol promises one; early debug code likes one */
	s->rip = rip;
	s->rflags = 2; /* interrupts off */
	for (i = SEG_ES; i <= SEG_GS; i++)
		set_segment(&s->seg[i], ENTRY_DS, 0xc093);
	set_segment(&s->seg[SEG_CS], ENTRY_CS, code == DESC_CODE64 ? 0xa09b : 0xc09b);
	s->seg[SEG_LDT] = (struct x86_seg){.attr = 1u << 16};
	s->seg[SEG_TR] = (struct x86_seg){
		.base = BOOT_TSS, .limit = 0x67, .attr = 0x8b, .selector = ENTRY_TR};
	s->gdt_base = BOOT_GDT;
	s->gdt_limit = sizeof(raw) - 1;
	s->idt_base = 0;
	s->idt_limit =
		0; /* an exception before the kernel has its own table ends in a triple fault */
	s->cr0 = CR0_PE | CR0_ET;
	s->cr2 = s->cr3 = s->cr4 = 0;
	s->efer = 0;
	/* What firmware would have done: all memory write-back. With MTRRs off Linux takes the
	 * machine for one without PAT (arch/x86/mm/pat/memtype.c). */
	s->mtrr_def_type = MTRR_ENABLE | MTRR_WB;
	s->run_state = X86_RUNNING;
	return 0;
}

static int identity_map(struct boot_job *job, struct error *err)
{
	const uint64_t table = PTE_P | PTE_W | PTE_A;
	uint8_t page[4096];
	unsigned i, k;
	int ret;

	ret = place_zero(job, BOOT_PML4, 2 * sizeof(page), err);
	put_le64(page, BOOT_PDPT | table);
	if (!ret)
		ret = place_put(job, BOOT_PML4, page, 8, err);
	for (i = 0; i < 4; i++)
		put_le64(page + 8 * i, (BOOT_PD + i * 4096) | table);
	if (!ret)
		ret = place_put(job, BOOT_PDPT, page, 32, err);
	for (k = 0; k < 4 && !ret; k++) {
		for (i = 0; i < 512; i++)
			put_le64(page + 8 * i,
				 ((uint64_t)(k * 512 + i) << 21) | table | PTE_D | PTE_PS);
		ret = place_put(job, BOOT_PD + k * 4096, page, sizeof(page), err);
	}
	return ret;
}

int entry_long(struct boot_job *job, uint64_t rip, struct error *err)
{
	int ret = entry_common(job, rip, DESC_CODE64, err);

	if (!ret)
		ret = identity_map(job, err);
	if (ret)
		return ret;
	job->cpu->cr0 |= CR0_PG;
	job->cpu->cr3 = BOOT_PML4;
	job->cpu->cr4 = CR4_PAE;
	job->cpu->efer = EFER_LME | EFER_LMA;
	return 0;
}

int entry_flat(struct boot_job *job, uint64_t eip, struct error *err)
{
	return entry_common(job, eip, DESC_CODE32, err);
}
