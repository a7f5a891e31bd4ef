#include "vmm/unix_socket.h"

#include "migration/unix_socket.h"

static int told(int ret, const struct stream_error *why, struct error *err)
{
	return ret < 0 ? error_set(err, ret, "%s", why->text) : ret;
}

int unix_listen(int dir_fd, const char *name, int backlog, struct error *err)
{
	struct stream_error why;

	return told(socket_listen(dir_fd, name, backlog, &why), &why, err);
}

int unix_connect(int dir_fd, const char *name, struct error *err)
{
	struct stream_error why;

	return told(socket_connect(dir_fd, name, &why), &why, err);
}

int path_open_dir(const char *path, const char **name, struct error *err)
{
	struct stream_error why;

	return told(socket_folder(path, name, &why), &why, err);
}
