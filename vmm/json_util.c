#include "vmm/json_util.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Length of the UTF-8 sequence at `at`; 0: not one (overlong forms, surrogates, beyond U+10FFFF).
 */
static unsigned utf8_length(const uint8_t *at)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	unsigned len = *at < 0x80	? 1
		       : *at >> 5 == 6	? 2
		       : *at >> 4 == 14 ? 3
		       : *at >> 3 == 30 ? 4
					: 0;
	uint32_t code;

	if (len < 2)
		return len;
	code = *at & (0x7fu >> len);
	for (unsigned i = 1; i < len; i++) {
		if ((at[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (at[i] & 0x3fu);
	}
	return code < least[len] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ? 0 : len;
}

json_t *json_text(const char *text)
{
	static const char replacement[] = "\xef\xbf\xbd";
	const uint8_t *at = (const uint8_t *)text;
	json_t *value = NULL;
	char *clean, *to;

	if (!text)
		return json_null();
	clean = malloc(3 * strlen(text) + 1);
	if (!clean)
		return json_null();
	for (to = clean; *at;) {
		unsigned len = utf8_length(at);
		const void *from = len ? (const void *)at : replacement;

		memcpy(to, from, len ? len : 3);
		to += len ? len : 3;
		at += len ? len : 1;
	}
	*to = 0;
	value = json_string(clean);
	free(clean);
	return value ? value : json_null();
}
