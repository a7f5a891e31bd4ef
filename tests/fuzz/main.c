/*
 * Runs a libFuzzer entry point without libFuzzer: seeded mutations of a corpus, for a bounded
 * number of runs and seconds. Run k of a seed is always the same input, whatever came before:
 *
 *   fuzz_x [-runs=N] [-seconds=S] [-seed=N] [-only=K] [file...]
 *
 * The corpus is the files, or what the target's fuzz_seed() gives, or noise. When an input kills
 * the process, its number is printed; -only=K repeats it. With clang, -fsanitize=fuzzer takes this
 * file's place.
 */
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define INPUT_MAX  4096
#define CORPUS_MAX 256

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
/* The n-th input of the target's own corpus: its length, 0 when there are no more. */
size_t fuzz_seed(unsigned n, uint8_t *buf, size_t max) __attribute__((weak));
void __sanitizer_set_death_callback(void (*fn)(void)) __attribute__((weak));

static struct {
	uint8_t data[INPUT_MAX];
	size_t len;
} corpus[CORPUS_MAX];
static unsigned corpus_count;
static uint64_t seed = 1;
static volatile uint64_t current;

static uint64_t next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static void say_which(void)
{
	char line[96];
	int n = snprintf(line, sizeof(line), "fuzz: died in run %llu: -seed=%llu -only=%llu\n",
			 (unsigned long long)current, (unsigned long long)seed,
			 (unsigned long long)current);

	if (write(STDERR_FILENO, line, (size_t)n) < 0)
		return;
}

static void on_signal(int signo)
{
	say_which();
	signal(signo, SIG_DFL);
	raise(signo);
}

static void watch_death(void)
{
	static const int signals[] = {SIGILL, SIGTRAP, SIGABRT, SIGSEGV, SIGBUS, SIGFPE};

	/* A sanitizer has handlers of its own and calls back. */
	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(say_which);
	for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		if (!__sanitizer_set_death_callback || signals[i] == SIGILL ||
		    signals[i] == SIGTRAP)
			signal(signals[i], on_signal);
}

static int load_file(const char *path)
{
	FILE *f = fopen(path, "rb");

	if (!f) {
		fprintf(stderr, "fuzz: %s: %s\n", path, strerror(errno));
		return -1;
	}
	if (corpus_count < CORPUS_MAX) {
		corpus[corpus_count].len = fread(corpus[corpus_count].data, 1, INPUT_MAX, f);
		corpus_count++;
	}
	fclose(f);
	return 0;
}

static void load_own(void)
{
	while (fuzz_seed && corpus_count < CORPUS_MAX) {
		size_t n = fuzz_seed(corpus_count, corpus[corpus_count].data, INPUT_MAX);

		if (!n)
			break;
		corpus[corpus_count++].len = n < INPUT_MAX ? n : INPUT_MAX;
	}
}

/* One mutation: a bit, a byte, an interesting number, a block moved, taken out or put in. */
static size_t mutate(uint8_t *data, size_t len, uint64_t *state)
{
	static const uint64_t numbers[] = {
		0,	1,	    0x7f,	0x80,	    0xff,	0x7fff,	   0x8000,
		0xffff, 0x7fffffff, 0x80000000, 0xffffffff, UINT64_MAX, 1ULL << 63};
	uint64_t r = next(state);
	size_t at = len ? (size_t)(next(state) % len) : 0, n = 1 + r % 16;
	unsigned width = 1u << (r >> 8 & 3);

	switch (len ? r >> 16 & 7 : 6) {
	case 0: data[at] ^= (uint8_t)(1u << (r & 7)); break;
	case 1: data[at] = (uint8_t)(r >> 24); break;
	case 2: data[at] = (uint8_t)(data[at] + (r & 1 ? 1 : -1)); break;
	case 3:
		if (at + width <= len)
			memcpy(data + at, &numbers[(r >> 24) % 13], width);
		break;
	case 4: /* cut */
		n = n < len - at ? n : len - at;
		memmove(data + at, data + at + n, len - at - n);
		return len - n;
	case 5: { /* copy over */
		size_t from = (size_t)((r >> 24) % len);

		n = n < len - at ? n : len - at;
		n = n < len - from ? n : len - from;
		memmove(data + at, data + from, n);
		break;
	}
	default: /* insert */
		n = n < INPUT_MAX - len ? n : INPUT_MAX - len;
		memmove(data + at + n, data + at, len - at);
		for (size_t i = 0; i < n; i++)
			data[at + i] = (uint8_t)next(state);
		return len + n;
	}
	return len;
}

static void run(uint64_t k)
{
	uint64_t state = seed * 0x5851f42d4c957f2d + k;
	static uint8_t data[INPUT_MAX];
	uint8_t *exact;
	size_t len = 0;

	if (corpus_count) {
		unsigned n = (unsigned)(next(&state) % corpus_count);

		len = corpus[n].len;
		memcpy(data, corpus[n].data, len);
	}
	/* The first runs are the corpus as it is; without a corpus everything is inserted. */
	if (k >= corpus_count)
		for (uint64_t n = next(&state) % (corpus_count ? 12 : 200) + 1; n; n--)
			len = mutate(data, len, &state);
	else
		memcpy(data, corpus[k].data, len = corpus[k].len);
	/* A block of its own size: the sanitizer sees a read behind the end. */
	exact = malloc(len ? len : 1);
	if (!exact)
		return;
	memcpy(exact, data, len);
	current = k;
	LLVMFuzzerTestOneInput(exact, len);
	free(exact);
}

int main(int argc, char **argv)
{
	uint64_t runs = 100000, only = UINT64_MAX, k = 0;
	time_t end = time(NULL) + 10;

	for (int i = 1; i < argc; i++) {
		if (!strncmp(argv[i], "-runs=", 6))
			runs = strtoull(argv[i] + 6, NULL, 0);
		else if (!strncmp(argv[i], "-seconds=", 9))
			end = time(NULL) + strtol(argv[i] + 9, NULL, 0);
		else if (!strncmp(argv[i], "-seed=", 6))
			seed = strtoull(argv[i] + 6, NULL, 0);
		else if (!strncmp(argv[i], "-only=", 6))
			only = strtoull(argv[i] + 6, NULL, 0);
		else if (load_file(argv[i]))
			return 1;
	}
	if (!corpus_count)
		load_own();
	watch_death();
	if (only != UINT64_MAX) {
		run(only);
		return 0;
	}
	/* The corpus in any case; then until one of the bounds. */
	for (; k < corpus_count || (k < runs && time(NULL) < end); k++)
		run(k);
	printf("%s: %llu runs of seed %llu, corpus of %u\n", argv[0], (unsigned long long)k,
	       (unsigned long long)seed, corpus_count);
	return 0;
}
