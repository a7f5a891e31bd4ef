/*
 * What the back ends on byte-stream descriptors (stdio, pty, socket) have in common: a buffer each
 * way, flow control to both sides, everything non-blocking. Output is written by the loop's thread,
 * so that a burst costs a vCPU one wake-up and not a system call for each byte.
 */
#ifndef VMM_CHARDEV_STREAM_H
#define VMM_CHARDEV_STREAM_H

#include <pthread.h>

#include "vmm/chardev.h"

/* A back end: what chardev_create returns is the address of its chr. */
struct chardev_backend {
	struct chardev chr;
	void (*destroy)(struct chardev_backend *backend);
	/* See chardev_acquire(); both or none. */
	int (*acquire)(struct chardev_backend *backend, struct error *err);
	void (*release)(struct chardev_backend *backend);
	size_t (*ahead)(const struct chardev_backend *backend); /* chardev_ahead(); NULL: nothing */
	bool held; /* nothing is given to the device: chardev_hold() */
};
int chardev_file_create(struct chardev_backend **out, const char *path,
			const struct chardev_env *env, struct error *err);
int chardev_stdio_create(struct chardev_backend **out, const struct chardev_env *env,
			 struct error *err);
int chardev_pty_create(struct chardev_backend **out, const struct chardev_env *env,
		       struct error *err);
int chardev_socket_create(struct chardev_backend **out, const char *path,
			  const struct chardev_env *env, struct error *err);

struct stream;
struct stream_hooks {
	/* Looks at what came in (escape keys); returns the bytes left, moved to the front. */
	size_t (*filter)(struct stream *stream, uint8_t *data, size_t len);
	/* May be read / written now? false: leave it (background job) / drop it (pty that is not
	 * open). */
	bool (*may_read)(struct stream *stream);
	bool (*may_write)(struct stream *stream);
	/* End of input: 0, or -errno; true: only for now. / Output fails with -errno. They may call
	 * stream_disconnect(). */
	bool (*input_ended)(struct stream *stream, int code);
	void (*output_failed)(struct stream *stream, int code);
	void (*destroy)(struct stream *stream); /* the back end's own part */
};

struct stream {
	struct chardev_backend backend;
	struct chardev_env env;
	const struct stream_hooks *hooks;
	int in_fd, out_fd; /* -1: none; may be the same; the back end's */
	bool in_socket, out_socket;
	struct loop_fd *in_entry, *out_entry;
	struct loop_work in_work, out_work;
	struct chardev_client client;

	/* Read ahead only where an escape key must work while the guest takes nothing (filter), and
	 * of somebody who has hung up, so that that is seen: what is here is lost in a move. */
	uint8_t in[4096];
	size_t in_len;
	bool in_ended, hung_up;

	pthread_mutex_t lock; /* of what follows */
	uint8_t out[4096];
	size_t out_head, out_len;
	bool out_open; /* somebody is there: bytes are kept */
	bool starved;  /* a write was short: call `writable` */
};

/* stream: zeroed memory, the first member of the back end's structure, freed by destroy. */
void stream_init(struct stream *stream, const struct stream_hooks *hooks,
		 const struct chardev_env *env);
/* Starts using descriptors (non-blocking, or regular files). 0 or -errno. */
int stream_connect(struct stream *stream, int in_fd, int out_fd);
/* Stops using them (the caller closes them); output that waits is dropped. */
void stream_disconnect(struct stream *stream);
void stream_stop_output(struct stream *stream);
/* Something has changed: try to read / write again. */
void stream_poke(struct stream *stream);

#endif
