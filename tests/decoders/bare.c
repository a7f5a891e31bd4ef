/* Goes through all sets of the image and compares what the processor did with what is expected. */
#include "tests/decoders/bare.h"

static uint32_t failures, done[4][8];

void *memset(void *to, int c, size_t n)
{
	for (volatile char *p = to; n--; p++)
		*p = (char)c;
	return to;
}

void *memcpy(void *to, const void *from, size_t n)
{
	volatile char *d = to;

	for (const char *s = from; n--;)
		*d++ = *s++;
	return to;
}

void say(const char *text)
{
	for (; *text; text++)
		arch_putc(*text);
}

void say_hex(uint64_t value)
{
	int shift = 60;

	say("0x");
	while (shift && !(value >> shift))
		shift -= 4;
	for (; shift >= 0; shift -= 4)
		arch_putc("0123456789abcdef"[value >> shift & 15]);
}

static void say_dec(uint32_t value)
{
	char text[11], *at = text + sizeof(text) - 1;

	*at = 0;
	do
		*--at = (char)('0' + value % 10);
	while (value /= 10);
	say(at);
}

static void complain(const struct image_set *set, const struct probe *p, const struct seen *seen,
		     const char *what)
{
	if (failures++ >= 20)
		return;
	say("FAILED ");
	say(set->name);
	say(": ");
	say(what);
	say(": gpa ");
	say_hex(p->gpa);
	say(" access ");
	say_hex(p->access);
	say(" expected outcome ");
	say_hex(p->outcome);
	say(" level ");
	say_hex(p->level);
	say(" hpa ");
	say_hex(p->hpa);
	say(seen->odd ? "; odd:" : seen->ok ? "; done:" : "; fault:");
	say(" value ");
	say_hex(seen->value);
	say(" gpa ");
	say_hex(seen->gpa);
	say(" hpa ");
	say_hex(seen->hpa);
	say(" outcome ");
	say_hex((uint64_t)seen->outcome);
	say(" level ");
	say_hex((uint64_t)seen->level);
	for (int i = 0; i < 4; i++) {
		say(" ");
		say_hex(seen->info[i]);
	}
	say("\n");
}

static void check(const struct image_set *set, const struct probe *p, uint32_t tag)
{
	struct seen seen = {.outcome = -1, .level = -1};
	volatile uint32_t *at = (volatile uint32_t *)(uintptr_t)p->hpa;
	bool memory = p->outcome == PROBE_OK && !(p->access & PROBE_TRANSLATE);

	if (memory && p->access & PROBE_X)
		arch_put_code((void *)at, tag);
	else if (memory)
		*at = p->access & PROBE_W ? ~tag : tag;
	arch_probe(set, p, tag, &seen);
	if (seen.odd) {
		complain(set, p, &seen, "neither done nor refused");
	} else if (seen.ok != (p->outcome == PROBE_OK)) {
		complain(set, p, &seen, "outcome");
	} else if (seen.ok && p->access & PROBE_TRANSLATE) {
		if (seen.hpa != p->hpa)
			complain(set, p, &seen, "translated to another address");
	} else if (seen.ok) {
		if ((p->access & PROBE_W ? *at : seen.value) != tag)
			complain(set, p, &seen, "another address");
	} else {
		uint8_t access = p->access & (PROBE_R | PROBE_W | PROBE_X);

		if ((seen.gpa ^ p->gpa) >> seen.gpa_bits)
			complain(set, p, &seen, "fault address");
		else if (seen.outcome >= 0 && seen.outcome != p->outcome)
			complain(set, p, &seen, "kind of fault");
		else if (seen.level >= 0 && seen.level != p->level)
			complain(set, p, &seen, "fault level");
		else if (seen.access && seen.access != access)
			complain(set, p, &seen, "refused access");
	}
	done[p->outcome][p->access & 7]++;
}

_Noreturn void bare_main(void)
{
	const struct image *image = (const struct image *)IMAGE_AT;
	uint32_t total = 0, sets = 0;
	const char *why = "";

	if (!arch_load(&why) || image->magic != IMAGE_MAGIC || !arch_init(image, &why)) {
		say("FAILED ");
		say(*why ? why : "no image");
		say("\n");
		arch_exit();
	}
	for (uint32_t i = 0; i < image->sets; i++) {
		const struct image_set *set = &image->set[i];
		uint32_t reads = 0, writes = 0, runs = 0, faults = 0, before = failures;

		memset(done, 0, sizeof(done));
		if (!arch_set(set, &why)) {
			failures++;
			say("FAILED ");
			say(set->name);
			say(": ");
			say(why);
			say("\n");
			continue;
		}
		for (uint32_t n = 0; n < set->count; n++)
			check(set, &image->probe[set->first + n], (n + 1) * 0x9e3779b1u >> 1 | 1);
		for (int outcome = PROBE_ABSENT; outcome <= PROBE_BEYOND; outcome++)
			faults += done[outcome][1] + done[outcome][2] + done[outcome][4];
		reads = done[PROBE_OK][1];
		writes = done[PROBE_OK][2];
		runs = done[PROBE_OK][4];
		say(set->name);
		say(": ");
		say_dec(reads);
		say(" reads, ");
		say_dec(writes);
		say(" writes, ");
		say_dec(runs);
		say(" calls, ");
		say_dec(faults);
		say(" faults, ");
		say_dec(failures - before);
		say(" failures\n");
		total += set->count;
		sets++;
	}
	say("DONE ");
	say_dec(sets);
	say(" sets, ");
	say_dec(total);
	say(" probes, ");
	say_dec(failures);
	say(" failures\n");
	arch_exit();
}
