#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/chardev_stream.h"
#include "vmm/message.h"

/* Regular files are written by the vCPU that sends the byte: it is there for every reader (and
 * survives any end of this process) as soon as the guest goes on. */
struct file_backend {
	struct chardev_backend backend;
	struct chardev_env env;
	int fd;
	_Atomic bool failed; /* said once */
	char path[];
};

static void file_attach(struct chardev *chr, const struct chardev_client *client)
{
	(void)chr;
	(void)client;
}

static void file_kick_receive(struct chardev *chr)
{
	(void)chr;
}

static size_t file_write(struct chardev *chr, const uint8_t *data, size_t len)
{
	struct file_backend *file = chr->opaque;
	size_t done = 0;

	while (done < len) {
		ssize_t n = write(file->fd, data + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			/* The guest must not stand still for a full disk: bytes are lost from here.
			 */
			if (!file->failed)
				message("%s: %s: %s; output is lost until this is cured",
					file->env.name, file->path, strerror(n ? errno : EIO));
			file->failed = true;
			return len;
		}
		file->failed = false;
		done += (size_t)n;
	}
	return len;
}

static void file_destroy(struct chardev_backend *backend)
{
	struct file_backend *file = backend->chr.opaque;

	close(file->fd);
	free(file);
}

/* A FIFO or a device can make the writer wait: that is a stream's job. */
struct special_file {
	struct stream stream;
	int fd;
	char path[];
};

static void special_failed(struct stream *stream, int code)
{
	struct special_file *file = (struct special_file *)stream;

	message("%s: %s: %s; output is lost from here", stream->env.name, file->path,
		strerror(-code));
	stream_stop_output(stream);
}

static void special_destroy(struct stream *stream)
{
	close(((struct special_file *)stream)->fd);
	free(stream);
}

static int special_create(struct chardev_backend **out, int fd, const char *path,
			  const struct chardev_env *env)
{
	static const struct stream_hooks hooks = {.output_failed = special_failed,
						  .destroy = special_destroy};
	struct special_file *file = calloc(1, sizeof(*file) + strlen(path) + 1);
	int code;

	if (!file)
		return -ENOMEM;
	file->fd = fd;
	memcpy(file->path, path, strlen(path) + 1);
	stream_init(&file->stream, &hooks, env);
	code = stream_connect(&file->stream, -1, fd);
	if (code) {
		free(file);
		return code;
	}
	*out = &file->stream.backend;
	return 0;
}

int chardev_file_create(struct chardev_backend **out, const char *path,
			const struct chardev_env *env, struct error *err)
{
	static const struct chardev_ops ops = {file_attach, file_write, file_kick_receive};
	struct file_backend *file;
	struct stat st;
	int code;
	/* Without O_NONBLOCK a FIFO that nobody reads would hold up the start for ever. */
	int fd = open(path,
		      O_WRONLY | O_CREAT | (env->append ? 0 : O_TRUNC) | O_APPEND | O_NONBLOCK |
			      O_NOCTTY | O_CLOEXEC,
		      0666);

	if (fd < 0 || fstat(fd, &st)) {
		code = -errno;
		return error_set(err, code, "%s: %s: %s", env->name, path,
				 code == -ENXIO ? "nobody reads this FIFO; start its reader first"
						: strerror(-code));
	}
	if (!S_ISREG(st.st_mode)) {
		code = special_create(out, fd, path, env);
	} else {
		file = calloc(1, sizeof(*file) + strlen(path) + 1);
		code = file ? 0 : -ENOMEM;
		if (file) {
			file->backend = (struct chardev_backend){.chr = {&ops, file},
								 .destroy = file_destroy};
			file->env = *env;
			file->fd = fd;
			memcpy(file->path, path, strlen(path) + 1);
			*out = &file->backend;
		}
	}
	if (code) {
		close(fd);
		return error_set(err, code, "%s: %s: %s", env->name, path, strerror(-code));
	}
	return 0;
}
