/* virtio 1.2 over PCI as little as it takes: polled, a descriptor belongs to a request for ever. */
#ifndef MOVE_VIRTIO_H
#define MOVE_VIRTIO_H

#include "move.h"

enum { VQ_MAX = 64, DESC_NEXT = 1, DESC_WRITE = 2 };

struct vq_desc {
	u64 addr;
	u32 len;
	u16 flags, next;
};
/* 2.7; in one page. */
struct vq_rings {
	struct vq_desc desc[VQ_MAX];
	struct {
		u16 flags, idx, ring[VQ_MAX];
	} avail;
	struct {
		u16 flags, idx;
		struct {
			u32 id, len;
		} ring[VQ_MAX];
	} used __attribute__((aligned(4)));
} __attribute__((aligned(4096)));

struct vq {
	volatile struct vq_rings *rings;
	volatile u32 *notify;
	u32 size;
	u16 number, added, seen;
};

struct vdev {
	volatile u8 *common, *device, *notify;
	u32 multiplier;
};

/* False: there is none in that slot. Without features, and not running yet. */
bool virtio_find(struct vdev *v, u32 slot);
void virtio_queue(struct vdev *v, struct vq *q, u16 number, volatile struct vq_rings *rings);
void virtio_run(struct vdev *v);

void vq_describe(struct vq *q, u32 n, const volatile void *data, u32 len, u16 flags);
/* The request that begins with descriptor `head`. */
void vq_add(struct vq *q, u32 head);
void vq_kick(struct vq *q);
/* Which request has been answered, with its length; false: none yet. */
bool vq_done(struct vq *q, u32 *head, u32 *len);
/* Until one has been answered. */
u32 vq_wait(struct vq *q, u32 *len, const char *whose);

#endif
