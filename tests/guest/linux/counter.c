/*
 * counter PREFIX MS: prints PREFIX1, PREFIX2 and so on, a line every MS milliseconds, each with one
 * write: whoever collects them sees what is lost, twice there or out of order.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	const char *prefix = argc > 1 ? argv[1] : "";
	const unsigned ms = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 10;
	char line[64];

	for (unsigned n = 1;; n++) {
		int len = snprintf(line, sizeof(line), "%.30s%u\n", prefix, n);

		if (write(STDOUT_FILENO, line, (size_t)len) != len)
			return 1;
		usleep(ms * 1000);
	}
}
