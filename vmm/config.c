/* Parsing, checking and printing of any structure that a table of fields describes. */
#include "vmm/config.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/config_list.h"

const struct config_field *config_find(const struct config_field *fields, const char *name)
{
	for (; fields->name; fields++) {
		if (!strcmp(fields->name, name))
			return fields;
	}
	return NULL;
}

static void *member(const struct config_field *field, void *object)
{
	return (char *)object + field->offset;
}

static const void *const_member(const struct config_field *field, const void *object)
{
	return (const char *)object + field->offset;
}

/* ---- the serial list -------------------------------------------------------------------- */

/* The count stands right behind the array. */
struct serial_list {
	struct serial_config entry[CONFIG_MAX_SERIAL];
	uint32_t count;
};
_Static_assert(offsetof(struct run_config, serial_count) ==
		       offsetof(struct run_config, serial) + offsetof(struct serial_list, count),
	       "serial_count must follow serial");
_Static_assert(offsetof(struct run_config, console_count) ==
		       offsetof(struct run_config, console) + offsetof(struct serial_list, count),
	       "console_count must follow console");

static const struct {
	const char *name;
	bool path;
} serial_kinds[] = {
	[SERIAL_NONE] = {"none", false},    [SERIAL_STDIO] = {"stdio", false},
	[SERIAL_PTY] = {"pty", false},	    [SERIAL_FILE] = {"file", true},
	[SERIAL_SOCKET] = {"socket", true}, [SERIAL_ATTACH] = {"attach", false},
};
enum { N_SERIAL_KINDS = sizeof(serial_kinds) / sizeof(serial_kinds[0]) };

static int parse_serial(struct serial_list *list, const char *text, struct error *err)
{
	size_t len = strcspn(text, "=");
	const char *path = text[len] ? text + len + 1 : NULL;

	for (unsigned i = 0; i < N_SERIAL_KINDS; i++) {
		if (strlen(serial_kinds[i].name) != len ||
		    strncmp(serial_kinds[i].name, text, len) != 0)
			continue;
		if (serial_kinds[i].path && (!path || !*path))
			return error_set(err, -EINVAL, "'%s' needs a path: %s=PATH", text,
					 serial_kinds[i].name);
		if (!serial_kinds[i].path && path)
			return error_set(err, -EINVAL, "'%s' takes no value", serial_kinds[i].name);
		if (list->count == CONFIG_MAX_SERIAL)
			return error_set(err, -EINVAL, "a machine has at most %d serial lines",
					 CONFIG_MAX_SERIAL);
		list->entry[list->count].kind = (enum serial_kind)i;
		list->entry[list->count].path = path ? strdup(path) : NULL;
		if (path && !list->entry[list->count].path)
			return error_set(err, -ENOMEM, "out of memory");
		list->count++;
		return 0;
	}
	return error_set(err, -EINVAL,
			 "'%s' is none of stdio, pty, attach, file=PATH, socket=PATH, none", text);
}

/* ---- numbers ---------------------------------------------------------------------------- */

void config_size_text(uint64_t bytes, char *buf, size_t len)
{
	static const char units[] = "KMGT";
	unsigned unit = 0;

	if (!bytes || bytes % 1024) {
		snprintf(buf, len, bytes ? "%" PRIu64 "B" : "%" PRIu64, bytes);
		return;
	}
	for (bytes /= 1024; unit < 3 && !(bytes % 1024); unit++)
		bytes /= 1024;
	snprintf(buf, len, "%" PRIu64 "%c", bytes, units[unit]);
}

static bool parse_size(const char *text, uint64_t *out)
{
	static const char units[] = "bkmgt";
	uint64_t whole = 0, fraction = 0, scale = 1, unit;
	const char *at = text, *found;

	for (; isdigit((unsigned char)*at); at++) {
		if (whole > UINT64_MAX / 10 - 10)
			return false;
		whole = whole * 10 + (uint64_t)(*at - '0');
	}
	if (at == text)
		return false;
	if (*at == '.') {
		for (at++; isdigit((unsigned char)*at); at++) {
			if (scale < 1000000) {
				fraction = fraction * 10 + (uint64_t)(*at - '0');
				scale *= 10;
			}
		}
	}
	unit = 1ull << 20;
	if (*at) {
		found = strchr(units, tolower((unsigned char)*at++));
		if (!found || !*found)
			return false;
		unit = 1ull << (10 * (found - units));
		if (found != units && *at == 'i' && at[1] == 'B')
			at++;
		if (found != units && *at == 'B')
			at++;
		if (*at)
			return false;
	}
	if (whole > UINT64_MAX / unit)
		return false;
	*out = whole * unit + unit / scale * fraction + unit % scale * fraction / scale;
	return true;
}

static int size_error(const struct config_field *field, const char *text, struct error *err)
{
	char min[32], max[32];

	config_size_text(field->min, min, sizeof(min));
	config_size_text(field->max, max, sizeof(max));
	return error_set(
		err, -EINVAL,
		"'%s' is not a size from %s to %s (like 512M or 4G; a plain number is MiB)", text,
		min, max);
}

static bool parse_uint(const char *text, uint64_t *out)
{
	bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
	char *end;

	/* strtoull would take spaces and signs, and octal for 010. */
	if (!isxdigit((unsigned char)text[hex ? 2 : 0]))
		return false;
	errno = 0;
	*out = strtoull(text, &end, hex ? 16 : 10);
	return !errno && !*end;
}

static int parse_choice(const struct config_field *field, uint32_t *out, const char *text,
			struct error *err)
{
	char all[128] = "";
	size_t used = 0;

	for (uint32_t i = 0; field->word(i); i++) {
		if (!strcmp(field->word(i), text)) {
			*out = i;
			return 0;
		}
		used += (size_t)snprintf(all + used, sizeof(all) - used, "%s%s", i ? ", " : "",
					 field->word(i));
	}
	return error_set(err, -EINVAL, "'%s' is none of %s", text, all);
}

static int parse_bool(bool *out, const char *text, struct error *err)
{
	*out = !strcmp(text, "on") || !strcmp(text, "yes") || !strcmp(text, "true");
	if (*out || !strcmp(text, "off") || !strcmp(text, "no") || !strcmp(text, "false"))
		return 0;
	return error_set(err, -EINVAL, "'%s' is neither on nor off", text);
}

/* ---- one value -------------------------------------------------------------------------- */

int config_parse(const struct config_field *field, void *object, const char *text,
		 struct error *err)
{
	void *at = member(field, object);
	uint64_t number = 0;
	char *copy;

	if (field->check && field->check(text, err))
		return error_prefix(err, -EINVAL, "'%s'", text);
	switch (field->type) {
	case CONFIG_STRING:
		if (field->max && strlen(text) > field->max)
			return error_set(err, -EINVAL, "longer than %" PRIu64 " characters",
					 field->max);
		copy = strdup(text);
		if (!copy)
			return error_set(err, -ENOMEM, "out of memory");
		free(*(char **)at);
		*(char **)at = copy;
		return 0;
	case CONFIG_BOOL: return parse_bool(at, text, err);
	case CONFIG_SIZE:
		if (!parse_size(text, &number) || number < field->min || number > field->max)
			return size_error(field, text, err);
		*(uint64_t *)at = number;
		return 0;
	case CONFIG_UINT:
		if (!parse_uint(text, &number) || number < field->min || number > field->max)
			return error_set(err, -EINVAL,
					 "'%s' is not a number from %" PRIu64 " to %" PRIu64, text,
					 field->min, field->max);
		*(uint32_t *)at = (uint32_t)number;
		return 0;
	case CONFIG_CHOICE: return parse_choice(field, at, text, err);
	case CONFIG_SERIAL: return parse_serial(at, text, err);
	case CONFIG_STRINGS: return config_parse_strings(field, at, text, err);
	case CONFIG_LIST: return config_parse_list(field, at, text, err);
	}
	return -EINVAL;
}

unsigned config_count(const struct config_field *field, const void *object)
{
	const void *at = const_member(field, object);

	switch (field->type) {
	case CONFIG_SERIAL: return ((const struct serial_list *)at)->count;
	case CONFIG_STRINGS:
	case CONFIG_LIST: return *config_list_count(field, (void *)(uintptr_t)at);
	default: return 1;
	}
}

const void *config_element(const struct config_field *field, const void *object, unsigned index)
{
	return (const char *)const_member(field, object) + index * field->element;
}

int config_format(const struct config_field *field, const void *object, unsigned index, char *buf,
		  size_t len)
{
	const void *at = const_member(field, object);
	const struct serial_list *list = at;
	const char *string;

	if (len)
		*buf = 0;
	if (index >= config_count(field, object))
		return -1;
	switch (field->type) {
	case CONFIG_STRING:
		string = *(char *const *)at;
		return string ? snprintf(buf, len, "%s", string) : -1;
	case CONFIG_BOOL: return snprintf(buf, len, "%s", *(const bool *)at ? "on" : "off");
	case CONFIG_SIZE:
		config_size_text(*(const uint64_t *)at, buf, len);
		return (int)strlen(buf);
	case CONFIG_UINT:
		if (*(const uint32_t *)at < field->min)
			return -1;
		return snprintf(buf, len, "%" PRIu32, *(const uint32_t *)at);
	case CONFIG_CHOICE: return snprintf(buf, len, "%s", field->word(*(const uint32_t *)at));
	case CONFIG_STRINGS: return snprintf(buf, len, "%s", ((char *const *)at)[index]);
	case CONFIG_LIST: return config_format_element(field, at, index, buf, len);
	case CONFIG_SERIAL:
		return snprintf(buf, len, "%s%s%s", serial_kinds[list->entry[index].kind].name,
				list->entry[index].path ? "=" : "",
				list->entry[index].path ? list->entry[index].path : "");
	}
	return -1;
}

void config_init(const struct config_field *fields, void *object, size_t size)
{
	memset(object, 0, size);
	for (; fields->name; fields++) {
		if (fields->initial)
			config_parse(fields, object, fields->initial, NULL);
	}
}

void config_free(const struct config_field *fields, void *object)
{
	for (; fields->name; fields++) {
		struct serial_list *list = member(fields, object);

		if (fields->type == CONFIG_STRING) {
			free(*(char **)member(fields, object));
			*(char **)member(fields, object) = NULL;
		}
		if (fields->type == CONFIG_STRINGS || fields->type == CONFIG_LIST)
			config_free_list(fields, list);
		if (fields->type != CONFIG_SERIAL)
			continue;
		for (uint32_t i = 0; i < list->count; i++)
			free(list->entry[i].path);
		list->count = 0;
	}
}
