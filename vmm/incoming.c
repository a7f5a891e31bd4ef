#include "vmm/incoming.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/incoming_internal.h"

static int restore_begin(struct vm_arrival *arrival, struct vm *vm, struct error *err)
{
	struct incoming *in =
		(struct incoming *)((char *)arrival - offsetof(struct incoming, arrival));
	struct stream_error why;
	int ret;

	in->vm = vm;
	ret = incoming_check_memory(in, &in->file.arrival.memory, err);
	if (ret)
		return ret;
	ret = migration_file_load(&in->file, &why);
	if (!ret)
		ret = incoming_sink.start(in, NULL, &why);
	return ret ? error_set(err, ret, "%s: %s", in->how->from, why.text) : 0;
}

static void restore_finish(struct vm_arrival *arrival)
{
	(void)arrival;
}

int vm_restore(const struct incoming_config *how, const struct vm_observer *observer,
	       struct vm_result *result, struct error *err)
{
	struct incoming *in = malloc(sizeof(*in));
	struct stream_error why;
	int fd = open(how->from, O_RDONLY | O_CLOEXEC), ret;

	if (fd < 0 || !in) {
		ret = error_set(err, fd < 0 ? -errno : -ENOMEM, "%s: %s", how->from,
				fd < 0 ? strerror(errno) : "no memory");
		free(in);
		return ret;
	}
	incoming_init(in, how);
	in->arrival.begin = restore_begin;
	in->arrival.finish = restore_finish;
	ret = migration_file_open(&in->file, fd, &incoming_sink, in, &why);
	if (ret)
		error_set(err, ret, "%s: %s", how->from, why.text);
	else
		ret = vm_run_arrival(&in->config, &in->arrival, observer, result, err);
	migration_file_close(&in->file);
	incoming_exit(in);
	free(in);
	close(fd);
	return ret;
}
