/* What a disk image's first bytes say that it is. */
#ifndef DEVICES_BLOCK_FORMAT_H
#define DEVICES_BLOCK_FORMAT_H

#include <stddef.h>

#include "devices/block/open.h"

enum { FORMAT_HEAD = 4096 };

struct format_found {
	enum block_format format; /* RAW: nothing is known to begin so, or it has no number */
	const char *name;	  /* "qcow2"; NULL: nothing known */
	const char *remedy;	  /* of what is no disk format: "unpack it first"; else NULL */
};
struct format_found format_of(const void *head, size_t len);
/* By the end of the name, case ignored; RAW: none of them. */
enum block_format format_of_name(const char *path);
/* As qemu-nbd calls it. */
const char *format_name(enum block_format format);

#endif
