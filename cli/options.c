#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

/* Where an option was found: "--memory" or "-m", as it was written. */
struct found {
	const struct option *option;
	char written[64];
};

static const char *option_name(const void *table, unsigned i)
{
	return ((const struct option *)table)[i].name;
}

static const struct option *find_name(const struct verb *verb, const char *name, size_t len)
{
	for (const struct option *o = verb->options; o->name; o++) {
		if (strlen(o->name) == len && !strncmp(o->name, name, len))
			return o;
	}
	return NULL;
}

static const struct option *find_letter(const struct verb *verb, char letter)
{
	for (const struct option *o = verb->options; o->name; o++) {
		if (o->letter == letter)
			return o;
	}
	return NULL;
}

static int unknown(const struct verb *verb, const char *arg, struct error *err)
{
	const char *bare = arg + strspn(arg, "-"), *near;
	char word[64];
	int len = (int)strcspn(bare, "=");

	snprintf(word, sizeof(word), "%.*s", len, bare);
	len += (int)(bare - arg);
	for (const struct hint *h = verb->hints; h && h->word; h++) {
		if (!strcmp(h->word, word))
			return error_set(err, -EINVAL, "unknown option %.*s; %s", len, arg,
					 h->text);
	}
	near = suggest(word, option_name, verb->options);
	if (near)
		return error_set(err, -EINVAL, "unknown option %.*s; did you mean --%s?", len, arg,
				 near);
	return error_set(err, -EINVAL, "unknown option %.*s; see: ferry help %s", len, arg,
			 verb->name);
}

/* ---- values ----------------------------------------------------------------------------- */

static int set_suboption(const struct verb *verb, const struct found *found, void *config,
			 const char *text, struct error *err)
{
	const struct suboption *sub = found->option->suboptions;
	const char *value = strchr(text, '=');
	size_t len = value ? (size_t)(value - text) : strlen(text);
	const struct config_field *field;

	while (sub->name && (strlen(sub->name) != len || strncmp(sub->name, text, len) != 0))
		sub++;
	if (!sub->name)
		return error_set(err, -EINVAL, "%s: '%s' is not known; it is %s %s", found->written,
				 text, found->written, found->option->value);
	field = config_find(verb->fields, sub->field);
	if (!value && field->type != CONFIG_BOOL)
		return error_set(err, -EINVAL, "%s: %s needs a value", found->written, sub->name);
	if (config_parse(field, config, value ? value + 1 : "on", err))
		return error_prefix(err, -EINVAL, "%s: %s", found->written, sub->name);
	return 0;
}

static int set_value(const struct verb *verb, const struct found *found, void *config,
		     const char *text, struct error *err)
{
	const struct config_field *field = config_find(verb->fields, found->option->field);
	char *copy, *part, *rest = NULL;
	int ret;

	if (!found->option->suboptions) {
		ret = config_parse(field, config, text, err);
		return ret ? error_prefix(err, ret, "%s", found->written) : 0;
	}
	/* The last --memory counts as a whole: sub-options of one before do not linger. */
	for (const struct suboption *sub = found->option->suboptions; sub->name; sub++) {
		const struct config_field *f = config_find(verb->fields, sub->field);

		if (f->type == CONFIG_BOOL)
			config_parse(f, config, "off", NULL);
	}
	copy = strdup(text);
	if (!copy)
		return error_set(err, -ENOMEM, "out of memory");
	part = strtok_r(copy, ",", &rest);
	ret = config_parse(field, config, part ? part : "", err);
	if (ret)
		error_prefix(err, ret, "%s", found->written);
	while (!ret && (part = strtok_r(NULL, ",", &rest)))
		ret = set_suboption(verb, found, config, part, err);
	free(copy);
	return ret;
}

struct operands {
	const char *last;
	unsigned count;
};

static int set_operand(const struct verb *verb, void *config, const char *arg,
		       struct operands *given, struct error *err)
{
	const char *const fields[] = {verb->operand_field, verb->second_field, verb->third_field,
				      NULL};
	const char *field = fields[given->count];

	if (!field && !given->count)
		return error_set(err, -EINVAL, "'%s' is not expected; ferry %s takes options only",
				 arg, verb->name);
	if (!field)
		return error_set(err, -EINVAL,
				 "'%s' after '%s': only one %s is expected; a value with spaces "
				 "needs quotes",
				 arg, given->last, verb->operands);
	given->count++;
	given->last = arg;
	if (config_parse(config_find(verb->fields, field), config, arg, err))
		return error_prefix(err, -EINVAL, "%s", given->count == 1 ? verb->operands : field);
	return 0;
}

/* ---- the walk over argv ----------------------------------------------------------------- */

/* Finds the option of one argument; *value: what stands in the same argument, or NULL. */
static int find(const struct verb *verb, const char *arg, struct found *found, const char **value,
		struct error *err)
{
	size_t len;

	*value = NULL;
	if (arg[1] == '-') {
		len = strcspn(arg + 2, "=");
		found->option = find_name(verb, arg + 2, len);
		if (!found->option)
			return unknown(verb, arg, err);
		if (arg[2 + len])
			*value = arg + 3 + len;
		snprintf(found->written, sizeof(found->written), "--%s", found->option->name);
		return 0;
	}
	found->option = find_letter(verb, arg[1]);
	/* -memory is QEMU's way to write --memory, not -m with the value "emory". */
	if (!found->option || (arg[2] && !found->option->value) ||
	    (arg[2] && find_name(verb, arg + 1, strcspn(arg + 1, "="))))
		return unknown(verb, arg, err);
	snprintf(found->written, sizeof(found->written), "-%c", arg[1]);
	if (arg[2])
		*value = arg + 2;
	return 0;
}

int options_parse(const struct verb *verb, void *config, int argc, char **argv, struct error *err)
{
	struct operands given = {0};
	bool only_operands = false;

	for (int i = 0; i < argc; i++) {
		struct found found;
		const char *value;
		int ret;

		if (!only_operands && !strcmp(argv[i], "--")) {
			only_operands = true;
			continue;
		}
		if (only_operands || argv[i][0] != '-' || !argv[i][1]) {
			ret = set_operand(verb, config, argv[i], &given, err);
			if (ret)
				return ret;
			continue;
		}
		ret = find(verb, argv[i], &found, &value, err);
		if (ret)
			return ret;
		if (!found.option->field)
			return 1;
		if (!found.option->value && !value)
			value = "on";
		if (!value && i + 1 < argc)
			value = argv[++i];
		if (!value)
			return error_set(err, -EINVAL, "%s needs a value: %s %s", found.written,
					 found.written, found.option->value);
		ret = set_value(verb, &found, config, value, err);
		if (ret)
			return ret;
	}
	return 0;
}
