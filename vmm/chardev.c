#include "vmm/chardev.h"

#include <errno.h>
#include <stdlib.h>

#include "vmm/chardev_attach.h"
#include "vmm/chardev_stream.h"

static void none_attach(struct chardev *chr, const struct chardev_client *client)
{
	(void)chr;
	(void)client;
}

static size_t none_write(struct chardev *chr, const uint8_t *data, size_t len)
{
	(void)chr;
	(void)data;
	return len;
}

static void none_kick_receive(struct chardev *chr)
{
	(void)chr;
}

static void none_destroy(struct chardev_backend *backend)
{
	free(backend);
}

static int none_create(struct chardev_backend **out, struct error *err)
{
	static const struct chardev_ops ops = {none_attach, none_write, none_kick_receive};
	struct chardev_backend *backend = calloc(1, sizeof(*backend));

	if (!backend)
		return error_set(err, -ENOMEM, "out of memory");
	*backend = (struct chardev_backend){.chr = {&ops, NULL}, .destroy = none_destroy};
	*out = backend;
	return 0;
}

int chardev_create(struct chardev **out, const struct serial_config *config,
		   const struct chardev_env *env, struct error *err)
{
	struct chardev_backend *backend = NULL;
	int code = -EINVAL;

	switch (config->kind) {
	case SERIAL_NONE: code = none_create(&backend, err); break;
	case SERIAL_STDIO: code = chardev_stdio_create(&backend, env, err); break;
	case SERIAL_PTY: code = chardev_pty_create(&backend, env, err); break;
	case SERIAL_FILE: code = chardev_file_create(&backend, config->path, env, err); break;
	case SERIAL_ATTACH: code = chardev_attach_create(&backend, env, err); break;
	case SERIAL_SOCKET: code = chardev_socket_create(&backend, config->path, env, err); break;
	}
	if (!code)
		*out = &backend->chr;
	return code;
}

int chardev_acquire(struct chardev *chr, struct error *err)
{
	struct chardev_backend *backend = (struct chardev_backend *)chr;

	return backend && backend->acquire ? backend->acquire(backend, err) : 0;
}

void chardev_release(struct chardev *chr)
{
	struct chardev_backend *backend = (struct chardev_backend *)chr;

	if (backend && backend->release)
		backend->release(backend);
}

void chardev_hold(struct chardev *chr, bool hold)
{
	struct chardev_backend *backend = (struct chardev_backend *)chr;

	if (!backend)
		return;
	backend->held = hold;
	if (!hold)
		chr->ops->kick_receive(chr);
}

size_t chardev_ahead(const struct chardev *chr)
{
	const struct chardev_backend *backend = (const struct chardev_backend *)chr;

	return backend && backend->ahead ? backend->ahead(backend) : 0;
}

void chardev_destroy(struct chardev *chr)
{
	struct chardev_backend *backend = (struct chardev_backend *)chr;

	if (backend)
		backend->destroy(backend);
}
