/*
 * A hostile guest on the patched Unicorn: random instructions in every mode, random tables, control
 * registers and debug registers, and a second stage that says RAM, read-only, MMIO or "not there"
 * as it likes. Whatever the guest does, the process lives, every run ends in an exit, none of them
 * is ERROR, and a state that was taken is a state that is accepted.
 *
 * An input is a seed (all of its bytes, hashed) and machine code (its bytes from the ninth on,
 * mixed into what the seed generates). The address of the kicks is the one thing that is not
 * reproduced: they come from a thread, so that an endless loop of the guest is an exit like any
 * other.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <unicorn/unicorn.h>
#include <unicorn/vcpu.h>

#include "tests/fuzz/uc_x86_guest.h"
#include "tests/fuzz/uc_x86_state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum {
	EXITS = 24,	   /* per input */
	ENGINE_LIFE = 200, /* inputs; then it is closed, with whatever it holds */
};

static uc_engine *uc;
static bool kicking;
static uint64_t inputs, refused, exits_by[8];

/* --- callbacks --- */

static int op_translate(void *opaque, uint64_t gpa, uint64_t gva, uint32_t access, uint32_t walk,
			uc_vcpu_xlat *out)
{
	(void)opaque, (void)gva, (void)walk;
	if (gpa >= RAM)
		return gpa & 0x1000 ? UC_VCPU_XLAT_MMIO : UC_VCPU_XLAT_FAULT;
	out->hpa = gpa;
	switch (policy[gpa / PAGE]) {
	case RAM_RO:
		if (access & UC_VCPU_WRITE)
			return UC_VCPU_XLAT_FAULT;
		out->prot = UC_PROT_READ | UC_PROT_EXEC;
		return UC_VCPU_XLAT_RAM;
	case MISSING: return UC_VCPU_XLAT_FAULT;
	case MMIO: return UC_VCPU_XLAT_MMIO;
	default: out->prot = UC_PROT_ALL; return UC_VCPU_XLAT_RAM;
	}
}

static uint64_t op_mmio_read(void *opaque, uint64_t gpa, unsigned size)
{
	(void)opaque, (void)gpa, (void)size;
	return value();
}

static void op_mmio_write(void *opaque, uint64_t gpa, unsigned size, uint64_t v)
{
	(void)opaque, (void)gpa, (void)size, (void)v;
}

static uint32_t op_pio_read(void *opaque, uint16_t port, unsigned size)
{
	(void)opaque, (void)port, (void)size;
	return (uint32_t)value();
}

static void op_pio_write(void *opaque, uint16_t port, unsigned size, uint32_t v)
{
	uc_x86_vcpu_state s;

	(void)opaque, (void)port, (void)size, (void)v;
	if (one_in(4)) /* a callback may look */
		uc_x86_vcpu_get_state(uc, &s);
}

static int op_irq_ack(void *opaque)
{
	(void)opaque;
	uc_vcpu_set_irq(uc, false);
	return one_in(8) ? -1 : (int)below(256);
}

static uint64_t op_tsc(void *opaque)
{
	(void)opaque;
	return rnd();
}

static int op_rdmsr(void *opaque, uint32_t msr, uint64_t *v)
{
	(void)opaque;
	if ((msr & 7) == 7) {
		*v = rnd();
		return 0;
	}
	return msr & 0x20 ? 1 : (int)below(2) + 1;
}

static int op_wrmsr(void *opaque, uint32_t msr, uint64_t v)
{
	(void)opaque, (void)v;
	return (msr & 7) == 7 ? 0 : 1;
}

static void op_cpuid(void *opaque, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	(void)opaque, (void)subleaf;
	memset(out, 0, 16);
	switch (leaf) {
	case 0:
		out[0] = 13, memcpy(&out[1], "Genu", 4), memcpy(&out[3], "ineI", 4),
		memcpy(&out[2], "ntel", 4);
		break;
	case 1: out[2] = 0x04d82201, out[3] = 0x0783fbff; break;
	case 7: out[1] = 1 | 1 << 3 | 1 << 7 | 1 << 8 | 1 << 20; break;
	case 0xd: out[0] = 3; break;
	case 0x80000001: out[3] = 1 << 11 | 1 << 20 | 1 << 27 | 1 << 29; break;
	}
}

static uint64_t op_cr8_read(void *opaque)
{
	(void)opaque;
	return below(16);
}

static void op_cr8_write(void *opaque, uint64_t v)
{
	(void)opaque, (void)v;
}

static const uc_vcpu_ops ops = {op_translate, op_mmio_read, op_mmio_write, op_pio_read,
				op_pio_write, op_irq_ack,   op_tsc,	   op_rdmsr,
				op_wrmsr,     op_cpuid,	    op_cr8_read,   op_cr8_write};

/* --- runs --- */

static void *kicker(void *arg)
{
	(void)arg;
	for (;;) {
		uc_engine *e;

		usleep(500);
		e = __atomic_load_n(&uc, __ATOMIC_ACQUIRE);
		if (e && __atomic_load_n(&kicking, __ATOMIC_ACQUIRE))
			uc_vcpu_kick(e);
	}
	return NULL;
}

static void die(const char *what, const char *text)
{
	fprintf(stderr, "fuzz_uc_x86: %s: %s\n", what, text ? text : "");
	abort();
}

/* The engine reported a state that it does not take back: one that hardware is never in. */
static void die_of_state(const uc_x86_vcpu_state *s)
{
	char text[768];

	snprintf(text, sizeof(text),
		 "cr0 %llx cr3 %llx cr4 %llx efer %llx xcr0 %llx rflags %llx dr6 %llx dr7 %llx gdt "
		 "%llx idt %llx "
		 "ldt %llx/%x tr %llx/%x fs %llx gs %llx kgs %llx cs %x lstar %llx cstar %llx esp "
		 "%llx eip %llx "
		 "event %u type %u vector %u length %u",
		 (unsigned long long)s->cr0, (unsigned long long)s->cr3, (unsigned long long)s->cr4,
		 (unsigned long long)s->efer, (unsigned long long)s->xcr0,
		 (unsigned long long)s->rflags, (unsigned long long)s->dr[6],
		 (unsigned long long)s->dr[7], (unsigned long long)s->gdt_base,
		 (unsigned long long)s->idt_base, (unsigned long long)s->ldt.base, s->ldt.attr,
		 (unsigned long long)s->tr.base, s->tr.attr, (unsigned long long)s->seg[4].base,
		 (unsigned long long)s->seg[5].base, (unsigned long long)s->kernel_gs_base,
		 s->seg[1].attr, (unsigned long long)s->lstar, (unsigned long long)s->cstar,
		 (unsigned long long)s->sysenter_esp, (unsigned long long)s->sysenter_eip,
		 s->pending_valid, s->pending_type, s->pending_vector, s->pending_insn_len);
	die("its own state was refused", text);
}

static void open_engine(void)
{
	uc_engine *e;

	if (uc_open(UC_ARCH_X86, UC_MODE_64, &e) || uc_mem_map_ptr(e, 0, RAM, UC_PROT_ALL, ram) ||
	    uc_vcpu_enable(e, &ops, NULL, 1 << 20, one_in(2)))
		die("no engine", NULL);
	__atomic_store_n(&uc, e, __ATOMIC_RELEASE);
}

static void close_engine(void)
{
	uc_engine *e = uc;

	__atomic_store_n(&kicking, false, __ATOMIC_RELEASE);
	__atomic_store_n(&uc, NULL, __ATOMIC_RELEASE);
	usleep(2000); /* the kicker has let go of it */
	uc_close(e);
}

static void report(void)
{
	printf("fuzz_uc_x86: %llu inputs, %llu states refused; exits: kick %llu, halt %llu, "
	       "shutdown %llu, fault %llu, atomic %llu, step %llu\n",
	       (unsigned long long)inputs, (unsigned long long)refused,
	       (unsigned long long)exits_by[0], (unsigned long long)exits_by[1],
	       (unsigned long long)exits_by[2], (unsigned long long)exits_by[3],
	       (unsigned long long)exits_by[4], (unsigned long long)exits_by[5]);
}

static void once(void)
{
	pthread_t t;

	if (ram)
		return;
	ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (ram == MAP_FAILED || pthread_create(&t, NULL, kicker, NULL))
		die("no memory", NULL);
	atexit(report);
}

/* What the owner may do between two runs. Returns false when this guest is done. */
static bool between(const uc_vcpu_run_info *info)
{
	uc_x86_vcpu_state s;

	switch (info->reason) {
	case UC_VCPU_EXIT_FAULT:
		if (info->fault.gpa < RAM) {
			policy[info->fault.gpa / PAGE] = RAM_RW;
			uc_vcpu_flush_hpa(uc, info->fault.gpa & ~UINT64_C(4095), PAGE);
		} else if (one_in(2)) {
			return false;
		}
		break;
	case UC_VCPU_EXIT_HLT:
		uc_vcpu_set_irq(uc, true);
		if (one_in(4))
			uc_vcpu_nmi(uc);
		break;
	case UC_VCPU_EXIT_SHUTDOWN: return false;
	default: break;
	}
	switch (below(12)) {
	case 0: uc_vcpu_flush_tlb(uc); break;
	case 1: uc_vcpu_invalidate_code(uc, below(RAM), below(3 * PAGE)); break;
	case 2: uc_vcpu_set_irq(uc, one_in(2)); break;
	case 3: /* a page goes away or becomes read-only */
		policy[below(PAGES)] = (uint8_t)below(4);
		uc_vcpu_flush_tlb(uc);
		break;
	case 4:
	case 5:
		if (uc_x86_vcpu_get_state(uc, &s) || uc_x86_vcpu_set_state(uc, &s))
			die_of_state(&s);
		break;
	}
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	uc_x86_vcpu_state s;
	uc_vcpu_run_info info;
	enum mode mode;
	int kicks = 0;

	once();
	rng = 0xcbf29ce484222325;
	for (size_t i = 0; i < len; i++)
		rng = (rng ^ data[i]) * 0x100000001b3;
	raw = len > 8 ? data + 8 : NULL;
	raw_len = len > 8 ? len - 8 : 0;
	if (uc && inputs % ENGINE_LIFE == 0)
		close_engine();
	if (!uc)
		open_engine();
	inputs++;

	mode = (enum mode)below(MODES);
	tables(mode);
	program(mode);
	uc_vcpu_flush_tlb(uc);
	uc_vcpu_invalidate_code(uc, 0, RAM);
	random_state(&s, mode);
	if (uc_x86_vcpu_set_state(uc, &s)) {
		refused++;
		return 0;
	}
	__atomic_store_n(&kicking, true, __ATOMIC_RELEASE);
	memset(&info, 0, sizeof(info));
	for (int i = 0; i < EXITS && kicks < 3; i++) {
		uc_err e = info.reason == UC_VCPU_EXIT_ATOMIC ? uc_vcpu_step_exclusive(uc, &info)
			   : one_in(6)			      ? uc_vcpu_step(uc, &info)
							      : uc_vcpu_run(uc, &info);

		if (e)
			die("run", uc_strerror(e));
		if (info.reason == UC_VCPU_EXIT_ERROR)
			die("ERROR", info.error);
		exits_by[info.reason & 7]++;
		kicks += info.reason == UC_VCPU_EXIT_KICK;
		if (!between(&info))
			break;
	}
	__atomic_store_n(&kicking, false, __ATOMIC_RELEASE);
	return 0;
}
