#include "vmm/description.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/block/nbd.h"
#include "devices/net/net.h"
#include "migration/stream_items.h"

/* Of one host, not of the machine. */
static const char *const local_fields[] = {"engine",  "shared", "hugepages", "overcommit",
					   "pidfile", "stats",	"detach",    "quiet"};

/* One for each disk: a file of another size is none of the guest's. */
static const char size_item[] = "disk-size";

static bool is_local(const char *name)
{
	for (unsigned i = 0; i < sizeof(local_fields) / sizeof(local_fields[0]); i++) {
		if (!strcmp(local_fields[i], name))
			return true;
	}
	return false;
}

/* ---- a copy that says everything -------------------------------------------------------- */

static char *value_text(const struct config_field *field, const struct run_config *config,
			unsigned index, int *ret);

static int copy_all(struct run_config *out, const struct run_config *config)
{
	int ret = 0;

	for (const struct config_field *f = run_config_fields; f->name && !ret; f++) {
		for (unsigned i = 0; i < config_count(f, config) && !ret; i++) {
			char *text = value_text(f, config, i, &ret);

			if (text && config_parse(f, out, text, NULL))
				ret = -ENOMEM;
			free(text);
		}
	}
	return ret;
}

/* Behind `prefix`, if it has that. */
static int make_absolute(char **path, const char *prefix)
{
	size_t skip =
		prefix && *path && !strncmp(*path, prefix, strlen(prefix)) ? strlen(prefix) : 0;
	char *cwd, *whole = NULL;
	int n;

	if (!*path || (*path)[skip] == '/')
		return 0;
	cwd = get_current_dir_name();
	n = cwd ? asprintf(&whole, "%.*s%s/%s", (int)skip, *path, cwd, *path + skip) : -1;
	free(cwd);
	if (n < 0)
		return -ENOMEM;
	free(*path);
	*path = whole;
	return 0;
}

static int replace(char **at, const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		return -ENOMEM;
	free(*at);
	*at = copy;
	return 0;
}

static int say_addresses(struct run_config *out, const char *name)
{
	unsigned card = 0;
	int ret = 0;

	for (uint32_t i = 0; i < out->net_count && !ret; i++) {
		struct net_config *net = &out->net[i];
		uint8_t mac[6];
		char text[18];

		ret = make_absolute(&net->stream, "unix:");
		if (net->none)
			continue;
		net_mac_from_name(name, card++, mac);
		snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1],
			 mac[2], mac[3], mac[4], mac[5]);
		if (!ret && !net->mac)
			ret = replace(&net->mac, text);
	}
	return ret;
}

static int absolute_paths(struct run_config *out)
{
	int ret = make_absolute(&out->kernel, NULL);

	if (!ret)
		ret = make_absolute(&out->initrd, NULL);
	for (uint32_t i = 0; i < out->serial_count && !ret; i++)
		ret = make_absolute(&out->serial[i].path, NULL);
	for (uint32_t i = 0; i < out->console_count && !ret; i++)
		ret = make_absolute(&out->console[i].path, NULL);
	for (uint32_t i = 0; i < out->disk_count && !ret; i++)
		if (!nbd_is_address(out->disk[i].file))
			ret = make_absolute(&out->disk[i].file, NULL);
	if (!ret && out->vsock_count)
		ret = make_absolute(&out->vsock[0].path, NULL);
	return ret;
}

int description_of(struct run_config *out, const struct run_config *config, const char *name,
		   const char *cpu_model)
{
	int ret;

	config_init(run_config_fields, out, sizeof(*out));
	ret = copy_all(out, config);
	if (!ret)
		ret = replace(&out->name, name);
	if (!ret)
		ret = replace(&out->cpu_model, cpu_model);
	if (!ret)
		ret = absolute_paths(out);
	return ret ? ret : say_addresses(out, name);
}

/* The value as text, to be freed; NULL: not set (or no memory: *ret is -ENOMEM). */
static char *value_text(const struct config_field *field, const struct run_config *config,
			unsigned index, int *ret)
{
	/* A size does not say how long it will be. */
	int n = field->type == CONFIG_SIZE ? 32 : config_format(field, config, index, NULL, 0);
	char *text;

	if (n < 0)
		return NULL;
	text = malloc((size_t)n + 1);
	if (text)
		config_format(field, config, index, text, (size_t)n + 1);
	else
		*ret = -ENOMEM;
	return text;
}

static int put_field(struct field_buf *buf, const struct config_field *field,
		     const struct run_config *config, const struct run_config *defaults)
{
	int ret = 0;

	for (unsigned i = 0; i < config_count(field, config) && !ret; i++) {
		char *text = value_text(field, config, i, &ret);
		char *initial = value_text(field, defaults, i, &ret);
		/* The name is for people: another is taken where it is not understood. */
		bool must = strcmp(field->name, "name") != 0 && text &&
			    (!initial || strcmp(text, initial) != 0);

		if (!ret && text)
			ret = stream_item_put_text(buf, must, field->name, text);
		free(text);
		free(initial);
	}
	return ret;
}

int description_write(struct stream_writer *w, const struct run_config *config, struct error *err)
{
	struct run_config *defaults = malloc(sizeof(*defaults));
	struct field_buf buf = {0};
	int ret = 0;

	if (!defaults)
		return error_set(err, -ENOMEM, "no memory");
	config_init(run_config_fields, defaults, sizeof(*defaults));
	for (const struct config_field *f = run_config_fields; f->name && !ret; f++) {
		if (!is_local(f->name))
			ret = put_field(&buf, f, config, defaults);
	}
	for (uint32_t i = 0; i < config->disk_count && !ret; i++)
		ret = stream_item_put_number(&buf, false, size_item, config->disk[i].size);
	if (!ret)
		ret = stream_write_bytes(w, STREAM_DESCRIPTION, 0, buf.data, buf.len);
	if (ret)
		error_set(err, ret, "cannot send the machine's description: %s", strerror(-ret));
	config_free(run_config_fields, defaults);
	free(defaults);
	field_buf_free(&buf);
	return ret;
}

/* Of the disks, in their order, behind them. */
static int read_size(const struct stream_frame *frame, const struct stream_item *item,
		     struct run_config *config, uint32_t n, struct error *err)
{
	struct stream_error why;
	uint64_t size;
	int ret = stream_item_number(frame, item, INT64_MAX, &size, &why);

	if (ret)
		return error_set(err, ret, "%s", why.text);
	if (n < config->disk_count)
		config->disk[n].size = size;
	return 0;
}

static int read_item(const struct stream_frame *frame, const struct stream_item *item,
		     struct run_config *config, struct error *err)
{
	const struct config_field *field = config_find(run_config_fields, item->name);
	struct stream_error why;
	char *text;
	int ret;

	if (!field || is_local(item->name)) {
		ret = stream_item_unknown(frame, item, &why);
		return ret ? error_set(err, ret, "%s", why.text) : 0;
	}
	text = malloc((size_t)item->len + 1);
	if (!text)
		return error_set(err, -ENOMEM, "no memory");
	ret = stream_item_text(frame, item, text, (size_t)item->len + 1, &why);
	if (ret)
		error_set(err, ret, "%s", why.text);
	else if (config_parse(field, config, text, err))
		ret = error_prefix(err, -EINVAL, "the machine's description, %s", item->name);
	free(text);
	return ret;
}

int description_read(const struct stream_frame *frame, struct run_config *config, struct error *err)
{
	struct stream_error why;
	struct stream_item item;
	uint32_t at = 0, sizes = 0;
	int ret;

	while ((ret = stream_item_next(frame, &at, &item, &why)) > 0) {
		if (!strcmp(item.name, size_item))
			ret = read_size(frame, &item, config, sizes++, err);
		else
			ret = read_item(frame, &item, config, err);
		if (ret)
			return ret;
	}
	return ret ? error_set(err, ret, "%s", why.text) : 0;
}
