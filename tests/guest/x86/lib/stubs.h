/* For assembler files. */
#ifndef GUEST_STUBS_H
#define GUEST_STUBS_H

/* Where the gates of the 256 vectors lead: stubs of 16 bytes, which push an error code or its
 * stand-in, and the vector, and go on at `common`. For code of 32 and of 64 bits. */
.macro vector_stubs common vector =
	0.rept 256.balign 16.if (vector == 8) || ((vector >= 10) && (vector <= 14)) ||
	(vector == 17).else push $ - 1.endif push $vector jmp	\common vector = vector + 1.endr.endm

#endif
