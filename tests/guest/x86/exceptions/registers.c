/* Control, debug and model-specific registers. */
#include "exceptions.h"

/* ---- control, debug and model-specific registers ----------------------------------------------
 */

#define MOV_CR0 CODE("\x0f\x22\xc0")
#define MOV_CR3 CODE("\x0f\x22\xd8")
#define MOV_CR4 CODE("\x0f\x22\xe0")
#define MOV_CR8 CODE("\x44\x0f\x22\xc0")
#define MOV_DR6 CODE("\x0f\x23\xf0")
#define MOV_DR7 CODE("\x0f\x23\xf8")

static void test_control_registers(void)
{
	u64 cr0 = read_cr0(), cr3 = read_cr3(), cr4 = read_cr4();
	u32 phys = cpuid(0x80000000, 0).a >= 0x80000008 ? cpuid(0x80000008, 0).a & 0xff : 36;
	const struct insn cr0_deadly[] = {
		{"PG without PE", K64, MOV_CR0, GP, 0, .rax = cr0 & ~CR0_PE},
		{"PG cleared in 64-bit mode", K64, MOV_CR0, GP, 0, .rax = cr0 & ~CR0_PG},
	};
	const struct insn cr0_table[] = {
		{"NW without CD", K64, MOV_CR0, GP, 0, .rax = cr0 | CR0_NW},
		{"bit 32", K64, MOV_CR0, GP, 0, .rax = cr0 | BIT(32)},
		{"bit 63", K64, MOV_CR0, GP, 0, .rax = cr0 | BIT(63)},
		{"same value", K64, MOV_CR0, VEC_DONE, EX, .rax = cr0},
		{"reserved low bit is ignored", K64, MOV_CR0, VEC_DONE, EX, .rax = cr0 | BIT(7)},
	};
	const struct insn cr4_deadly[] = {
		{"PAE cleared in long mode", K64, MOV_CR4, GP, 0, .rax = cr4 & ~CR4_PAE},
		{"LA57 switched in long mode", K64, MOV_CR4, GP, 0, .rax = cr4 ^ CR4_LA57},
	};
	const struct insn cr4_table[] = {
		{"bit 15", K64, MOV_CR4, GP, 0, .rax = cr4 | BIT(15)},
		{"bit 26", K64, MOV_CR4, GP, 0, .rax = cr4 | BIT(26)},
		{"bit 31", K64, MOV_CR4, GP, 0, .rax = cr4 | BIT(31)},
		{"bit 33", K64, MOV_CR4, GP, 0, .rax = cr4 | BIT(33)},
		{"bit 63", K64, MOV_CR4, GP, 0, .rax = cr4 | BIT(63)},
		{"same value", K64, MOV_CR4, VEC_DONE, EX, .rax = cr4},
	};
	const struct insn cr3_table[] = {
		{"address bit beyond MAXPHYADDR", K64, MOV_CR3, GP, 0, .rax = cr3 | BIT(phys)},
		{"bit 52", K64, MOV_CR3, GP, 0, .rax = cr3 | BIT(52)},
		{"bit 63 without PCID", K64, MOV_CR3, GP, 0, .rax = cr3 | BIT(63)},
		{"PCD and PWT", K64, MOV_CR3, VEC_DONE, EX, .rax = cr3 | 0x18},
		{"same value", K64, MOV_CR3, VEC_DONE, EX, .rax = cr3},
	};
	const struct insn cr8_table[] = {
		{"16", K64, MOV_CR8, GP, 0, .rax = 16},
		{"bit 63", K64, MOV_CR8, GP, 0, .rax = BIT(63)},
		{"5", K64, MOV_CR8, VEC_DONE, EX, .rax = 5},
		{"0", K64, MOV_CR8, VEC_DONE, EX, .rax = 0},
	};
	const struct insn dr_table[] = {
		{"DR6 bit 32", K64, MOV_DR6, GP, 0, .rax = BIT(32)},
		{"DR6 bit 63", K64, MOV_DR6, GP, 0, .rax = BIT(63)},
		{"DR7 bit 32", K64, MOV_DR7, GP, 0, .rax = BIT(32) | 0x400},
		{"DR7", K64, MOV_DR7, VEC_DONE, EX, .rax = 0x400},
	};

	INSN_TABLE("exceptions: MOV to CR0, bad values (vol. 2 MOV CR)", cr0_table);
	test_begin("exceptions: a refused MOV to CR changes nothing");
	expect("CR0", cr0, read_cr0());
	expect("CR4", cr4, read_cr4());
	test_end();
	write_cr0(cr0);
	DEADLY("exceptions: MOV to CR4, bad values", cr4_table);
	DEADLY("exceptions: MOV to CR3, bad values", cr3_table);
	write_cr3(cr3);
	INSN_TABLE("exceptions: MOV to CR8, bad values", cr8_table);
	INSN_TABLE("exceptions: MOV to DR6 and DR7, bad values", dr_table);

	/* A CR4 bit of a feature that CPUID does not have is reserved (vol. 3A 2.5). */
	test_begin("exceptions: CR4 bits of missing features are reserved");
	struct cpuid c1 = cpuid(1, 0), c7 = {0};

	if (cpuid(0, 0).a >= 7)
		c7 = cpuid(7, 0);
	const struct {
		u64 bit;
		bool have;
	} features[] = {
		{CR4_UMIP, c7.c & BIT(2)},  {BIT(13), c1.c & BIT(5)},	 {BIT(14), c1.c & BIT(6)},
		{CR4_FSGS, c7.b & BIT(0)},  {CR4_XSAVE, c1.c & BIT(26)}, {CR4_SMEP, c7.b & BIT(7)},
		{CR4_SMAP, c7.b & BIT(20)}, {CR4_PKE, c7.c & BIT(3)},	 {BIT(23), c7.c & BIT(7)},
		{BIT(24), c7.d & 0},	    {CR4_PCID, c1.c & BIT(17)},
	};

	for (u32 i = 0; i < ARRAY_SIZE(features); i++) {
		struct insn insn = {"",
				    K64,
				    MOV_CR4,
				    features[i].have ? VEC_DONE : GP,
				    features[i].have ? EX : 0,
				    .rax = cr4 | features[i].bit};

		/* CET needs CR0.WP, PKS is in another leaf: only what is simple. */
		if (features[i].bit == BIT(24) || (!features[i].have && argument("qemu", 0)))
			continue;
		test_context("CR4 0x%lx", features[i].bit);
		insn_run(&insn);
		write_cr4(cr4);
	}
	test_context(NULL);
	test_end();

	DEADLY("exceptions: MOV to CR0 that would leave protected or paged mode", cr0_deadly);
	DEADLY("exceptions: MOV to CR4 that would change the paging mode", cr4_deadly);
	/* LMSW may set PE, not clear it (vol. 2 LMSW). */
	test_begin("exceptions: LMSW and SMSW");
	struct ctx c = insn_run(
		&(struct insn){"lmsw", K64, CODE("\x0f\x01\xf0"), VEC_DONE, EX, .rax = cr0 & 0xe});
	expect("PE stays", cr0, read_cr0());
	insn_run(&(struct insn){"lmsw", K64, CODE("\x0f\x01\xf0"), VEC_DONE, EX,
				.rax = (cr0 & 0xf) | CR0_TS});
	expect("TS set", cr0 | CR0_TS, read_cr0());
	c = insn_run(&(struct insn){"smsw", U64, CODE("\x0f\x01\xe0"), VEC_DONE, EX});
	expect("low half", (cr0 | CR0_TS) & 0xffff, c.gpr[RAX] & 0xffff);
	write_cr0(cr0);
	test_end();
}

#define RDMSR CODE("\x0f\x32")
#define WRMSR CODE("\x0f\x30")

static void test_msrs(void)
{
	u32 efer = (u32)rdmsr(MSR_EFER);
	const struct insn bad[] = {
		{"rdmsr of a hole", K64, RDMSR, GP, 0, .rcx = 0x1234567},
		{"wrmsr of a hole", K64, WRMSR, GP, 0, .rcx = 0x1234567},
		{"rdmsr 0xc0001fff", K64, RDMSR, GP, 0, .rcx = 0xc0001fff},
		{"EFER bit 9", K64, WRMSR, GP, 0, .rcx = MSR_EFER, .rax = efer | BIT(9)},
		{"EFER bit 32", K64, WRMSR, GP, 0, .rcx = MSR_EFER, .rax = efer, .rdx = 1},
		{"EFER.LME cleared with paging", K64, WRMSR, GP, 0, .rcx = MSR_EFER,
		 .rax = efer & ~(u32)EFER_LME},
		{"EFER same", K64, WRMSR, VEC_DONE, EX, .rcx = MSR_EFER, .rax = efer},
		{"LSTAR not canonical", K64, WRMSR, GP, 0, .rcx = MSR_LSTAR, .rdx = 0x8000},
		{"CSTAR not canonical", K64, WRMSR, GP, 0, .rcx = MSR_CSTAR, .rdx = 0x8000},
		{"FS base not canonical", K64, WRMSR, GP, 0, .rcx = MSR_FS_BASE, .rdx = 0x8000},
		{"GS base not canonical", K64, WRMSR, GP, 0, .rcx = MSR_GS_BASE, .rdx = 0xffff7fff},
		{"kernel GS base not canonical", K64, WRMSR, GP, 0, .rcx = MSR_KERNEL_GS,
		 .rdx = 0x8000},
		{"SYSENTER_ESP not canonical", K64, WRMSR, GP, 0, .rcx = MSR_SYSENTER_ESP,
		 .rdx = 0x8000},
		{"SYSENTER_EIP not canonical", K64, WRMSR, GP, 0, .rcx = MSR_SYSENTER_EIP,
		 .rdx = 0x8000},
		{"LSTAR canonical high", K64, WRMSR, VEC_DONE, EX, .rcx = MSR_LSTAR,
		 .rdx = 0xffff8000},
		{"PAT type 2", K64, WRMSR, GP, 0, .rcx = MSR_PAT, .rax = 0x00070402,
		 .rdx = 0x00070406},
		{"PAT type 3", K64, WRMSR, GP, 0, .rcx = MSR_PAT, .rax = 0x00070406,
		 .rdx = 0x03070406},
		{"PAT type 8", K64, WRMSR, GP, 0, .rcx = MSR_PAT, .rax = 0x00070408,
		 .rdx = 0x00070406},
		{"PAT reset value", K64, WRMSR, VEC_DONE, EX, .rcx = MSR_PAT, .rax = 0x00070406,
		 .rdx = 0x00070406},
		{"MTRRCAP is read-only", K64, WRMSR, GP, 0, .rcx = 0xfe},
		{"APIC base bit 0", K64, WRMSR, GP, 0, .rcx = MSR_APIC_BASE, .rax = 0xfee00901},
		{"APIC base reserved high bit", K64, WRMSR, GP, 0, .rcx = MSR_APIC_BASE,
		 .rax = 0xfee00900, .rdx = 0x80000000},
	};

	for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
		char name[80];

		/* One case each: they depend on nothing in common. */
		snprintf(name, sizeof(name), "exceptions: MSR: %s", bad[i].name);
		test_begin(name);
		insn_run(&bad[i]);
		test_end();
	}
	wrmsr(MSR_EFER, efer);
}

void test_registers(void)
{
	test_control_registers();
	test_msrs();
}
