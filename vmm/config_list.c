/* Lists of strings and of structures: "--disk a.img,ro --disk b.img". */
#include "vmm/config_list.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t element_size(const struct config_field *field)
{
	return field->type == CONFIG_STRINGS ? sizeof(char *) : field->element;
}

uint32_t *config_list_count(const struct config_field *field, void *at)
{
	return (uint32_t *)((char *)at + field->limit * element_size(field));
}

int config_parse_strings(const struct config_field *field, void *at, const char *text,
			 struct error *err)
{
	uint32_t *count = config_list_count(field, at);
	char *copy;

	if (*count == field->limit)
		return error_set(err, -EINVAL, "at most %u are possible", field->limit);
	copy = strdup(text);
	if (!copy)
		return error_set(err, -ENOMEM, "out of memory");
	((char **)at)[(*count)++] = copy;
	return 0;
}

/* ---- elements --------------------------------------------------------------------------- */

/* The keys, for a message: "ro, serial=, cache=". */
static const char *keys(const struct config_field *sub, char *buf, size_t len)
{
	size_t used = 0;

	*buf = 0;
	for (; sub->name && used < len; sub++) {
		if (!sub->positional)
			used += (size_t)snprintf(buf + used, len - used, "%s%s%s", used ? ", " : "",
						 sub->name, sub->type == CONFIG_BOOL ? "" : "=");
	}
	return buf;
}

static int parse_part(const struct config_field *sub, void *element, char *part, bool first,
		      struct error *err)
{
	char known[256], *value = strchr(part, '=');
	const struct config_field *field;

	if (first && sub->positional) {
		if (config_parse(sub, element, part, err))
			return -EINVAL;
		return 0;
	}
	if (value)
		*value++ = 0;
	field = config_find(sub, part);
	if (!field || field->positional)
		return error_set(err, -EINVAL, "'%s' is not known; there are %s", part,
				 keys(sub, known, sizeof(known)));
	if (!value && field->type != CONFIG_BOOL)
		return error_set(err, -EINVAL, "%s needs a value: %s=...", part, part);
	if (config_parse(field, element, value ? value : "on", err))
		return error_prefix(err, -EINVAL, "%s", part);
	return 0;
}

/* Ends the part at `text` and returns where the next one begins, or NULL; ",," becomes ','. */
static char *cut(char *text)
{
	char *to = text;

	for (;; text++) {
		if (*text == ',' && text[1] == ',')
			text++;
		else if (*text == ',' || !*text)
			break;
		*to++ = *text;
	}
	if (!*text) {
		*to = 0;
		return NULL;
	}
	*to = 0;
	return text + 1;
}

static int parse_element(const struct config_field *field, void *element, const char *text,
			 struct error *err)
{
	char *copy = strdup(text), *part = copy, *next;
	bool first = true;
	int ret = copy ? 0 : error_set(err, -ENOMEM, "out of memory");

	for (; !ret && part; part = next, first = false) {
		next = cut(part);
		ret = parse_part(field->sub, element, part, first, err);
	}
	free(copy);
	if (!ret && field->check_element)
		ret = field->check_element(element, err);
	return ret;
}

int config_parse_list(const struct config_field *field, void *at, const char *text,
		      struct error *err)
{
	uint32_t *count = config_list_count(field, at);
	void *element;
	int ret;

	if (*count == field->limit)
		return error_set(err, -EINVAL, "at most %u are possible", field->limit);
	element = (char *)at + *count * field->element;
	config_init(field->sub, element, field->element);
	ret = parse_element(field, element, text, err);
	if (ret)
		config_free(field->sub, element);
	else
		++*count;
	return ret;
}

/* ---- the way back ----------------------------------------------------------------------- */

struct text {
	char *buf;
	size_t len, used;
};

static void put(struct text *t, char c)
{
	if (t->used + 1 < t->len)
		t->buf[t->used] = c;
	t->used++;
}

static void put_value(struct text *t, const char *value, bool escaped)
{
	for (; *value; value++) {
		if (*value == ',' && escaped)
			put(t, ',');
		put(t, *value);
	}
}

static void put_field(struct text *t, const struct config_field *sub, const void *element,
		      unsigned index)
{
	char value[4096];

	if (config_format(sub, element, index, value, sizeof(value)) < 0)
		return;
	if (sub->type == CONFIG_BOOL ? !strcmp(value, "off")
				     : sub->initial && !strcmp(value, sub->initial))
		return;
	if (t->used)
		put(t, ',');
	if (!sub->positional)
		put_value(t, sub->name, false);
	if (sub->type == CONFIG_BOOL)
		return;
	if (!sub->positional)
		put(t, '=');
	put_value(t, value, true);
}

int config_format_element(const struct config_field *field, const void *at, unsigned index,
			  char *buf, size_t len)
{
	const void *element = (const char *)at + index * field->element;
	struct text t = {buf, len, 0};

	for (const struct config_field *sub = field->sub; sub->name; sub++) {
		for (unsigned i = 0; i < config_count(sub, element); i++)
			put_field(&t, sub, element, i);
	}
	if (len)
		buf[t.used < len ? t.used : len - 1] = 0;
	return (int)t.used;
}

void config_free_list(const struct config_field *field, void *at)
{
	uint32_t *count = config_list_count(field, at);

	for (uint32_t i = 0; i < *count; i++) {
		if (field->type == CONFIG_STRINGS)
			free(((char **)at)[i]);
		else
			config_free(field->sub, (char *)at + i * field->element);
	}
	*count = 0;
}
