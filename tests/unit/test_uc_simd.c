/* Description: Integer SIMD done by the translator's vector operations must be what the host's
 * processor does: every operation, MMX and SSE2, on random and on extreme operands; immediates of
 * shifts and shuffles in full. */
#include "test_uc_util.h"

#if !defined(__x86_64__)
int main(void)
{
	printf("skipped: compares with an x86-64 host\n");
	return 77;
}
#else

static uint64_t rnd(void)
{
	static uint64_t x = 88172645463325252ull;
	x ^= x << 13, x ^= x >> 7, x ^= x << 17;
	switch (x >> 60) {
	case 0: return 0;
	case 1: return ~0ull;
	case 2: return 0x8000000080000000ull;
	case 3: return 0x7fff80007fff8000ull;
	case 4: return 0x80807f7f80007fffull;
	}
	return x * 2685821657736338717ull;
}

static struct vm *vm;
static uint8_t *host;
static uint64_t compared;

/* code: works on xmm0/xmm1 (or mm0/mm1) */
static void one(const uint8_t *code, int n, bool xmm)
{
	static const uint8_t ld[] = {0xf3, 0x0f, 0x6f, 0x07,
				     0xf3, 0x0f, 0x6f, 0x0e}; /* movdqu (rdi), (rsi) */
	static const uint8_t ldm[] = {0x0f, 0x6f, 0x07, 0x0f, 0x6f, 0x0e};
	static const uint8_t st[] = {0xf3, 0x0f, 0x7f, 0x07};
	static const uint8_t stm[] = {0x0f, 0x7f, 0x07, 0x0f, 0x77};
	uint8_t buf[64], end;
	uint64_t a[2], b[2] __attribute__((aligned(16))), want[2] __attribute__((aligned(16))),
		got[2];
	uc_x86_vcpu_state s = guest_state(CODE);
	uc_vcpu_run_info info;
	int k = 0;

	memcpy(buf + k, xmm ? ld : ldm, xmm ? sizeof(ld) : sizeof(ldm)), k += xmm ? 8 : 6;
	memcpy(buf + k, code, (size_t)n), k += n;
	memcpy(buf + k, xmm ? st : stm, xmm ? sizeof(st) : sizeof(stm)), k += xmm ? 4 : 5;
	buf[k++] = 0xc3;
	memcpy(host, buf, (size_t)k);
	end = 0xf4;
	gpa_write(CODE, buf, (size_t)k - 1);
	gpa_write(CODE + (uint64_t)k - 1, &end, 1);
	uc_vcpu_invalidate_code(vm->uc, (uint64_t)((uint8_t *)gpa(CODE) - ram), 64);
	s.gpr[7] = DATA, s.gpr[6] = DATA + 64;
	for (int i = 0; i < 12; i++) {
		a[0] = rnd(), a[1] = rnd(), b[0] = rnd(), b[1] = rnd();
		gpa_write(DATA, a, 16);
		gpa_write(DATA + 64, b, 16);
		memcpy(want, a, 16);
		((void (*)(void *, void *))(void *)host)(want, b);
		vm_set(vm, &s);
		CHECK(!uc_vcpu_run(vm->uc, &info) && info.reason == UC_VCPU_EXIT_HLT,
		      "%02x %02x %02x: %s", code[0], code[1], code[2], reason_name(info.reason));
		got[0] = gpa_ldq(DATA), got[1] = gpa_ldq(DATA + 8);
		CHECK(!memcmp(got, want, 16),
		      "%02x %02x %02x %02x: %lx %lx, not %lx %lx, of %lx %lx and %lx %lx", code[0],
		      code[1], code[2], code[3], (long)got[0], (long)got[1], (long)want[0],
		      (long)want[1], (long)a[0], (long)a[1], (long)b[0], (long)b[1]);
		compared++;
	}
}

int main(void)
{
	static const uint8_t ops[] = {
		0xdb, 0xdf, 0xeb, 0xef, 0x64, 0x65, 0x66, 0x74, 0x75, 0x76, 0xd4, 0xfc, 0xfd, 0xfe,
		0xf8, 0xf9, 0xfa, 0xfb, 0xd5, 0xd8, 0xd9, 0xdc, 0xdd, 0xe8, 0xe9, 0xec, 0xed, 0xda,
		0xde, 0xea, 0xee, 0xe0, 0xe3, 0xe4, 0xe5, 0xf4, 0xf5, 0xf6, 0x60, 0x61, 0x62, 0x63,
		0x67, 0x68, 0x69, 0x6a, 0x6b, 0xd1, 0xd2, 0xd3, 0xe1, 0xe2, 0xf1, 0xf2, 0xf3};
	host = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		    0);
	if (host == MAP_FAILED) {
		printf("skipped: no executable memory\n");
		return 77;
	}
	guest_memory("", "");
	vm = vm_new(8 << 20, false);
	for (size_t i = 0; i < sizeof(ops); i++) {
		one((uint8_t[]){0x66, 0x0f, ops[i], 0xc1}, 4, true);
		one((uint8_t[]){0x66, 0x0f, ops[i], 0xc0}, 4, true); /* with itself */
		one((uint8_t[]){0x66, 0x0f, ops[i], 0x07}, 4, true); /* from memory, aligned */
		one((uint8_t[]){0x0f, ops[i], 0xc1}, 3, false);
	}
	for (uint8_t op = 0x54; op <= 0x57; op++) {
		one((uint8_t[]){0x0f, op, 0xc1}, 3, true);
		one((uint8_t[]){0x66, 0x0f, op, 0xc1}, 4, true);
	}
	for (int count = 0; count < 256; count += count < 70 ? 1 : 37)
		for (uint8_t group = 0x71; group <= 0x73; group++)
			for (uint8_t op = 2; op <= 7; op++) {
				if ((op & 1) && group != 0x73)
					continue;
				if (op == 4 && group == 0x73)
					continue;
				if (op == 5)
					continue;
				one((uint8_t[]){0x66, 0x0f, group, (uint8_t)(0xc0 | op << 3),
						(uint8_t)count},
				    5, true);
				if (!(op & 1))
					one((uint8_t[]){0x0f, group, (uint8_t)(0xc0 | op << 3),
							(uint8_t)count},
					    4, false);
			}
	for (int order = 0; order < 256; order++) {
		one((uint8_t[]){0x66, 0x0f, 0x70, 0xc1, (uint8_t)order}, 5, true);
		one((uint8_t[]){0x66, 0x0f, 0x70, 0xc0, (uint8_t)order}, 5, true);
	}
	printf("%lu results as the host's\n", (unsigned long)compared);
	vm_free(vm);
	return 0;
}
#endif
