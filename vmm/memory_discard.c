/* Guest memory that goes back to the host. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "vmm/memory.h"
#include "vmm/memory_missing.h"

enum { PAGE = 4096, WORTH = 16 /* pages: fewer would cost more than they are worth */ };
#define FOUR_GIB (4ull << 30)

/* Where [gpa, gpa + len) lies, if all of it is RAM. */
static bool ram(const struct guest_memory *mem, uint64_t gpa, uint64_t len, uint64_t *hpa)
{
	const uint64_t high = mem->size - mem->low;

	if (gpa < mem->low && len <= mem->low - gpa) {
		*hpa = gpa;
		return true;
	}
	*hpa = gpa - FOUR_GIB + mem->low;
	return gpa >= FOUR_GIB && gpa - FOUR_GIB < high && len <= high - (gpa - FOUR_GIB);
}

int memory_punch(struct guest_memory *mem, uint64_t hpa, uint64_t len)
{
	int ret = mem->fd >= 0 ? fallocate(mem->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					   (off_t)hpa, (off_t)len)
			       : madvise(mem->host + hpa, len, MADV_DONTNEED);

	return ret ? -errno : 0;
}

bool memory_worth_giving(const struct guest_memory *mem, uint64_t len)
{
	return !mem->hugepages && len >= WORTH * PAGE;
}

void memory_clear(struct guest_memory *mem, uint64_t page, uint64_t count)
{
	uint8_t *host = memory_page(mem, page);

	if (!memory_worth_giving(mem, count * PAGE) ||
	    memory_punch(mem, (uint64_t)(host - mem->host), count * PAGE))
		memset(host, 0, count * PAGE);
}

/* Of a range that is RAM; *hpa: where it lies. */
static int punch(struct guest_memory *mem, const struct s2_range *range, uint64_t *hpa)
{
	const uint64_t len = range->end - range->start;

	(void)ram(mem, range->start, len, hpa);
	return memory_punch(mem, *hpa, len);
}

/* Unmapped already. A vCPU may bring it back meanwhile: what it writes then is lost or stays, as on
 * a real machine when memory is taken away that is in use. */
static int give_back(struct guest_memory *mem, const struct s2_range *range)
{
	const uint64_t len = range->end - range->start;
	uint64_t hpa;
	int ret = punch(mem, range, &hpa);

	if (ret)
		return ret;
	if (mem->written)
		mem->written(mem->written_opaque, hpa, len);
	s2_dirty_mark(mem->vmm, range->start, len);
	return 0;
}

/* What has not come yet need not come any more: it is zero, and here. First what lies there, of an
 * older round: nobody else writes there before the page has come. */
static int forget(struct guest_memory *mem, const struct s2_range *range)
{
	uint64_t hpa;
	int64_t n;
	int ret = punch(mem, range, &hpa);

	if (ret)
		return ret;
	n = memory_bring_untouched(mem, mem->vmm, range->start, range->end - range->start);
	return n < 0 ? (int)n : 0;
}

int memory_discard(struct guest_memory *mem, const struct gpa_range *range, unsigned count)
{
	struct s2_range pages[MEMORY_DISCARD_MAX], unmap[MEMORY_DISCARD_MAX];
	unsigned n = 0;
	int ret = 0;

	if (count > MEMORY_DISCARD_MAX)
		return -EINVAL;
	for (unsigned i = 0; i < count; i++) {
		uint64_t hpa, start = (range[i].gpa + PAGE - 1) & ~(uint64_t)(PAGE - 1);
		uint64_t end = (range[i].gpa + range[i].len) & ~(uint64_t)(PAGE - 1);

		if (!ram(mem, range[i].gpa, range[i].len, &hpa))
			return -EFAULT;
		if (start < end)
			pages[n++] = (struct s2_range){start, end};
	}
	if (mem->hugepages || !n)
		return 0;
	for (unsigned i = 0; !ret && mem->incomplete && i < n; i++)
		ret = forget(mem, &pages[i]);
	if (ret)
		return ret;
	memcpy(unmap, pages, n * sizeof(*pages));
	ret = s2_unmap_ranges(mem->vmm, unmap, n);
	for (unsigned i = 0; !ret && i < n; i++)
		ret = give_back(mem, &pages[i]);
	return ret;
}
