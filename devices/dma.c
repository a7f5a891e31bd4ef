#include "devices/device.h"

#include <errno.h>
#include <string.h>

int dma_read(const struct dma_ops *dma, uint64_t gpa, void *buf, size_t len)
{
	uint8_t *to = buf;

	if (len > UINT64_MAX - gpa)
		return -EFAULT;
	while (len) {
		size_t n = len;
		void *from;
		int ret = dma->map(dma->opaque, gpa, &n, false, &from);

		if (ret)
			return ret;
		memcpy(to, from, n);
		to += n;
		gpa += n;
		len -= n;
	}
	return 0;
}

int dma_write(const struct dma_ops *dma, uint64_t gpa, const void *buf, size_t len)
{
	const uint8_t *from = buf;

	if (len > UINT64_MAX - gpa)
		return -EFAULT;
	while (len) {
		size_t n = len;
		void *to;
		int ret = dma->map(dma->opaque, gpa, &n, true, &to);

		if (ret)
			return ret;
		memcpy(to, from, n);
		dma->written(dma->opaque, gpa, n);
		from += n;
		gpa += n;
		len -= n;
	}
	return 0;
}
