/* Description: The buffer of translated code fills thousands of times: blocks jump to each other on
 * the page, over pages and through registers, and rewrite each other's immediates; every sum must
 * be right after every flush. */
#include "test_uc_util.h"

enum { BLOCKS = 4096, BLOCK = 64, BASE = 0x200000 };

static uint32_t imm[BLOCKS];

/* rbx += imm; eax is the number to write into another block; then on to the next block. */
static bool rewrite = true; /* blocks change each other's immediates */

static void make_block(uint32_t i)
{
	uint64_t at = BASE + (uint64_t)i * BLOCK,
		 next = BASE + (uint64_t)((i + 1) % BLOCKS) * BLOCK;
	uint8_t c[BLOCK];
	int n = 0;

	memset(c, 0x90, sizeof(c));
	c[n++] = 0xb8, memcpy(c + n, &imm[i], 4), n += 4;	 /* mov $imm, %eax */
	c[n++] = 0x48, c[n++] = 0x01, c[n++] = 0xc3;		 /* add %rax, %rbx */
	c[n++] = 0x48, c[n++] = 0xc1, c[n++] = 0xc3, c[n++] = 5; /* rol $5, %rbx */
	if (rewrite && i % 3 == 0) { /* a block of another page gets a new immediate */
		uint64_t to = BASE + (uint64_t)((i * 7 + 1234) % BLOCKS) * BLOCK + 1;
		c[n++] = 0xb9, memcpy(c + n, &to, 4), n += 4; /* mov $to, %ecx */
		c[n++] = 0x83, c[n++] = 0x01, c[n++] = 1;     /* addl $1, (%rcx) */
	}
	if (i == BLOCKS - 1 && rewrite) {
		c[n++] = 0xff, c[n++] = 0xca;				      /* dec %edx */
		c[n++] = 0x75, c[n++] = 2, c[n++] = 0xe6, c[n++] = DONE_PORT; /* jnz +2; out */
	}
	if (i % 5 == 0) {
		c[n++] = 0xbf, memcpy(c + n, &next, 4), n += 4; /* mov $next, %edi */
		c[n++] = 0xff, c[n++] = 0xe7;			/* jmp *%rdi */
	} else {
		int32_t rel = (int32_t)(next - (at + (uint64_t)n + 5));
		c[n++] = 0xe9, memcpy(c + n, &rel, 4), n += 4;
	}
	gpa_write(at, c, BLOCK);
}

static uint64_t model(uint32_t rounds)
{
	uint64_t rbx = 0;

	while (rounds--)
		for (uint32_t i = 0; i < BLOCKS; i++) {
			rbx += imm[i];
			rbx = rbx << 5 | rbx >> 59;
			if (rewrite && i % 3 == 0)
				imm[(i * 7 + 1234) % BLOCKS]++;
		}
	return rbx;
}

/* Without vCPU mode: there the first flush went wrong, uc_vcpu_enable does one too early to see it.
 */
static void stock(void)
{
	uint64_t rbx = 0, want;
	uc_engine *uc;

	rewrite = false;
	guest_memory("", "");
	for (uint32_t i = 0; i < NPAGES; i++)
		perm[i] = i; /* no paging */
	for (uint32_t i = 0; i < BLOCKS; i++) {
		imm[i] = i * 2654435761u;
		make_block(i);
	}
	CHECK(!uc_open(UC_ARCH_X86, UC_MODE_64, &uc) && !uc_ctl_set_tcg_buffer_size(uc, 1 << 20) &&
		      !uc_mem_map_ptr(uc, 0, RAM_SIZE, UC_PROT_ALL, ram),
	      "no engine");
	/* Each time all blocks but the last: its address is where the run ends. */
	for (int round = 0; round < 8; round++)
		CHECK(!uc_emu_start(uc, BASE, BASE + (BLOCKS - 1) * BLOCK, 0, 0), "round %d",
		      round);
	uc_reg_read(uc, UC_X86_REG_RBX, &rbx);
	want = 0;
	for (int round = 0; round < 8; round++)
		for (uint32_t i = 0; i < BLOCKS - 1; i++) {
			want += imm[i];
			want = want << 5 | want >> 59;
		}
	CHECK(rbx == want, "%lx, not %lx", (long)rbx, (long)want);
	uc_close(uc);
}

int main(void)
{
	uint32_t rounds = 10, turns = 8;
	uint64_t flushes = 0, tbs = 0;
	uc_vcpu_stats st;

	for (uint32_t t = 0; t < turns; t++) {
		uc_vcpu_run_info info;
		uc_x86_vcpu_state s = guest_state(BASE);

		guest_memory("", "");
		for (uint32_t i = 0; i < BLOCKS; i++) {
			imm[i] = i * 2654435761u + t;
			make_block(i);
		}
		/* The small ones hold some hundred of the blocks; the first is what a user might
		 * choose. */
		struct vm *vm = vm_new(t ? (96u << 10) + t * (8 << 10) : 1 << 20, t & 1);
		s.gpr[2] = rounds;
		vm_set(vm, &s);
		do
			CHECK(!uc_vcpu_run(vm->uc, &info) && info.reason == UC_VCPU_EXIT_KICK, "%s",
			      reason_name(info.reason));
		while (!vm->done);
		vm_get(vm, &s);
		uint64_t want = model(rounds);
		/* The exit is at the block after the OUT; nothing of it has run. */
		CHECK(s.gpr[3] == want, "turn %u: %lx, not %lx", t, (long)s.gpr[3], (long)want);
		uc_vcpu_get_stats(vm->uc, &st);
		flushes += st.tb_flushes;
		tbs += st.tb_translated;
		vm_free(vm);
	}
	printf("%lu translations, the buffer was flushed %lu times\n", (unsigned long)tbs,
	       (unsigned long)flushes);
	stock();
	CHECK(flushes > 900, "the buffer hardly filled");
	return 0;
}
