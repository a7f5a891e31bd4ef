#include "devices/block/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "devices/block/lock.h"

/* IOV_MAX of the kernel. */
enum { IOVS_MAX = 1024, TRIES_MAX = 100 };
enum phase { PHASE_PLAIN, PHASE_BOUNCE, PHASE_WRITE_ZEROES };

/* ---- the iovec of a request -------------------------------------------------------------- */

static bool is_aligned(const struct block_request *r, uint32_t align)
{
	for (unsigned i = 0; i < r->iovs; i++)
		if (((uintptr_t)r->iov[i].iov_base | r->iov[i].iov_len) & (align - 1))
			return false;
	return true;
}

/* ---- steps ------------------------------------------------------------------------------- */

static void next_transfer(struct file *f, struct block_request *r, struct file_step *step)
{
	const uint64_t rest = r->bytes - r->done_bytes;

	*step = (struct file_step){.op = !rest		       ? FILE_NOTHING
					 : r->op == BLOCK_READ ? FILE_READ
							       : FILE_WRITE,
				   .iov = r->iov,
				   .iovs = r->iovs < IOVS_MAX ? r->iovs : IOVS_MAX,
				   .offset = r->offset + r->done_bytes,
				   .len = rest};
	if (r->phase == PHASE_PLAIN && (!f->direct || is_aligned(r, f->block.memory_align)))
		return;
	r->phase = PHASE_BOUNCE;
	step->iov = NULL;
	step->len = block_smaller(rest, BLOCK_PIECE);
	if (!r->bounce && posix_memalign(&r->bounce, 4096, step->len)) {
		r->bounce = NULL;
		*step = (struct file_step){.op = FILE_FAIL, .error = -ENOMEM};
		return;
	}
	step->buf = r->bounce;
	if (r->op == BLOCK_WRITE)
		block_iov_copy(r, r->bounce, step->len, true);
}

/* BLKDISCARD and its like, which io_uring does not have, are fallocate for block devices too. */
static void next_hole(struct file *f, struct block_request *r, struct file_step *step)
{
	*step = (struct file_step){.op = FILE_ALLOCATE,
				   .mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				   .offset = r->offset,
				   .len = r->bytes};
	if (!r->bytes || atomic_load(&f->no_punch))
		step->op = FILE_NOTHING;
}

static void next_zeroes(struct file *f, struct block_request *r, struct file_step *step)
{
	const uint64_t rest = r->bytes - r->done_bytes;
	bool hole = r->may_unmap && !atomic_load(&f->no_punch);

	if (!rest || (r->phase == PHASE_PLAIN && hole)) {
		next_hole(f, r, step);
	} else if (r->phase == PHASE_PLAIN && !atomic_load(&f->no_zero_range)) {
		next_hole(f, r, step);
		step->op = FILE_ALLOCATE;
		step->mode = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
	} else {
		r->phase = PHASE_WRITE_ZEROES;
		*step = (struct file_step){.op = FILE_WRITE,
					   .buf = block_zeroes,
					   .offset = r->offset + r->done_bytes,
					   .len = block_smaller(rest, BLOCK_PIECE)};
	}
}

void file_next(struct file *f, struct block_request *r, struct file_step *step)
{
	switch (r->op) {
	case BLOCK_READ:
	case BLOCK_WRITE: next_transfer(f, r, step); return;
	case BLOCK_DISCARD: next_hole(f, r, step); return;
	case BLOCK_ZEROES: next_zeroes(f, r, step); return;
	case BLOCK_FLUSH:
		*step = (struct file_step){.op = f->unsafe ? FILE_NOTHING : FILE_SYNC};
		return;
	}
	*step = (struct file_step){.op = FILE_FAIL, .error = -EINVAL};
}

static bool finish(struct block_request *r, int result)
{
	free(r->bounce);
	r->bounce = NULL;
	r->result = result;
	return true;
}

static bool transferred(struct block_request *r, size_t len)
{
	if (r->phase == PHASE_BOUNCE && r->op == BLOCK_READ)
		block_iov_copy(r, r->bounce, len, false);
	if (r->phase != PHASE_WRITE_ZEROES)
		block_iov_advance(r, len);
	r->done_bytes += len;
	return r->done_bytes >= r->bytes && finish(r, 0);
}

bool file_stepped(struct file *f, struct block_request *r, int64_t ret)
{
	const bool transfer = r->op == BLOCK_READ || r->op == BLOCK_WRITE ||
			      (r->op == BLOCK_ZEROES && r->phase == PHASE_WRITE_ZEROES);

	if ((ret == -EAGAIN || ret == -EINTR) && r->tries < TRIES_MAX) {
		r->tries++;
		return false;
	}
	if (transfer && ret > 0)
		return transferred(r, (size_t)ret);
	if (transfer && ret == 0 && r->done_bytes < r->bytes)
		return finish(r, r->op == BLOCK_READ ? -ENODATA : -EIO);
	if (!transfer && (ret == -EOPNOTSUPP || ret == -ENOSYS || ret == -ENOTTY) &&
	    (r->op == BLOCK_DISCARD || r->op == BLOCK_ZEROES)) {
		bool hole = r->op == BLOCK_DISCARD || (r->may_unmap && !atomic_load(&f->no_punch));

		atomic_store(hole ? &f->no_punch : &f->no_zero_range, true);
		/* To discard is a hint; of zeroes the next way is tried. */
		return r->op == BLOCK_DISCARD && finish(r, 0);
	}
	return finish(r, ret < 0 ? (int)ret : 0);
}

/* ---- life -------------------------------------------------------------------------------- */

/* File systems that only this host can have: their page cache is the truth. */
static bool is_remote(int fd)
{
	static const uint32_t local[] = {0xef53 /* ext4 */,	 0x58465342 /* XFS */,
					 0x9123683e /* btrfs */, 0xf2f52010 /* F2FS */,
					 0x01021994 /* tmpfs */, 0x794c7630 /* overlayfs */};
	struct statfs fs;
	struct stat st;

	if (fstat(fd, &st) || fstatfs(fd, &fs) || !S_ISREG(st.st_mode))
		return true;
	for (unsigned i = 0; i < sizeof(local) / sizeof(local[0]); i++)
		if ((uint32_t)fs.f_type == local[i])
			return false;
	return true;
}

int file_size(int fd, uint64_t *size)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (S_ISREG(st.st_mode))
		*size = (uint64_t)st.st_size;
	else if (!S_ISBLK(st.st_mode))
		return -EINVAL;
	else if (ioctl(fd, BLKGETSIZE64, size))
		return -errno;
	return 0;
}

/* The guest may go on at another host: what it has written and not flushed must be there, too. */
int file_release(struct block *b)
{
	struct file *f = (struct file *)b;

	if (f->remote && !b->read_only && !f->unsafe && fdatasync(f->fd))
		return -errno;
	if (f->locked)
		block_unlock(f->fd);
	f->locked = false;
	return 0;
}

int file_acquire(struct block *b)
{
	struct file *f = (struct file *)b;
	uint64_t size = 0;
	int ret = f->locked ? 0 : block_lock(f->fd, !b->read_only);

	if (ret == -EBUSY)
		return ret;
	/* Where there are no locks, there are none. */
	f->locked = f->locked || !ret;
	ret = file_size(f->fd, &size);
	if (!ret && size != b->size) {
		dev_log(b->path, "it has %llu bytes now, not %llu as before",
			(unsigned long long)size, (unsigned long long)b->size);
		ret = -EINVAL;
	}
	if (ret) {
		(void)file_release(b);
		return ret;
	}
	/* What this host knows of it may be old. */
	if (f->remote)
		(void)posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED);
	return 0;
}

int file_init(struct file *f, const struct file_params *params, const struct block_ops *ops,
	      const char *mechanism)
{
	f->block = (struct block){.ops = ops,
				  .size = params->size,
				  .block_size = params->block_size,
				  .memory_align = params->memory_align,
				  .read_only = params->read_only,
				  .can_discard = !params->read_only,
				  .can_zero = !params->read_only,
				  .path = strdup(params->path)};
	if (!f->block.path)
		return -ENOMEM;
	snprintf(f->block.mechanism, sizeof(f->block.mechanism), "%s%s%s", mechanism,
		 params->direct ? ", O_DIRECT" : "", params->note);
	f->fd = params->fd;
	f->direct = params->direct;
	f->unsafe = params->unsafe;
	f->locked = params->locked;
	f->remote = is_remote(f->fd);
	return 0;
}

void file_exit(struct file *f)
{
	close(f->fd);
	free(f->block.path);
}
