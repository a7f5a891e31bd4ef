#include "vmm/testing.h"

#include <stdlib.h>
#include <string.h>

static const char *find(const char *name)
{
	const char *list = getenv("FERRY_TEST");
	const size_t len = strlen(name);

	while (list && *list) {
		if (!strncmp(list, name, len) && strchr(",=", list[len]))
			return list + len; /* the closing NUL counts as found, too */
		list = strchr(list, ',');
		if (list)
			list++;
	}
	return NULL;
}

bool testing_active(void)
{
	const char *list = getenv("FERRY_TEST");

	return list && *list;
}

bool testing_has(const char *name)
{
	return find(name) != NULL;
}

long testing_number(const char *name)
{
	const char *at = find(name);

	return at && *at == '=' ? strtol(at + 1, NULL, 10) : 0;
}
