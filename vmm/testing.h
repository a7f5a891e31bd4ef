/*
 * Switches for the test suites, from the environment variable FERRY_TEST: a comma-separated list.
 * Those that are negative controls must turn a suite red.
 *
 *   no-remote-code     vCPUs keep translated code that another one has overwritten (control)
 *   no-remote-flush    vCPUs keep write permission to pages that another one translates (control)
 *   no-device-code     vCPUs keep translated code that a device has overwritten (control)
 *   roundtrip=MS       every MS milliseconds on average the whole machine state is saved, wiped and
 *                      loaded again
 *   missing=MS         all RAM goes missing at the start, and comes back page by page: in random
 *                      order within MS milliseconds, and what is asked for first
 *
 * A start with any of them says so on stderr.
 */
#ifndef VMM_TESTING_H
#define VMM_TESTING_H

#include <stdbool.h>

bool testing_active(void);
bool testing_has(const char *name);
long testing_number(const char *name); /* 0: not there */

#endif
