/* Descriptor tables and the start of a processor. */
#include "guest.h"

extern u8 cpu_areas[];
u32 cpu_count = 1;

struct cpu *cpu_get(u32 index)
{
	return (struct cpu *)(cpu_areas + index * CPU_AREA);
}

u64 descriptor(u32 base, u32 limit, u8 access, u8 flags)
{
	return (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)access << 40 |
	       (u64)(limit >> 16 & 0xf) << 48 | (u64)(flags & 0xf) << 52 | (u64)(base >> 24) << 56;
}

/* Also makes it available again: LTR wants that (SDM vol. 2 LTR). */
void set_tss_descriptor(struct cpu *c)
{
	u64 base = (u64)&c->tss;

	c->gdt[SEL_TSS / 8] = descriptor((u32)base, sizeof(c->tss) - 1, 0x89, 0);
	c->gdt[SEL_TSS / 8 + 1] = base >> 32;
}

void cpu_load_tables(struct cpu *c)
{
	struct table_ptr gdtr = {sizeof(c->gdt) - 1, (u64)c->gdt};
	struct table_ptr idtr = {sizeof(idt) - 1, (u64)idt};
	u64 area = (u64)c;

	c->gdt[0] = 0;
	c->gdt[SEL_KCODE / 8] = descriptor(0, 0xfffff, 0x9b, 0xa);
	c->gdt[SEL_KDATA / 8] = descriptor(0, 0xfffff, 0x93, 0xc);
	c->gdt[SEL_UCODE32 / 8] = descriptor(0, 0xfffff, 0xfb, 0xc);
	c->gdt[SEL_UDATA / 8] = descriptor(0, 0xfffff, 0xf3, 0xc);
	c->gdt[SEL_UCODE / 8] = descriptor(0, 0xfffff, 0xfb, 0xa);
	c->gdt[SEL_UDATA2 / 8] = descriptor(0, 0xfffff, 0xf3, 0xc);
	c->gdt[SEL_KCODE32 / 8] = descriptor(0, 0xfffff, 0x9b, 0xc);
	set_tss_descriptor(c);

	c->tss.rsp[0] = area + STACK_IST1;
	c->tss.ist[0] = area + STACK_IST1;
	c->tss.ist[1] = area + STACK_IST2;
	c->tss.ist[2] = area + STACK_IST3;
	c->tss.iomap = sizeof(c->tss); /* beyond the limit: no bitmap */

	asm volatile("lgdt %0" ::"m"(gdtr) : "memory");
	asm volatile("lidt %0" ::"m"(idtr) : "memory");
	asm volatile("push %0; lea 1f(%%rip), %%rax; push %%rax; lretq; 1:" ::"i"(SEL_KCODE)
		     : "rax", "memory");
	asm volatile("mov %0, %%ss" ::"r"(SEL_KDATA));
	asm volatile("lldt %w0" ::"r"(0)); /* reset leaves a limit of 64 KiB at 0 */
	asm volatile("ltr %w0" ::"r"(SEL_TSS));
	/* SSE state usable: the tests execute it, the runtime is built without. */
	write_cr4(CR4_PAE | CR4_FXSR | CR4_XMM);
	write_cr0(CR0_PE | CR0_MP | CR0_NE | BIT(4) | CR0_WP | CR0_PG);
	if (cpuid(0x80000001, 0).d & BIT(20))
		wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE | EFER_SCE);
	else
		wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
	asm volatile("fninit");
}

struct multiboot_info {
	u32 flags, mem_lower, mem_upper, boot_device, cmdline;
};

static char command_line[256];

static void idt_init(void)
{
	for (u32 v = 0; v < 256; v++)
		idt_set(v, NULL, 1, v == BP || v == OF || v == VEC_DONE ? 3 : 0);
	idt_set(DF, NULL, 2, 0);
	idt_set(NMI, NULL, 3, 0);
}

void start_boot(u32 index, const struct multiboot_info *mb);
void start_boot(u32 index, const struct multiboot_info *mb)
{
	struct cpu *c = cpu_get(index);

	if (mb && (mb->flags & BIT(2)) && mb->cmdline) {
		const char *s = (const char *)(u64)mb->cmdline;

		for (size_t i = 0; i < sizeof(command_line) - 1 && s[i]; i++)
			command_line[i] = s[i];
	}
	idt_init();
	c->index = 0;
	cpu_load_tables(c);
	pic_mask_all();
	lapic_enable();
	c->apic_id = lapic_read(LAPIC_ID) >> 24;
	c->online = true;
	test_main();
	test_exit();
}

/* The command line begins with the path of the image or not, as the loader likes: look for words.
 */
u64 argument(const char *name, u64 otherwise)
{
	size_t n = strlen(name);

	for (const char *s = command_line; *s; s++) {
		u64 v = 0;

		if ((s != command_line && s[-1] != ' ') || memcmp(s, name, n) || s[n] != '=')
			continue;
		for (s += n + 1; *s >= '0' && *s <= '9'; s++)
			v = v * 10 + (u64)(*s - '0');
		return v;
	}
	return otherwise;
}
