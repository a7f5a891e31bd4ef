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

	in->look.image = in->arrival.image;
	ret = thread_start(&in->look.thread, look_main, in);
	in->look.started = !ret;
	return ret ? error_set(err, ret, "cannot start a thread: %s", strerror(-ret)) : 0;
}

static void join(struct incoming *in)
{
	if (in->look.started)
		pthread_join(in->look.thread, NULL);
	in->look.started = false;
}

int incoming_image(struct incoming *in, const struct stream_piece *piece, struct stream_error *err)
{
	struct error why = {""};
	int ret;

	if (strcmp(piece->name, "boot") != 0 || in->arrival.image)
		return stream_fail(err, NULL, -EPROTO, "a boot image %s is not expected",
				   piece->name);
	ret = boot_adopt(&in->adoption, piece->data, piece->len, &why);
	if (!ret && piece->offset + piece->len == piece->total)
		ret = boot_adopted(&in->adoption, &in->arrival.image, &why);
	/* Who restores is in a hurry. */
	if (!ret && in->arrival.image && !in->fresh)
		ret = look(in, &why);
	return ret ? stream_fail(err, NULL, ret, "%s", why.text) : 0;
}

int incoming_image_check(struct incoming *in, bool wait, struct error *err)
{
	if (!wait && !atomic_load(&in->look.done))
		return 0;
	join(in);
	return in->look.code ? error_set(err, in->look.code, "%s", in->look.err.text) : 0;
}

void incoming_image_exit(struct incoming *in)
{
	join(in);
	boot_adopt_end(&in->adoption);
	boot_close(in->arrival.image);
	in->arrival.image = NULL;
}
