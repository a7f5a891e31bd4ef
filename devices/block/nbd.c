#include "devices/block/nbd.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
bool nbd_is_address(const char *path)
{
	static const char *const schemes[] = {"nbd://", "nbds://", "nbd+unix://", "nbds+unix://"};

	for (unsigned i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++)
		if (!strncmp(path, schemes[i], strlen(schemes[i])))
			return true;
	return false;
}
int nbd_open_address(struct block **out, const struct block_open *how,
		     const struct backend_host *host, char *why, size_t why_len)
{
	(void)out, (void)host;
	snprintf(why, why_len, "%s: not yet", how->path);
	return -ENOTSUP;
}
int nbd_open_image(struct block **out, const struct block_open *how,
		   const struct backend_host *host, char *why, size_t why_len)
{
	(void)out, (void)host;
	snprintf(why, why_len, "%s: not yet", how->path);
	return -ENOTSUP;
}
