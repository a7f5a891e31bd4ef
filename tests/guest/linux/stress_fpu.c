/* More threads than processors, each with its own numbers in x87 and SSE registers and in their
 * modes. */
#include <sched.h>
#include <string.h>

#include "stress.h"

/* Loads all of them, gives the processor away, and looks again. */
static bool keeps(uint64_t pattern, uint32_t mxcsr, uint16_t control)
{
	uint64_t in[32], out[32];
	double x[6], y[6];
	uint32_t mxcsr_now;
	uint16_t control_now;

	for (unsigned i = 0; i < 32; i++)
		in[i] = pattern * (i + 1);
	for (unsigned i = 0; i < 6; i++)
		x[i] = (double)(pattern >> 20) + i * 0.5;
	asm volatile("fninit\n\tfldcw %[cw]\n\tldmxcsr %[mx]\n\t"
		     "fldl 0(%[x])\n\tfldl 8(%[x])\n\tfldl 16(%[x])\n\tfldl 24(%[x])\n\tfldl "
		     "32(%[x])\n\tfldl 40(%[x])\n\t"
		     "movdqu 0(%[in]), %%xmm0\n\tmovdqu 16(%[in]), %%xmm1\n\tmovdqu 32(%[in]), "
		     "%%xmm2\n\t"
		     "movdqu 48(%[in]), %%xmm3\n\tmovdqu 64(%[in]), %%xmm4\n\tmovdqu 80(%[in]), "
		     "%%xmm5\n\t"
		     "movdqu 96(%[in]), %%xmm6\n\tmovdqu 112(%[in]), %%xmm7\n\tmovdqu 128(%[in]), "
		     "%%xmm8\n\t"
		     "movdqu 144(%[in]), %%xmm9\n\tmovdqu 160(%[in]), %%xmm10\n\tmovdqu "
		     "176(%[in]), %%xmm11\n\t"
		     "movdqu 192(%[in]), %%xmm12\n\tmovdqu 208(%[in]), %%xmm13\n\tmovdqu "
		     "224(%[in]), %%xmm14\n\t"
		     "movdqu 240(%[in]), %%xmm15\n\t"
		     "mov $24, %%eax\n\tsyscall\n\t" /* sched_yield */
		     "mov $200, %%ecx\n1:\tpause\n\tloop 1b\n\t"
		     "fstpl 40(%[y])\n\tfstpl 32(%[y])\n\tfstpl 24(%[y])\n\tfstpl "
		     "16(%[y])\n\tfstpl 8(%[y])\n\tfstpl 0(%[y])\n\t"
		     "movdqu %%xmm0, 0(%[out])\n\tmovdqu %%xmm1, 16(%[out])\n\tmovdqu %%xmm2, "
		     "32(%[out])\n\t"
		     "movdqu %%xmm3, 48(%[out])\n\tmovdqu %%xmm4, 64(%[out])\n\tmovdqu %%xmm5, "
		     "80(%[out])\n\t"
		     "movdqu %%xmm6, 96(%[out])\n\tmovdqu %%xmm7, 112(%[out])\n\tmovdqu %%xmm8, "
		     "128(%[out])\n\t"
		     "movdqu %%xmm9, 144(%[out])\n\tmovdqu %%xmm10, 160(%[out])\n\tmovdqu %%xmm11, "
		     "176(%[out])\n\t"
		     "movdqu %%xmm12, 192(%[out])\n\tmovdqu %%xmm13, 208(%[out])\n\tmovdqu "
		     "%%xmm14, 224(%[out])\n\t"
		     "movdqu %%xmm15, 240(%[out])\n\t"
		     "stmxcsr %[mxo]\n\tfnstcw %[cwo]\n\tfninit"
		     : [mxo] "=m"(mxcsr_now), [cwo] "=m"(control_now)
		     : [in] "r"(in), [out] "r"(out), [x] "r"(x), [y] "r"(y), [mx] "m"(mxcsr),
		       [cw] "m"(control)
		     : "rax", "rcx", "r11", "memory", "cc", "st", "st(1)", "st(2)", "st(3)",
		       "st(4)", "st(5)", "st(6)", "st(7)", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4",
		       "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13",
		       "xmm14", "xmm15");
	asm volatile("ldmxcsr %0" : : "m"((const uint32_t){0x1f80}));
	return !memcmp(in, out, sizeof(in)) && !memcmp(x, y, sizeof(x)) && mxcsr_now == mxcsr &&
	       control_now == control;
}

static void worker(struct run *r, unsigned index, void *arg)
{
	/* rounding mode in bits 13-14 of MXCSR, 10-11 of the x87 control word */
	uint32_t mxcsr = 0x1f80 | (index % 4) << 13;
	uint16_t control = (uint16_t)(0x037f | (index % 4) << 10);
	uint64_t pattern = 0x9e3779b97f4a7c15 * (index + 1);

	(void)arg;
	while (going(r)) {
		for (unsigned i = 0; i < 100; i++)
			if (!keeps(random64(&pattern), mxcsr, control))
				wrong(r, "thread %u lost floating-point or vector registers",
				      index);
		checked(r, 100);
	}
}

void stress_fpu(struct run *r)
{
	in_parallel(r, 3 * r->threads, worker, NULL);
}
