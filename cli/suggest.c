#include <ctype.h>
#include <string.h>

#include "cli/cli.h"

enum { LONGEST = 32 };

static unsigned least(unsigned a, unsigned b, unsigned c)
{
	unsigned n = a < b ? a : b;

	return n < c ? n : c;
}

/* Edits that make a into b: insertions, deletions, changes, swaps of neighbours
 * (Damerau-Levenshtein with restricted swaps). */
static unsigned distance(const char *a, const char *b)
{
	unsigned row[3][LONGEST + 1];
	size_t la = strlen(a), lb = strlen(b);

	if (la > LONGEST || lb > LONGEST)
		return LONGEST;
	for (unsigned j = 0; j <= lb; j++)
		row[0][j] = j;
	for (unsigned i = 1; i <= la; i++) {
		unsigned *now = row[i % 3], *last = row[(i - 1) % 3], *older = row[(i + 1) % 3];

		now[0] = i;
		for (unsigned j = 1; j <= lb; j++) {
			bool same = tolower((unsigned char)a[i - 1]) ==
				    tolower((unsigned char)b[j - 1]);

			now[j] = least(last[j] + 1, now[j - 1] + 1, last[j - 1] + !same);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
			    older[j - 2] + 1 < now[j])
				now[j] = older[j - 2] + 1;
		}
	}
	return row[la % 3][lb];
}

const char *suggest(const char *word, const char *(*candidate)(const void *table, unsigned i),
		    const void *table)
{
	const char *best = NULL, *name;
	unsigned best_distance = 0;
	size_t len = strlen(word);

	for (unsigned i = 0; (name = candidate(table, i)); i++) {
		unsigned d = distance(word, name);

		/* An abbreviation is as good as one mistake. */
		if (d && len >= 2 && !strncmp(word, name, len))
			d = 1;
		if (!best || d < best_distance) {
			best = name;
			best_distance = d;
		}
	}
	return best && best_distance <= (len < 4 ? 1 : 1 + len / 4) ? best : NULL;
}
