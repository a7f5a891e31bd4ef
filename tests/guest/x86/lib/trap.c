/* The handler behind every vector, and contexts for exec(). */
#include "guest.h"

_Static_assert(offsetof(struct ctx, rip) == 128 && offsetof(struct ctx, rflags) == 136 &&
		       offsetof(struct ctx, cs) == 144 && offsetof(struct ctx, gs) == 154,
	       "entry.S knows these");

struct idt_entry idt[256] __attribute__((aligned(16)));
static irq_fn *handlers[256];

extern const char trap_stubs[];

static const char *const names[] = {"#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD",
				    "#NM", "#DF", "9",	 "#TS", "#NP", "#SS", "#GP",
				    "#PF", "15",  "#MF", "#AC", "#MC", "#XM"};

const char *vector_name(u32 vector)
{
	static char text[MAX_CPUS][8];
	char *t = text[this_cpu()->index];

	if (vector == VEC_DONE)
		return "done";
	if (vector < ARRAY_SIZE(names))
		return names[vector];
	snprintf(t, sizeof(text[0]), "0x%x", vector);
	return t;
}

void irq_handler(u32 vector, irq_fn *fn)
{
	__atomic_store_n(&handlers[vector], fn, __ATOMIC_SEQ_CST);
}

/* Called by entry.S: 0 to return to the interrupted code, otherwise the stack pointer saved by
 * exec(). */
u64 trap(struct frame *f);
u64 trap(struct frame *f)
{
	struct cpu *cpu = this_cpu();
	struct ctx *c = cpu->exec_ctx;
	u32 vector = (u32)f->vector & 0xff;

	if (handlers[vector]) {
		handlers[vector](f);
		return 0;
	}
	if (!c)
		panic("cpu %u: unexpected %s error 0x%lx at 0x%lx:0x%lx cr2 0x%lx rflags 0x%lx",
		      cpu->index, vector_name(vector), f->error, f->cs, f->rip, read_cr2(),
		      f->rflags);
	memcpy(c->gpr, f->gpr, sizeof(c->gpr));
	c->gpr[RSP] = f->rsp;
	c->rip = f->rip;
	c->rflags = f->rflags;
	c->cs = (u16)f->cs;
	c->ss = (u16)f->ss;
	asm volatile("mov %%ds, %0" : "=r"(c->ds));
	asm volatile("mov %%es, %0" : "=r"(c->es));
	asm volatile("mov %%fs, %0" : "=r"(c->fs));
	asm volatile("mov %%gs, %0" : "=r"(c->gs));
	c->vector = vector;
	c->error = f->error;
	c->cr2 = read_cr2();
	c->dr6 = read_dr6();
	c->frame_rsp = (u64)&f->rip;
	cpu->exec_ctx = NULL;
	return cpu->exec_rsp;
}

void idt_set(u32 vector, void *entry, u8 ist, u8 dpl)
{
	u64 a = (u64)entry;

	if (!entry)
		a = (u64)trap_stubs + 16 * vector;
	idt[vector] = (struct idt_entry){
		.offset0 = (u16)a,
		.selector = SEL_KCODE,
		.ist = ist,
		.type = (u8)(0x8e | dpl << 5),
		.offset1 = (u16)(a >> 16),
		.offset2 = (u32)(a >> 32),
	};
}

static struct ctx context(const void *code, u16 cs, u16 ds, u64 stack)
{
	return (struct ctx){
		.rip = (u64)code,
		.rflags = FL_FIXED,
		.cs = cs,
		.ss = ds,
		.ds = ds,
		.es = ds,
		.fs = ds,
		.gs = ds,
		.gpr[RSP] = stack,
	};
}

struct ctx ctx_kernel(const void *code)
{
	return context(code, SEL_KCODE, SEL_KDATA, (u64)this_cpu() + STACK_USER);
}

struct ctx ctx_user(const void *code)
{
	return context(user_alias(code), SEL_UCODE, SEL_UDATA,
		       (u64)this_cpu() + STACK_USER + USER_ALIAS);
}

struct ctx ctx_user32(const void *code)
{
	return context(user_alias(code), SEL_UCODE32, SEL_UDATA,
		       (u64)this_cpu() + STACK_USER + USER_ALIAS);
}

struct ctx ctx_kernel32(const void *code)
{
	return context(code, SEL_KCODE32, SEL_KDATA, (u64)this_cpu() + STACK_USER);
}

u8 *put_code(const void *bytes, size_t len)
{
	static u8 *at, *end;
	u8 *r;

	/* The bytes may be fetched past their end by design (an instruction that is longer than
	 * expected): pad with INT 0x81, which any of them then meets. */
	if (len > 4000)
		panic("put_code: %lu bytes", len);
	if (end - at < (s64)len + 64) {
		at = alloc_pages(16);
		end = at + 16 * PAGE_SIZE;
	}
	r = at;
	memcpy(r, bytes, len);
	for (size_t i = len; i < len + 32; i += 2) {
		r[i] = 0xcd;
		r[i + 1] = VEC_DONE;
	}
	at += (len + 63) & ~15ull;
	return r;
}
