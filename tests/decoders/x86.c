/* Console, exit and the guest's own translation, for SVM and VMX. */
#include "tests/decoders/x86.h"

static uint8_t *stub;
static uint8_t call[3];

static void outb(uint16_t port, uint8_t value)
{
	asm volatile("outb %0, %1" ::"a"(value), "Nd"(port));
}

void arch_putc(char c)
{
	uint8_t status;

	do
		asm volatile("inb %1, %0" : "=a"(status) : "Nd"((uint16_t)0x3fd));
	while (!(status & 0x20));
	outb(0x3f8, (uint8_t)c);
}

_Noreturn void arch_exit(void)
{
	outb(0xf4, 0);
	for (const char *word = "Shutdown"; *word; word++) /* Bochs */
		outb(0x8900, (uint8_t)*word);
	for (;;)
		asm volatile("hlt");
}

/* Eight bits, as fast as it goes. */
void x86_console_init(void)
{
	outb(0x3fb, 0x83);
	outb(0x3f8, 1);
	outb(0x3f9, 0);
	outb(0x3fb, 0x03);
}

void x86_stub_init(const struct image *image, const uint8_t leave[3])
{
	stub = (uint8_t *)(uintptr_t)image->stub;
	memcpy(call, leave, 3);
	stub[0] = 0x8b, stub[1] = 0x03; /* mov (%rbx), %eax */
	memcpy(stub + 2, call, 3);
	stub[16] = 0x89, stub[17] = 0x03; /* mov %eax, (%rbx) */
	memcpy(stub + 18, call, 3);
}

uint64_t x86_guest_root(const struct image_set *set)
{
	return set->stub_gpa + 0x1000;
}

void x86_stub_set(const struct image_set *set)
{
	uint64_t *table = (uint64_t *)(stub + 0x1000);

	for (int i = 0; i < 3; i++) /* P W A */
		table[i * 512] = (set->stub_gpa + 0x2000 + (uint64_t)i * 0x1000) | 0x23;
	table[3 * 512 + GUEST_CODE / 0x1000] = set->stub_gpa | 0x63;
}

uint64_t x86_stub_probe(const struct probe *p)
{
	uint64_t *table = (uint64_t *)(stub + 0x4000);

	table[GUEST_PROBE / 0x1000] = (p->gpa & ~UINT64_C(0xfff)) | 0x63; /* P W A D */
	if (p->access & PROBE_X)
		return GUEST_PROBE | (p->gpa & 0xfff);
	return GUEST_CODE + (p->access & PROBE_W ? 16 : 0);
}

void arch_put_code(void *at, uint32_t tag)
{
	uint8_t *code = at;

	code[0] = 0xb8; /* mov $tag, %eax */
	memcpy(code + 1, &tag, 4);
	memcpy(code + 5, call, 3);
}
