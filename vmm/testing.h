/*
 * Switches for the test suites, from the environment variable FERRY_TEST: a comma-separated list.
 *   no-remote-code     vCPUs keep translated code that another one has overwritten (negative
 * control) no-remote-flush    vCPUs keep write permission to pages that another one translates
 * (negative control) roundtrip=MS       every MS milliseconds on average the whole machine state is
 * saved, wiped and loaded again A start with any of them says so on stderr.
 */
#ifndef VMM_TESTING_H
#define VMM_TESTING_H

#include <stdbool.h>

bool testing_active(void);
bool testing_has(const char *name);
long testing_number(const char *name); /* 0: not there */

#endif
