/* Locked instructions of every width: nothing is lost between processors. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "stress.h"

enum { ROUND = 2000, BITS = 4096 };

struct wide {
	uint64_t low, high;
} __attribute__((aligned(16)));

static struct meeting meeting;
static bool stop;
static struct atomics {
	uint8_t add8, cas8;
	uint16_t add16, cas16;
	uint32_t add32, cas32, mix32, not32;
	uint64_t add64, cas64, ticket, mix64;
	struct wide cas128;
	uint64_t slot;
	uint32_t bits[BITS / 32];
	uint64_t bits_won, ticket_sum, token_sum;
} a __attribute__((aligned(64)));

#define LOCKED_ADD(suffix, reg, type, p)                                                           \
	asm volatile("lock add" suffix " %1, %0" : "+m"(*(p)) : reg((type)1) : "memory", "cc")

/* cmpxchg loop by hand: the compiler may not choose another instruction. */
#define CAS_ADD(type, p)                                                                           \
	do {                                                                                       \
		type old_ = *(volatile type *)(p);                                                 \
		type got_;                                                                         \
		for (;;) {                                                                         \
			asm volatile("lock cmpxchg %2, %1"                                         \
				     : "=a"(got_), "+m"(*(p))                                      \
				     : "q"((type)(old_ + 1)), "0"(old_)                            \
				     : "memory", "cc");                                            \
			if (got_ == old_)                                                          \
				break;                                                             \
			old_ = got_;                                                               \
		}                                                                                  \
	} while (0)

static void cas128_add(struct wide *w)
{
	uint64_t low = *(volatile uint64_t *)&w->low, high = *(volatile uint64_t *)&w->high;
	bool same;

	do {
		asm volatile("lock cmpxchg16b %1"
			     : "=@ccz"(same), "+m"(*w), "+a"(low), "+d"(high)
			     : "b"(low + 1), "c"(high - 1)
			     : "memory");
	} while (!same);
}

static uint64_t swap(uint64_t *p, uint64_t value)
{
	asm volatile("xchg %0, %1" : "+r"(value), "+m"(*p) : : "memory");
	return value;
}

static uint64_t xadd(uint64_t *p, uint64_t value)
{
	asm volatile("lock xadd %0, %1" : "+r"(value), "+m"(*p) : : "memory", "cc");
	return value;
}

static bool bit_set(uint32_t *bits, long n)
{
	bool was;

	asm volatile("lock bts %2, %1" : "=@ccc"(was), "+m"(*bits) : "r"(n) : "memory");
	return was;
}

static void one_round(unsigned index, uint64_t *token, uint64_t *tickets, unsigned long *won)
{
	for (unsigned i = 0; i < ROUND; i++) {
		LOCKED_ADD("b", "q", uint8_t, &a.add8);
		LOCKED_ADD("w", "r", uint16_t, &a.add16);
		LOCKED_ADD("l", "r", uint32_t, &a.add32);
		LOCKED_ADD("q", "r", uint64_t, &a.add64);
		CAS_ADD(uint8_t, &a.cas8);
		CAS_ADD(uint16_t, &a.cas16);
		CAS_ADD(uint32_t, &a.cas32);
		CAS_ADD(uint64_t, &a.cas64);
		cas128_add(&a.cas128);
		*token = swap(&a.slot, *token);
		*tickets += xadd(&a.ticket, 1);
		/* Add and take away again by other instructions: 0 stays. */
		asm volatile("lock incl %0" : "+m"(a.mix32) : : "memory", "cc");
		asm volatile("lock notl %0" : "+m"(a.not32) : : "memory", "cc");
		asm volatile("lock decl %0" : "+m"(a.mix32) : : "memory", "cc");
		asm volatile("lock xorq %1, %0"
			     : "+m"(a.mix64)
			     : "r"(1ul << index)
			     : "memory", "cc");
		asm volatile("lock orq %1, %0"
			     : "+m"(a.mix64)
			     : "r"(1ul << (32 + index))
			     : "memory", "cc");
		asm volatile("lock xorq %1, %0"
			     : "+m"(a.mix64)
			     : "r"(1ul << index)
			     : "memory", "cc");
		asm volatile("lock andq %1, %0"
			     : "+m"(a.mix64)
			     : "r"(~(1ul << (32 + index)))
			     : "memory", "cc");
		asm volatile("lock subq %1, %0" : "+m"(a.mix64) : "er"(0ul) : "memory", "cc");
	}
	for (unsigned i = 0; i < BITS; i++)
		*won += !bit_set(a.bits, i);
}

static void expect(struct run *r, const char *what, uint64_t is, uint64_t should)
{
	if (is != should)
		wrong(r, "%s is %#lx instead of %#lx", what, is, should);
}

static void verify(struct run *r)
{
	uint64_t n = (uint64_t)ROUND * r->threads, tokens = 0;

	expect(r, "lock add, 1 byte", a.add8, (uint8_t)n);
	expect(r, "lock add, 2 bytes", a.add16, (uint16_t)n);
	expect(r, "lock add, 4 bytes", a.add32, n);
	expect(r, "lock add, 8 bytes", a.add64, n);
	expect(r, "cmpxchg, 1 byte", a.cas8, (uint8_t)n);
	expect(r, "cmpxchg, 2 bytes", a.cas16, (uint16_t)n);
	expect(r, "cmpxchg, 4 bytes", a.cas32, n);
	expect(r, "cmpxchg, 8 bytes", a.cas64, n);
	expect(r, "cmpxchg16b, low half", a.cas128.low, n);
	expect(r, "cmpxchg16b, high half", a.cas128.high, -n);
	expect(r, "xadd", a.ticket, n);
	expect(r, "sum of tickets", a.ticket_sum, n * (n - 1) / 2);
	for (unsigned i = 0; i <= r->threads; i++)
		tokens += 1ul << i;
	expect(r, "tokens swapped around", a.token_sum + a.slot, tokens);
	expect(r, "inc, dec", a.mix32, 0);
	expect(r, "not", a.not32, 0); /* ROUND is even */
	expect(r, "xor, or, and, sub", a.mix64, 0);
	expect(r, "bits won", a.bits_won, BITS);
	checked(r, 17);
}

static void worker(struct run *r, unsigned index, void *arg)
{
	(void)arg;
	for (;;) {
		uint64_t token = 1ul << index, tickets = 0;
		unsigned long won = 0;

		if (index == 0) {
			stop = !going(r);
			memset(&a, 0, sizeof(a));
			a.slot = 1ul << r->threads;
		}
		meet(&meeting);
		if (stop)
			return;
		one_round(index, &token, &tickets, &won);
		xadd(&a.ticket_sum, tickets);
		xadd(&a.token_sum, token);
		xadd(&a.bits_won, won);
		meet(&meeting);
		if (index == 0)
			verify(r);
	}
}

void stress_atomics(struct run *r)
{
	meeting = (struct meeting){.n = r->threads};
	in_parallel(r, r->threads, worker, NULL);
}

/* Operands that cross 8 bytes, a cache line, a page: still one access to everybody else. */
static struct unaligned {
	struct meeting meeting;
	char *pages;
	bool stop;
	uint64_t token_sum;
} u;

struct place {
	unsigned offset;
	const char *what;
};

static const struct place places[] = {
	{1, "offset 1"},
	{6, "8 bytes crossed"},
	{13, "16 bytes crossed"},
	{61, "cache line crossed"},
	{4096 - 1, "page crossed, 1 byte"},
	{4096 - 4, "page crossed, half"},
	{4096 - 7, "page crossed, 7 bytes"},
};
enum { PLACES = sizeof(places) / sizeof(places[0]), AREA = 4 * 4096 };

static uint64_t *place(unsigned n, unsigned page)
{
	return (uint64_t *)(u.pages + page * AREA + places[n].offset);
}

static void unaligned_worker(struct run *r, unsigned index, void *arg)
{
	(void)arg;
	for (;;) {
		if (index == 0) {
			u.stop = !going(r);
			memset(u.pages, 0, 3 * AREA);
		}
		meet(&u.meeting);
		if (u.stop)
			return;
		/* For each place: added up to by lock add and xadd, then by cmpxchg; tokens swapped
		 * through it. */
		for (unsigned n = 0; n < PLACES; n++) {
			uint64_t token = 1ul << index, sum = 0;

			for (unsigned i = 0; i < ROUND / 10; i++) {
				LOCKED_ADD("q", "r", uint64_t, place(n, 0));
				sum += xadd(place(n, 0), 0x0101010101010101);
				CAS_ADD(uint64_t, place(n, 1));
				token = swap(place(n, 2), token);
			}
			xadd(&u.token_sum, token);
			meet(&u.meeting);
			if (index == 0) {
				uint64_t each = (uint64_t)r->threads * (ROUND / 10);

				expect(r, places[n].what, *place(n, 0), each * 0x0101010101010102);
				expect(r, places[n].what, *place(n, 1), each);
				expect(r, places[n].what, *place(n, 2) + u.token_sum,
				       (1ul << r->threads) - 1);
				checked(r, 3);
				u.token_sum = 0;
				/* Places overlap with their neighbours. */
				memset(u.pages, 0, 3 * AREA);
			}
			meet(&u.meeting);
		}
	}
}

void stress_unaligned(struct run *r)
{
	memset(&u, 0, sizeof(u));
	u.meeting.n = r->threads;
	u.pages = mmap(NULL, 3 * AREA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	in_parallel(r, r->threads, unaligned_worker, NULL);
	munmap(u.pages, 3 * AREA);
}
