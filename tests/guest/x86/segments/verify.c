/* LAR, LSL, VERR, VERW. */
#include "segments.h"

/* ---- LAR, LSL, VERR, VERW -------------------------------------------------------------------- */

SNIPPET(lar, "lar %eax, %ecx");
SNIPPET(lsl, "lsl %eax, %ecx");
SNIPPET(verr, "verr %ax");
SNIPPET(verw, "verw %ax");

void test_verify(void)
{
	/* Columns: ZF of LAR, LSL, VERR, VERW at CPL 3 with RPL 3, then at CPL 0. */
	const struct {
		const char *name;
		u64 desc;
		u8 user, kernel; /* bit 0 LAR .. bit 3 VERW */
		u32 lsl;
	} rows[] = {
		{"data, DPL 3", descriptor(0, 0x1234, 0xf3, 4), 15, 15, 0x1234},
		{"data, page limit", descriptor(0, 0x12, 0xf3, 0xc), 15, 15, 0x12fff},
		{"read-only data", descriptor(0, 0x1234, 0xf1, 4), 7, 7, 0x1234},
		{"data, DPL 0", descriptor(0, 0x1234, 0x93, 4), 0, 15, 0x1234},
		{"code, readable", descriptor(0, 0x1234, 0xfb, 4), 7, 7, 0x1234},
		{"code, execute-only", descriptor(0, 0x1234, 0xf9, 4), 3, 3, 0x1234},
		{"conforming code, DPL 0", descriptor(0, 0x1234, 0x9f, 4), 7, 7, 0x1234},
		{"code, DPL 0", descriptor(0, 0x1234, 0x9b, 4), 0, 7, 0x1234},
		{"not present", descriptor(0, 0x1234, 0x73, 4), 15, 15, 0x1234},
		{"LDT", descriptor(0, 0x1234, 0xe2, 0), 3, 3, 0x1234},
		{"TSS", descriptor(0, 0x1234, 0xe9, 0), 3, 3, 0x1234},
		{"busy TSS", descriptor(0, 0x1234, 0xeb, 0), 3, 3, 0x1234},
		{"TSS, DPL 0", descriptor(0, 0x1234, 0x89, 0), 0, 3, 0x1234},
		{"call gate", descriptor(0, 0x1234, 0xec, 0), 1, 1, 0},
		{"interrupt gate", descriptor(0, 0x1234, 0xee, 0), 0, 0, 0},
		{"16-bit TSS", descriptor(0, 0x1234, 0xe1, 0), 0, 0, 0},
		{"task gate", descriptor(0, 0x1234, 0xe5, 0), 0, 0, 0},
		{"type 0", descriptor(0, 0x1234, 0xe0, 0), 0, 0, 0},
	};
	u8 *const code[] = {lar, lsl, verr, verw};

	test_begin("segments: LAR, LSL, VERR, VERW");
	for (u32 i = 0; i <= ARRAY_SIZE(rows) + 2; i++) {
		u32 sel = SLOT(0) | 3;
		u8 user = 0, kernel = 0;

		if (i < ARRAY_SIZE(rows)) {
			slot(0, rows[i].desc);
			slot(1, 0);
			user = rows[i].user;
			kernel = rows[i].kernel;
		} else {
			/* null, beyond the limit, in the LDT that does not exist */
			sel = i == ARRAY_SIZE(rows) ? 0 : i == ARRAY_SIZE(rows) + 1 ? 0xfff8 : 0x14;
		}
		for (u32 j = 0; j < 4; j++) {
			for (int k = 0; k < 2; k++) {
				struct ctx c = k ? ctx_kernel(code[j]) : ctx_user(code[j]);
				bool want = (k ? kernel : user) & BIT(j);

				c.gpr[RAX] = k ? sel & ~3u : sel;
				c.gpr[RCX] = 0x5555;
				c.rflags |= want ? 0 : FL_ZF;
				exec(&c);
				test_context("%s, instruction %u, CPL %d",
					     i < ARRAY_SIZE(rows) ? rows[i].name : "special", j,
					     k ? 0 : 3);
				expect_done(&c);
				expect("ZF", want, !!(c.rflags & FL_ZF));
				if (j > 1)
					continue;
				if (!want)
					expect("destination", 0x5555, c.gpr[RCX]);
				else if (j == 1)
					expect("limit", rows[i].lsl, c.gpr[RCX]);
				else /* access bytes of the second doubleword; bits 19:16 undefined
				      */
					expect("rights", rows[i].desc >> 32 & 0xf0ff00,
					       c.gpr[RCX] & 0xf0ff00);
			}
		}
	}
	test_context(NULL);
	test_end();
}
