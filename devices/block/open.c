#include "devices/block/open.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/block/file.h"
#include "devices/block/format.h"
#include "devices/block/lock.h"
#include "devices/block/nbd.h"

struct opening {
	const struct block_open *how;
	const struct backend_host *host;
	char *why;
	size_t why_len;
	struct file_params params;
	struct stat st;
	char note[96];
};

__attribute__((format(printf, 3, 4))) static int fail(struct opening *o, int code, const char *fmt,
						      ...)
{
	int n = snprintf(o->why, o->why_len, "%s ", o->how->path);
	va_list args;

	va_start(args, fmt);
	if (n >= 0 && (size_t)n < o->why_len)
		vsnprintf(o->why + n, o->why_len - (size_t)n, fmt, args);
	va_end(args);
	return code;
}

__attribute__((format(printf, 2, 3))) static void note(struct opening *o, const char *fmt, ...)
{
	size_t n = strlen(o->note);
	va_list args;

	va_start(args, fmt);
	vsnprintf(o->note + n, sizeof(o->note) - n, fmt, args);
	va_end(args);
}

/* ---- the file ---------------------------------------------------------------------------- */

static int cannot_open(struct opening *o, int code)
{
	switch (code) {
	case -ENOENT:
		return fail(
			o, code,
			o->how->unlocked
				? "does not exist: it is to be the guest's disk; bring it here, "
				  "or say where it is: --disk N=FILE"
				: "does not exist: truncate -s 10G FILE makes an empty disk");
	case -EISDIR: return fail(o, code, "is a directory, not a disk");
	case -EACCES:
	case -EPERM:
	case -EROFS:
		if (!o->how->read_only && !access(o->how->path, R_OK))
			return fail(o, code, "may only be read: add ',ro' for a read-only disk");
		return fail(o, code, "may not be opened by this user (%s)", strerror(-code));
	case -EBUSY: return fail(o, code, "is in use by this host: is it mounted?");
	default: return fail(o, code, "cannot be opened: %s", strerror(-code));
	}
}

static int open_fd(struct opening *o, int extra)
{
	/* Not blocking for what turns out to be a pipe. */
	int fd = open(o->how->path,
		      (o->how->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | extra);

	return fd < 0 ? -errno : fd;
}

static int size_of(struct opening *o)
{
	struct file_params *p = &o->params;
	unsigned physical = 4096;
	int ret;

	if (S_ISBLK(o->st.st_mode)) {
		/* A writer beside a file system of the host's would destroy it. */
		int probe = o->how->read_only ? 0 : open_fd(o, O_EXCL);

		if (probe == -EBUSY)
			return cannot_open(o, -EBUSY);
		if (probe > 0)
			close(probe);
		(void)ioctl(p->fd, BLKPBSZGET, &physical);
	} else if (S_ISREG(o->st.st_mode)) {
		physical = (unsigned)o->st.st_blksize;
	} else {
		return fail(o, -EINVAL, "is neither a file nor a block device");
	}
	ret = file_size(p->fd, &p->size);
	if (ret)
		return fail(o, ret, "does not say its size: %s", strerror(-ret));
	if (!p->size)
		return fail(o, -EINVAL,
			    o->how->unlocked
				    ? "is empty: it is to be the guest's disk"
				    : "is empty: truncate -s 10G FILE makes a disk of that size");
	if (p->size % 512)
		return fail(o, -EINVAL,
			    "has %llu bytes, no multiple of 512: truncate -s %%512 FILE makes it "
			    "one",
			    (unsigned long long)p->size);
	p->block_size =
		physical < 512 || physical > 65536 || (physical & (physical - 1)) ? 4096 : physical;
	return 0;
}

/* A guest with a raw disk can write any header: what a disk is must not follow from that alone. */
static int check_format(struct opening *o, enum block_format *format)
{
	const enum block_format named = format_of_name(o->how->path);
	char head[FORMAT_HEAD];
	ssize_t n = pread(o->params.fd, head, sizeof(head), 0);
	struct format_found found;

	*format = o->how->format;
	if (n < 0)
		return fail(o, -errno, "cannot be read: %s", strerror(errno));
	if (*format != BLOCK_FORMAT_AUTO)
		return 0;
	found = format_of(head, (size_t)n);
	*format = BLOCK_FORMAT_RAW;
	if (!found.name && named == BLOCK_FORMAT_RAW)
		return 0;
	if (!found.name)
		return fail(o, -EINVAL,
			    "does not begin like a %s image: say format=raw if it is none",
			    format_name(named));
	if (found.format == named && named != BLOCK_FORMAT_RAW) {
		*format = named;
		return 0;
	}
	if (found.remedy)
		return fail(o, -EINVAL,
			    "begins like a %s file: %s, or say format=raw if its guest has written "
			    "that",
			    found.name, found.remedy);
	return fail(o, -EINVAL,
		    "begins like a %s image: say format=%s, or format=raw if its guest has written "
		    "that",
		    found.name, found.name);
}

static int lock(struct opening *o)
{
	char holder[64];
	int ret = o->how->unlocked ? 0 : block_lock(o->params.fd, !o->how->read_only);

	o->params.locked = !o->how->unlocked && !ret;
	if (ret == -EBUSY) {
		block_lock_holder(o->params.fd, holder, sizeof(holder));
		return fail(o, ret, "is in use by %s", holder);
	}
	if (ret)
		note(o, ", not locked (%s)", strerror(-ret));
	return 0;
}

/* ---- past the page cache ----------------------------------------------------------------- */

/* Sectors of 512 bytes to and from memory of that alignment, or why not. */
static bool direct_reads(int fd, uint32_t align)
{
	char *buf;
	ssize_t n;

	if (posix_memalign((void **)&buf, 8192, 8192))
		return false;
	n = pread(fd, buf + align, 512, 0);
	free(buf);
	return n == 512;
}

static void try_direct(struct opening *o)
{
	struct file_params *p = &o->params;
	int flags = fcntl(p->fd, F_GETFL);

	if (flags < 0 || fcntl(p->fd, F_SETFL, flags | O_DIRECT)) {
		note(o, ", page cache (no O_DIRECT on this file system)");
		return;
	}
	p->direct = true;
	p->memory_align = 512;
	if (direct_reads(p->fd, 512))
		return;
	p->memory_align = 4096;
	if (direct_reads(p->fd, 4096))
		return;
	p->direct = false;
	p->memory_align = 1;
	(void)fcntl(p->fd, F_SETFL, flags);
	note(o, ", page cache (O_DIRECT wants larger sectors here)");
}

/* ---- how requests are carried out -------------------------------------------------------- */

static int create_file(struct block **out, struct opening *o)
{
	char reason[64] = "";
	int ret = -ENOSYS;

	o->params.note = o->note;
	if (o->how->aio != BLOCK_AIO_THREADS) {
		ret = file_uring_create(out, &o->params, o->host, reason, sizeof(reason));
		if (!ret)
			return 0;
		if (o->how->aio == BLOCK_AIO_URING)
			return fail(
				o, ret,
				"cannot be used with io_uring here (%s): leave out aio=io_uring",
				reason);
		note(o, " (io_uring: %s)", reason);
	}
	ret = file_threads_create(out, &o->params, o->host, reason, sizeof(reason));
	return ret ? fail(o, ret, "cannot be used: no thread for it: %s", reason) : 0;
}

static int open_file(struct block **out, struct opening *o)
{
	enum block_format format = BLOCK_FORMAT_RAW;
	struct block_open how = *o->how;
	int ret, flags;

	if (fstat(o->params.fd, &o->st))
		return cannot_open(o, -errno);
	/* A descriptor that does not block makes io_uring give up instead of waiting. */
	flags = fcntl(o->params.fd, F_GETFL);
	if (flags < 0 || fcntl(o->params.fd, F_SETFL, flags & ~O_NONBLOCK))
		return cannot_open(o, -errno);
	ret = S_ISREG(o->st.st_mode) || S_ISBLK(o->st.st_mode) ? check_format(o, &format) : 0;
	if (ret)
		return ret;
	if (format != BLOCK_FORMAT_RAW) {
		how.format = format;
		/* The server locks it; who has it is said better here. */
		ret = lock(o);
		if (ret)
			return ret;
		block_unlock(o->params.fd);
		ret = nbd_open_image(out, &how, o->host, o->why, o->why_len);
		if (!ret)
			close(o->params.fd);
		return ret;
	}
	ret = size_of(o);
	if (!ret)
		ret = lock(o);
	if (!ret && o->how->cache == BLOCK_CACHE_NONE)
		try_direct(o);
	return ret ? ret : create_file(out, o);
}

int block_open(struct block **out, const struct block_open *how, const struct backend_host *host,
	       char *why, size_t why_len)
{
	struct opening o = {.how = how, .host = host, .why = why, .why_len = why_len};
	int ret;

	/* The shell's limit on the size of files is an error of a request, not the end. */
	if (signal(SIGXFSZ, SIG_IGN) == SIG_ERR)
		return fail(&o, -errno, "cannot be used: %s", strerror(errno));
	if (nbd_is_address(how->path))
		return nbd_open_address(out, how, host, why, why_len);
	o.params = (struct file_params){.path = how->path,
					.read_only = how->read_only,
					.unsafe = how->cache == BLOCK_CACHE_UNSAFE,
					.memory_align = 1};
	o.params.fd = open_fd(&o, 0);
	if (o.params.fd < 0)
		return cannot_open(&o, o.params.fd);
	ret = open_file(out, &o);
	if (ret)
		close(o.params.fd);
	return ret;
}
