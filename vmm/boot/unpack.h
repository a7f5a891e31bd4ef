/*
 * Unpacking what kernels are packed with. Input is hostile: damaged and endless streams end with an
 * error, and no more than `limit` bytes come out.
 */
#ifndef VMM_BOOT_UNPACK_H
#define VMM_BOOT_UNPACK_H

#include "vmm/boot/bytes.h"
#include "vmm/boot/sink.h"

/* More than any kernel needs; a bomb ends here. */
#define UNPACK_LIMIT (1ul << 30)

/* The packer by its magic number ("gzip", "xz", "lzma", "zstd", "lz4", "bzip2", "lzo"), or NULL. */
const char *unpack_name(struct blob in);

/* Appends the unpacked bytes to out. Data behind the end of the stream is ignored. 0, -ENOTSUP
 * (packer known, but not handled here: bzip2, lzo), -EINVAL (unknown), -EBADMSG (damaged or
 * truncated), -EFBIG (more than limit), -ENOMEM. */
int unpack(struct blob in, struct sink *out, size_t limit, struct error *err);

#endif
