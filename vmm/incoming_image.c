/* What an incoming guest would boot from. */
#include <errno.h>
#include <string.h>

#include "migration/thread.h"
#include "vmm/incoming_internal.h"

/* Unpacking takes longer than all the rest of the machine: pages come meanwhile. */
static void *look_main(void *arg)
{
	struct incoming *in = arg;

	pthread_setname_np(pthread_self(), "kernel");
	in->look.code = boot_look(in->look.image, &in->look.err);
	atomic_store(&in->look.done, true);
	return NULL;
}

static int look(struct incoming *in, struct error *err)
{
	int ret;

	in->look.begun = true;
	ret = thread_start(&in->look.thread, look_main, in);
	in->look.started = !ret;
	return ret ? error_set(err, ret, "cannot start a thread: %s", strerror(-ret)) : 0;
}

static void join(pthread_t thread, bool *started)
{
	if (*started)
		pthread_join(thread, NULL);
	*started = false;
}

/* ---- what is here already --------------------------------------------------------------- */

/* Another host's files may have the same names and be others, or none at all: that is no error. */
static void *seek_main(void *arg)
{
	struct incoming *in = arg;
	const struct boot_request request = {.kernel = in->config.kernel,
					     .initrd = in->config.initrd,
					     .cmdline = in->config.append};
	struct error why;

	pthread_setname_np(pthread_self(), "kernel");
	if (!boot_find(&in->own.image, &request, &why) &&
	    boot_digest(in->own.image, in->own.digest, &why)) {
		boot_close(in->own.image);
		in->own.image = NULL;
	}
	return NULL;
}

void incoming_image_seek(struct incoming *in)
{
	in->own.started = !thread_start(&in->own.thread, seek_main, in);
}

void incoming_image_own(struct incoming *in, uint8_t digest[BOOT_DIGEST])
{
	join(in->own.thread, &in->own.started);
	if (in->own.image)
		memcpy(digest, in->own.digest, BOOT_DIGEST);
}

static void forget_own(struct incoming *in)
{
	join(in->own.thread, &in->own.started);
	boot_close(in->own.image);
	in->own.image = NULL;
}

/* ---- what comes ------------------------------------------------------------------------- */

int incoming_image(struct incoming *in, const struct stream_piece *piece, struct stream_error *err)
{
	struct error why = {""};
	int ret;

	if (strcmp(piece->name, "boot") != 0 || in->arrival.image)
		return stream_fail(err, NULL, -EPROTO, "a boot image %s is not expected",
				   piece->name);
	forget_own(in);
	ret = boot_adopt(&in->adoption, piece->data, piece->len, &why);
	if (!ret && piece->offset + piece->len == piece->total)
		ret = boot_adopted(&in->adoption, &in->arrival.image, &why);
	return ret ? stream_fail(err, NULL, ret, "%s", why.text) : 0;
}

int incoming_image_check(struct incoming *in, bool wait, struct error *err)
{
	if (!in->look.begun) {
		int ret;

		if (in->own.image) {
			in->arrival.image = in->own.image;
			in->own.image = NULL;
		}
		in->look.image = in->vm->image ? in->vm->image : in->arrival.image;
		ret = in->look.image ? look(in, err)
				     : error_set(err, -EPROTO,
						 "the stream has nothing to boot again from");
		if (ret)
			return ret;
	}
	if (!wait && !atomic_load(&in->look.done))
		return 0;
	join(in->look.thread, &in->look.started);
	return in->look.code ? error_set(err, in->look.code, "%s", in->look.err.text) : 0;
}

void incoming_image_exit(struct incoming *in)
{
	join(in->look.thread, &in->look.started);
	forget_own(in);
	boot_adopt_end(&in->adoption);
	boot_close(in->arrival.image);
	in->arrival.image = NULL;
}
