/* COM1, results, and the few library functions that gcc may call. */
#include "guest.h"

#define COM1	   0x3f8
#define DEBUG_EXIT 0xf4

static u32 passed, failed, skipped;
static const char *name;
static u32 case_expects, case_failures;
static char context[128];

void *memset(void *d, int c, size_t n)
{
	void *r = d;

	asm volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
	return r;
}

void *memcpy(void *d, const void *s, size_t n)
{
	void *r = d;

	asm volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n)::"memory");
	return r;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const u8 *x = a, *y = b;

	for (; n; n--, x++, y++)
		if (*x != *y)
			return *x - *y;
	return 0;
}

size_t strlen(const char *s)
{
	size_t n = 0;

	while (s[n])
		n++;
	return n;
}

static void putc(char c)
{
	while (!(inb(COM1 + 5) & 0x20))
		;
	outb(COM1, (u8)c);
}

struct sink {
	char *at, *end; /* NULL: the console */
};

static void emit(struct sink *s, char c)
{
	if (!s->at)
		putc(c);
	else if (s->at < s->end)
		*s->at++ = c;
}

static void number(struct sink *s, u64 v, u32 base, int width, char pad)
{
	char buf[24];
	int n = 0;

	do {
		buf[n++] = "0123456789abcdef"[v % base];
		v /= base;
	} while (v);
	while (n < width && n < (int)sizeof(buf))
		buf[n++] = pad;
	while (n)
		emit(s, buf[--n]);
}

/* %s %c %d %u %x %lx %lu %p, with a width. */
static void format(struct sink *s, const char *fmt, va_list ap)
{
	for (; *fmt; fmt++) {
		int width = 0;
		bool l = false;
		char pad = ' ';
		s64 v;

		if (*fmt != '%') {
			if (*fmt == '\n')
				emit(s, '\r');
			emit(s, *fmt);
			continue;
		}
		if (*++fmt == '0')
			pad = '0';
		for (; *fmt >= '0' && *fmt <= '9'; fmt++)
			width = width * 10 + *fmt - '0';
		for (; *fmt == 'l'; fmt++)
			l = true;
		switch (*fmt) {
		case 's':
			for (const char *t = va_arg(ap, const char *); *t; t++)
				emit(s, *t);
			break;
		case 'c': emit(s, (char)va_arg(ap, int)); break;
		case 'd':
			v = l ? va_arg(ap, s64) : va_arg(ap, int);
			if (v < 0)
				emit(s, '-');
			number(s, v < 0 ? 0 - (u64)v : (u64)v, 10, width, pad);
			break;
		case 'u': number(s, l ? va_arg(ap, u64) : va_arg(ap, u32), 10, width, pad); break;
		case 'p': number(s, va_arg(ap, u64), 16, width, pad); break;
		case 'x': number(s, l ? va_arg(ap, u64) : va_arg(ap, u32), 16, width, pad); break;
		default: emit(s, *fmt);
		}
	}
}

void printf(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	format(&(struct sink){0}, fmt, ap);
	va_end(ap);
}

int vsnprintf(char *buf, size_t size, const char *fmt, va_list ap)
{
	struct sink s = {buf, buf + size - 1};

	format(&s, fmt, ap);
	*s.at = 0;
	return (int)(s.at - buf);
}

int snprintf(char *buf, size_t size, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(buf, size, fmt, ap);
	va_end(ap);
	return n;
}

void test_context(const char *fmt, ...)
{
	struct sink s = {context, context + sizeof(context) - 1};
	va_list ap;

	if (fmt) {
		va_start(ap, fmt);
		format(&s, fmt, ap);
		va_end(ap);
	}
	*s.at = 0;
}

void test_begin(const char *n)
{
	if (name)
		panic("%s: not ended", name);
	name = n;
	case_expects = case_failures = 0;
	test_context(NULL);
}

static bool may_show(void)
{
	if (!name)
		panic("expectation outside of a case");
	case_expects++;
	return true;
}

static bool fail(void)
{
	u64 shown = argument("show", 8); /* per case */

	if (++case_failures == shown + 1)
		printf("FAIL %s: .. and more\n", name);
	return case_failures <= shown;
}

void expect_at(const char *what, u64 want, u64 got, const char *file, int line)
{
	may_show();
	if (want != got && fail())
		printf("FAIL %s: %s%s%s: expected 0x%lx got 0x%lx (%s:%d)\n", name, context,
		       *context ? ": " : "", what, want, got, file, line);
}

void expect_trap_at(const struct ctx *c, u32 vector, u64 error, const char *file, int line)
{
	may_show();
	if ((c->vector != vector || c->error != error) && fail()) {
		printf("FAIL %s: %s%sexpected %s", name, context, *context ? ": " : "",
		       vector_name(vector));
		if (error != NO_ERROR)
			printf("(0x%lx)", error);
		printf(" got %s", vector_name(c->vector));
		if (c->error != NO_ERROR)
			printf("(0x%lx)", c->error);
		if (c->vector == PF)
			printf(" cr2 0x%lx", c->cr2);
		printf(" at 0x%lx (%s:%d)\n", c->rip, file, line);
	}
}

void test_end(void)
{
	if (!case_expects) {
		printf("FAIL %s: nothing was checked\n", name);
		case_failures++;
	}
	if (case_failures) {
		failed++;
	} else {
		printf("PASS %s\n", name);
		passed++;
	}
	name = NULL;
}

void test_skip(const char *n, const char *why)
{
	printf("SKIP %s: %s\n", n, why);
	skipped++;
}

static void leave(u32 code) __attribute__((noreturn));
static void leave(u32 code)
{
	outl(DEBUG_EXIT, code);
	for (;;)
		asm volatile("cli; hlt");
}

void test_exit(void)
{
	printf("DONE passed %u failed %u skipped %u\n", passed, failed, skipped);
	leave(failed || !passed ? 1 : 0);
}

void panic(const char *fmt, ...)
{
	va_list ap;

	printf("FAIL %s: ", name ? name : "runtime");
	va_start(ap, fmt);
	format(&(struct sink){0}, fmt, ap);
	va_end(ap);
	printf("\nDONE passed %u failed %u skipped %u\n", passed, failed + 1, skipped);
	leave(1);
}
