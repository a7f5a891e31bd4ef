/* SYSCALL and SYSENTER, and back. */
#include "segments.h"

/* ---- SYSCALL and SYSENTER ---------------------------------------------------------------------
 */

SNIPPET(syscall_insn, "syscall");
SNIPPET(sysretq_insn, "sysretq");
SNIPPET(sysretl_insn, "sysretl");
SNIPPET(entry_insn, "mov %ss, %ebx");
SNIPPET(sysenter_insn, "sysenter");
SNIPPET32(sysenter32_insn, "sysenter");
SNIPPET(sysexitl_insn, "sysexitl");
SNIPPET(sysexitq_insn, "rex.w sysexit");

void test_syscall(void)
{
	struct ctx c;
	u64 sp;

	wrmsr(MSR_STAR, (u64)SEL_UCODE32 << 48 | (u64)SEL_KCODE << 32);
	wrmsr(MSR_LSTAR, (u64)entry_insn);
	wrmsr(MSR_FMASK, 0);

	test_begin("segments: SYSCALL");
	for (int i = 0; i < 3; i++) {
		u64 mask = i == 0 ? 0 : i == 1 ? FL_CF | FL_IF | FL_AC : 0xffffffff;
		u64 flags = FL_FIXED | FL_CF | FL_AC | FL_IOPL3 | FL_OF;

		wrmsr(MSR_FMASK, mask);
		c = ctx_user(syscall_insn);
		c.rflags = flags;
		sp = c.gpr[RSP];
		exec(&c);
		test_context("FMASK 0x%lx", mask);
		expect_done(&c);
		expect("RIP", (u64)entry_insn_end, c.rip);
		expect("RCX", (u64)user_alias(syscall_insn) + 2, c.gpr[RCX]);
		expect("R11", flags, c.gpr[R11]);
		expect("flags", (flags & ~mask) | FL_FIXED, c.rflags);
		expect("CS", SEL_KCODE, c.cs);
		expect("SS", SEL_KCODE + 8, c.gpr[RBX] & 0xffff);
		expect("RSP is left alone", sp, c.gpr[RSP]);
	}
	wrmsr(MSR_FMASK, 0);
	test_context(NULL);
	test_end();

	test_begin("segments: SYSRET");
	c = ctx_kernel(sysretq_insn);
	c.gpr[RCX] = (u64)user_alias(mode_probe);
	c.gpr[R11] = FL_CF | FL_IOPL3 | FL_ID | FL_RF | 0x8028 | FL_VM | 0xffffffff00000000;
	c.gpr[RAX] = 5;
	sp = c.gpr[RSP];
	exec(&c);
	expect_done(&c);
	expect("64-bit", 7, c.gpr[RAX]);
	expect("CS", SEL_UCODE, c.cs);
	expect("SS", SEL_UDATA, c.ss);
	expect("RSP", sp, c.gpr[RSP]);
	expect("flags but for the ADD", FL_IOPL3 | FL_ID | FL_FIXED, c.rflags & ~FL_ARITH);
	c = ctx_kernel(sysretl_insn);
	c.gpr[RCX] = (u64)user_alias(mode_probe) | 0xffffffff00000000;
	c.gpr[R11] = FL_FIXED;
	c.gpr[RAX] = 5;
	exec(&c);
	expect_done(&c);
	expect("32-bit", 6, (u32)c.gpr[RAX]);
	expect("CS", SEL_UCODE32, c.cs);
	expect("SS", SEL_UDATA, c.ss);
	test_end();

	test_begin("segments: SYSCALL and SYSRET without EFER.SCE are #UD");
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~EFER_SCE);
	c = ctx_user(syscall_insn);
	exec(&c);
	expect_trap(&c, UD, NO_ERROR);
	c = ctx_kernel(sysretq_insn);
	exec(&c);
	expect_trap(&c, UD, NO_ERROR);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
	test_end();

	if (cpuid(0, 0).b != 0x756e6547 || !(cpuid(1, 0).d & BIT(11))) {
		test_skip("segments: SYSENTER and SYSEXIT", "not of Intel's kind");
		return;
	}
	test_begin("segments: SYSENTER");
	wrmsr(MSR_SYSENTER_CS, 0);
	c = ctx_user(sysenter_insn);
	exec(&c);
	expect_trap(&c, GP, 0); /* MSR null */
	wrmsr(MSR_SYSENTER_CS, SEL_KCODE);
	wrmsr(MSR_SYSENTER_ESP, (u64)this_cpu() + STACK_IST2);
	wrmsr(MSR_SYSENTER_EIP, (u64)entry_insn);
	for (int i = 0; i < 2; i++) {
		c = i ? ctx_user32(sysenter32_insn) : ctx_user(sysenter_insn);
		c.rflags |= FL_IF | FL_CF | FL_IOPL3;
		exec(&c);
		test_context("from %s", i ? "compatibility mode" : "64-bit mode");
		expect_done(&c);
		expect("RIP", (u64)entry_insn_end, c.rip);
		expect("RSP", (u64)this_cpu() + STACK_IST2, c.gpr[RSP]);
		expect("CS", SEL_KCODE, c.cs);
		expect("SS", SEL_KDATA, c.gpr[RBX] & 0xffff);
		expect("IF and VM cleared, others not", FL_CF | FL_IOPL3 | FL_FIXED, c.rflags);
	}
	test_context(NULL);
	test_end();

	test_begin("segments: SYSEXIT");
	c = ctx_kernel(sysexitl_insn);
	c.gpr[RDX] = (u64)user_alias(mode_probe);
	c.gpr[RCX] = (u64)this_cpu() + STACK_USER + USER_ALIAS - 64;
	sp = c.gpr[RCX];
	c.gpr[RAX] = 5;
	exec(&c);
	expect_done(&c);
	expect("32-bit", 6, (u32)c.gpr[RAX]);
	expect("CS", (SEL_KCODE + 16) | 3, c.cs);
	expect("SS", (SEL_KCODE + 24) | 3, c.ss);
	expect("RSP", sp, c.gpr[RSP]);
	c = ctx_kernel(sysexitq_insn);
	c.gpr[RDX] = (u64)user_alias(mode_probe);
	c.gpr[RCX] = sp;
	c.gpr[RAX] = 5;
	exec(&c);
	expect_done(&c);
	expect("64-bit", 7, c.gpr[RAX]);
	expect("CS", (SEL_KCODE + 32) | 3, c.cs);
	expect("SS", (SEL_KCODE + 40) | 3, c.ss);
	c = ctx_kernel(sysexitq_insn);
	c.gpr[RDX] = 0x800000000000;
	exec(&c);
	test_context("RDX not canonical");
	expect_trap(&c, GP, 0);
	test_end();
}
