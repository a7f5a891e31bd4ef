/* A guest whose source has lost us: what it lacks comes in a file. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/incoming_internal.h"
#include "vmm/message.h"

/* The loop's thread. */
static void answer(void *arg)
{
	struct incoming_file *file = arg;

	if (!file->request)
		return;
	if (!file->code)
		message("the guest is whole: the rest of it came from %s", file->path);
	control_answer(file->request, file->code, NULL, &file->err);
	file->request = NULL;
	close(file->fd);
	free(file->path);
}

/* The migration's thread. */
static void done(void *opaque, int code, const char *text)
{
	struct incoming *in = opaque;

	in->completion.code = code;
	error_set(&in->completion.err, code, "%s: %s", in->completion.path, text);
	loop_work_post(in->vm->loop, &in->completion.work);
}

int incoming_complete_from(struct vm_arrival *arrival, const char *path,
			   struct control_request *request, struct error *err)
{
	struct incoming *in = incoming_of(arrival);
	struct incoming_file *file = &in->completion;
	struct destination_file to = {.done = done, .opaque = in};
	struct stat st;
	int ret;

	if (file->request)
		return error_set(err, -EBUSY, "%s is being read", file->path);
	if (path[0] != '/')
		return error_set(err, -EINVAL, "a file's path begins at the root");
	to.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (to.fd < 0)
		return error_set(err, -errno, "%s: %s", path, strerror(errno));
	*file = (struct incoming_file){
		.request = request, .fd = to.fd, .path = strdup(path), .work = {answer, file}};
	ret = fstat(to.fd, &st) || !S_ISREG(st.st_mode) || !file->path ? -EINVAL : 0;
	if (ret)
		error_set(err, ret, "%s is no file", path);
	if (!ret) {
		ret = destination_complete(&in->from, &to);
		if (ret)
			error_set(err, ret, "nothing is missing here");
	}
	if (!ret)
		return 0;
	file->request = NULL;
	close(to.fd);
	free(file->path);
	return ret;
}

void incoming_complete_exit(struct incoming *in)
{
	loop_work_cancel(in->vm->loop, &in->completion.work);
	answer(&in->completion);
}
