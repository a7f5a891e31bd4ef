/*
 * Errors with words. A function that can fail for a reason that a person must read takes a struct
 * error and returns -errno; the text names the thing and the remedy in one line, without a final
 * full stop.
 */
#ifndef VMM_ERROR_H
#define VMM_ERROR_H

struct error {
	char text[512];
};

/* Sets the text (err may be NULL) and returns `code` (-errno). */
int error_set(struct error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Puts "what: " before the text that is there. Returns code. */
int error_prefix(struct error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
