/*
 * Names of the architecture and one-instruction wrappers. "SDM" is the Intel 64 and IA-32
 * Architectures Software Developer's Manual; sections are those of revision 084.
 */
#ifndef GUEST_X86_H
#define GUEST_X86_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t s32;
typedef int64_t s64;

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define BIT(n)	      (1ull << (n))

/* Vectors (SDM vol. 3A table 6-1). */
enum { DE, DB, NMI, BP, OF, BR, UD, NM, DF, TS = 10, NP, SS, GP, PF, MF = 16, AC, MC, XM };

/* #PF error code (SDM vol. 3A figure 4-12). */
enum { PF_P = 1, PF_W = 2, PF_U = 4, PF_RSVD = 8, PF_I = 16 };

#define CR0_PE BIT(0)
#define CR0_MP BIT(1)
#define CR0_EM BIT(2)
#define CR0_TS BIT(3)
#define CR0_NE BIT(5)
#define CR0_WP BIT(16)
#define CR0_AM BIT(18)
#define CR0_NW BIT(29)
#define CR0_CD BIT(30)
#define CR0_PG BIT(31)

#define CR4_VME	  BIT(0)
#define CR4_TSD	  BIT(2)
#define CR4_DE	  BIT(3)
#define CR4_PSE	  BIT(4)
#define CR4_PAE	  BIT(5)
#define CR4_MCE	  BIT(6)
#define CR4_PGE	  BIT(7)
#define CR4_FXSR  BIT(9)
#define CR4_XMM	  BIT(10)
#define CR4_UMIP  BIT(11)
#define CR4_LA57  BIT(12)
#define CR4_FSGS  BIT(16)
#define CR4_PCID  BIT(17)
#define CR4_XSAVE BIT(18)
#define CR4_SMEP  BIT(20)
#define CR4_SMAP  BIT(21)
#define CR4_PKE	  BIT(22)

#define FL_CF	 BIT(0)
#define FL_FIXED BIT(1)
#define FL_PF	 BIT(2)
#define FL_AF	 BIT(4)
#define FL_ZF	 BIT(6)
#define FL_SF	 BIT(7)
#define FL_TF	 BIT(8)
#define FL_IF	 BIT(9)
#define FL_DF	 BIT(10)
#define FL_OF	 BIT(11)
#define FL_IOPL3 (3ull << 12)
#define FL_NT	 BIT(14)
#define FL_RF	 BIT(16)
#define FL_VM	 BIT(17)
#define FL_AC	 BIT(18)
#define FL_ID	 BIT(21)
#define FL_ARITH (FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF | FL_OF)

#define MSR_TSC		 0x10
#define MSR_APIC_BASE	 0x1b
#define MSR_TSC_ADJUST	 0x3b
#define MSR_SYSENTER_CS	 0x174
#define MSR_SYSENTER_ESP 0x175
#define MSR_SYSENTER_EIP 0x176
#define MSR_PAT		 0x277
#define MSR_TSC_DEADLINE 0x6e0
#define MSR_EFER	 0xc0000080
#define MSR_STAR	 0xc0000081
#define MSR_LSTAR	 0xc0000082
#define MSR_CSTAR	 0xc0000083
#define MSR_FMASK	 0xc0000084
#define MSR_FS_BASE	 0xc0000100
#define MSR_GS_BASE	 0xc0000101
#define MSR_KERNEL_GS	 0xc0000102
#define MSR_TSC_AUX	 0xc0000103

#define EFER_SCE BIT(0)
#define EFER_LME BIT(8)
#define EFER_LMA BIT(10)
#define EFER_NXE BIT(11)

#define ACCESSOR(reg)                                                                              \
	static inline u64 read_##reg(void)                                                         \
	{                                                                                          \
		u64 v;                                                                             \
		asm volatile("mov %%" #reg ", %0" : "=r"(v)::"memory");                            \
		return v;                                                                          \
	}                                                                                          \
	static inline void write_##reg(u64 v)                                                      \
	{                                                                                          \
		asm volatile("mov %0, %%" #reg ::"r"(v) : "memory");                               \
	}
ACCESSOR(cr0)
ACCESSOR(cr2)
ACCESSOR(cr3)
ACCESSOR(cr4)
ACCESSOR(cr8)
ACCESSOR(dr0)
ACCESSOR(dr1)
ACCESSOR(dr2)
ACCESSOR(dr3)
ACCESSOR(dr6)
ACCESSOR(dr7)
#undef ACCESSOR

static inline u64 rdmsr(u32 msr)
{
	u32 lo, hi;

	asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr) : "memory");
	return (u64)hi << 32 | lo;
}

static inline void wrmsr(u32 msr, u64 v)
{
	asm volatile("wrmsr" ::"c"(msr), "a"((u32)v), "d"((u32)(v >> 32)) : "memory");
}

static inline u64 rdtsc(void)
{
	u32 lo, hi;

	asm volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi)::"memory");
	return (u64)hi << 32 | lo;
}

struct cpuid {
	u32 a, b, c, d;
};

static inline struct cpuid cpuid(u32 leaf, u32 sub)
{
	struct cpuid r;

	asm volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(sub));
	return r;
}

static inline void outb(u16 port, u8 v)
{
	asm volatile("outb %0, %1" ::"a"(v), "Nd"(port) : "memory");
}

static inline void outl(u16 port, u32 v)
{
	asm volatile("outl %0, %1" ::"a"(v), "Nd"(port) : "memory");
}

static inline u8 inb(u16 port)
{
	u8 v;

	asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

static inline u32 inl(u16 port)
{
	u32 v;

	asm volatile("inl %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

static inline void invlpg(u64 va)
{
	asm volatile("invlpg (%0)" ::"r"(va) : "memory");
}

static inline void flush_tlb(void)
{
	write_cr3(read_cr3());
}

static inline void cpu_relax(void)
{
	asm volatile("pause" ::: "memory");
}

static inline void irq_enable(void)
{
	asm volatile("sti" ::: "memory");
}

static inline void irq_disable(void)
{
	asm volatile("cli" ::: "memory");
}

#endif
