#include "cli/json.h"

#include "vmm/json_util.h"

void print_json_string(FILE *out, const char *text)
{
	json_t *value = json_text(text);

	json_dumpf(value, out, JSON_ENCODE_ANY);
	json_decref(value);
}

void print_json(json_t *value)
{
	json_dumpf(value, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(value);
}
