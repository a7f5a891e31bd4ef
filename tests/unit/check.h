/* The check of unit tests that end at their first failure. CHECK_TEXT, defined before this is
 * included, is shown beside it: the last error's text, for one. */
#ifndef TESTS_UNIT_CHECK_H
#define TESTS_UNIT_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#ifndef CHECK_TEXT
#define CHECK_TEXT ""
#endif

#define CHECK(c)                                                                                   \
	do {                                                                                       \
		if (!(c)) {                                                                        \
			fprintf(stderr, "%s:%d: %s %s\n", __FILE__, __LINE__, #c, CHECK_TEXT);     \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

#endif
