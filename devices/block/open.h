/*
 * Opens disks: finds out what a path is, checks it, locks it against other users, and chooses how
 * its requests are carried out. Whatever can go wrong goes wrong here, with a text, before a guest
 * runs.
 *
 * Locks are those of QEMU (open file description locks on bytes 100.. and 200.. of the file): a
 * QEMU that runs on an image and a ferry that does refuse each other.
 */
#ifndef DEVICES_BLOCK_OPEN_H
#define DEVICES_BLOCK_OPEN_H

#include "devices/block/block.h"

enum block_cache {
	/* Through the host's page cache; on stable storage when the guest flushes. */
	BLOCK_CACHE_WRITEBACK,
	/* The same, and the device model flushes behind each write (write_cache = false). */
	BLOCK_CACHE_WRITETHROUGH,
	/* Past the page cache (O_DIRECT), where the file system allows it. */
	BLOCK_CACHE_NONE,
	/* As writeback, and flushes do nothing: for what may be lost with the host. */
	BLOCK_CACHE_UNSAFE,
};
enum block_aio { BLOCK_AIO_AUTO, BLOCK_AIO_URING, BLOCK_AIO_THREADS };
enum block_format {
	/* By the name's end, if the contents agree; else raw, if they look like nothing else. */
	BLOCK_FORMAT_AUTO,
	BLOCK_FORMAT_RAW,
	/* Served by a qemu-nbd of our own. */
	BLOCK_FORMAT_QCOW2,
	BLOCK_FORMAT_VMDK,
	BLOCK_FORMAT_VDI,
	BLOCK_FORMAT_VHDX,
	BLOCK_FORMAT_VPC,
};
struct block_open {
	/* A regular file, a block device, or an NBD server: nbd://HOST[:PORT][/EXPORT],
	 * nbd+unix:///[EXPORT]?socket=PATH. */
	const char *path;
	bool read_only;
	/* Without a lock: ops->acquire takes it before the guest runs (a machine that comes from
	 * elsewhere, where it may be used until then). An image is looked at for its size only. */
	bool unlocked;
	enum block_cache cache;
	enum block_aio aio;
	enum block_format format;
};

/* 0 or -errno with a text that names the path and the remedy; ops->destroy frees *out. The main
 * thread's (a helper process lives as long as it). May block: for the host's disk, and up to ten
 * seconds for a server. */
int block_open(struct block **out, const struct block_open *how, const struct backend_host *host,
	       char *why, size_t why_len);

#endif
