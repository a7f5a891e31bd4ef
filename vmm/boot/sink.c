#include "vmm/boot/sink.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SINK_FIRST (64ul << 20) /* costs address space only: pages come when they are written */
#define SINK_MAX   (8ul << 30)

/* fd: the sink's from here on. */
static int open_on(struct sink *s, int fd, int flags, struct error *err)
{
	int saved;

	*s = (struct sink){.fd = fd, .cap = SINK_FIRST};
	s->map = mmap(NULL, s->cap, PROT_READ | PROT_WRITE, flags | MAP_NORESERVE, fd, 0);
	if (s->map != MAP_FAILED)
		return 0;
	saved = errno;
	s->map = NULL;
	sink_close(s);
	return error_set(err, -saved, "boot image: no memory: %s", strerror(saved));
}

int sink_open_memfd(struct sink *s, struct error *err)
{
	int fd = memfd_create("ferry-boot", MFD_CLOEXEC | MFD_ALLOW_SEALING), ret;

	*s = (struct sink)SINK_CLOSED;
	if (fd < 0)
		return error_set(err, -errno, "boot image: memfd_create: %m");
	if (ftruncate(fd, SINK_FIRST)) {
		ret = error_set(err, -errno, "boot image: no memory: %m");
		close(fd);
		return ret;
	}
	return open_on(s, fd, MAP_SHARED, err);
}

int sink_open_memory(struct sink *s, struct error *err)
{
	int ret = open_on(s, -1, MAP_PRIVATE | MAP_ANONYMOUS, err);

	if (!ret)
		(void)madvise(s->map, s->cap, MADV_HUGEPAGE);
	return ret;
}

int sink_reserve(struct sink *s, size_t n, struct error *err)
{
	size_t need, cap = s->cap;
	void *map;

	if (__builtin_add_overflow(s->len, n, &need) || need > SINK_MAX)
		return error_set(err, -EFBIG, "boot image: more than %lu GiB", SINK_MAX >> 30);
	if (need <= cap)
		return 0;
	while (cap < need)
		cap *= 2;
	if (s->fd >= 0 && ftruncate(s->fd, (off_t)cap))
		return error_set(err, -errno, "boot image: no memory: %m");
	map = mremap(s->map, s->cap, cap, MREMAP_MAYMOVE);
	if (map == MAP_FAILED)
		return error_set(err, -errno, "boot image: no memory: %m");
	s->map = map;
	s->cap = cap;
	return 0;
}

int sink_put(struct sink *s, const void *data, size_t n, struct error *err)
{
	int ret = sink_reserve(s, n, err);

	if (ret)
		return ret;
	if (n)
		memcpy(s->map + s->len, data, n);
	s->len += n;
	return 0;
}

int sink_align(struct sink *s, size_t align, struct error *err)
{
	size_t pad = -s->len & (align - 1);
	int ret = sink_reserve(s, pad, err);

	if (ret)
		return ret;
	memset(s->map + s->len, 0, pad);
	s->len += pad;
	return 0;
}

/* read() and not mmap(): a file that somebody truncates meanwhile is a short read, not a SIGBUS. */
static int read_all(struct sink *s, int fd, size_t hint, const char *path, const char *what,
		    size_t max, struct error *err)
{
	size_t start = s->len, room, chunk;
	ssize_t n;
	int ret;

	for (;;) {
		room = max - (s->len - start);
		chunk = hint > s->len - start ? hint - (s->len - start) : 1u << 20;
		if (chunk > room)
			chunk = room + 1; /* one more: tells "too large" from "just fits" */
		if (chunk > 1u << 30)
			chunk = 1u << 30;
		ret = sink_reserve(s, chunk, err);
		if (ret)
			return ret;
		n = read(fd, s->map + s->len, chunk);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_set(err, -errno, "%s %s: %m", what, path);
		if (n == 0)
			break;
		if ((size_t)n > room)
			return error_set(err, -EFBIG, "%s %s is larger than %zu MiB", what, path,
					 max >> 20);
		s->len += (size_t)n;
	}
	if (s->len == start)
		return error_set(err, -EBADMSG, "%s %s is empty", what, path);
	return 0;
}

int sink_read_file(struct sink *s, const char *path, const char *what, size_t max,
		   struct error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	size_t hint = 0;
	int ret;

	if (fd < 0)
		return error_set(err, -errno, "%s %s: %m", what, path);
	if (fstat(fd, &st)) {
		ret = error_set(err, -errno, "%s %s: %m", what, path);
	} else if (S_ISDIR(st.st_mode)) {
		ret = error_set(err, -EISDIR, "%s %s is a directory", what, path);
	} else {
		if (S_ISREG(st.st_mode) && st.st_size > 0)
			hint = (size_t)st.st_size;
		ret = read_all(s, fd, hint, path, what, max, err);
	}
	close(fd);
	return ret;
}

int sink_seal(struct sink *s, int *fd, const uint8_t **map, size_t *len, struct error *err)
{
	const int seals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	void *ro;

	munmap(s->map, s->cap); /* F_SEAL_WRITE refuses while a writable mapping is there */
	s->map = NULL;
	s->cap = 0;
	if (ftruncate(s->fd, (off_t)s->len) || fcntl(s->fd, F_ADD_SEALS, seals))
		return error_set(err, -errno, "boot image: cannot seal: %m");
	ro = mmap(NULL, s->len, PROT_READ, MAP_SHARED, s->fd, 0);
	if (ro == MAP_FAILED)
		return error_set(err, -errno, "boot image: cannot map: %m");
	*fd = s->fd;
	*map = ro;
	*len = s->len;
	*s = (struct sink)SINK_CLOSED;
	return 0;
}

void sink_release(const struct sink *s, const uint8_t *data, size_t n)
{
	const uintptr_t start = (uintptr_t)data;

	if (s->fd < 0 && s->map && data >= s->map && n <= s->cap &&
	    (size_t)(data - s->map) <= s->cap - n && !(start % SINK_PAGE) && !(n % SINK_PAGE))
		(void)madvise(s->map + (data - s->map), n, MADV_DONTNEED);
}

void sink_pass(const struct sink *s)
{
	const uintptr_t first = (uintptr_t)s->map + 2 * SINK_PAGE - 1;
	const uintptr_t from = first - first % SINK_PAGE, end = (uintptr_t)s->map + s->len;
	const uintptr_t to = end - end % SINK_PAGE;

	if (s->passing && from < to)
		sink_release(s, s->map + (from - (uintptr_t)s->map), to - from);
}

void sink_close(struct sink *s)
{
	if (s->map)
		munmap(s->map, s->cap);
	if (s->fd >= 0)
		close(s->fd);
	*s = (struct sink)SINK_CLOSED;
}
