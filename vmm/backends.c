#include "vmm/backends.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/block/open.h"
#include "devices/net/open.h"
#include "vmm/unix_socket.h"

_Static_assert((int)DISK_UNSAFE == (int)BLOCK_CACHE_UNSAFE &&
		       (int)DISK_VPC == (int)BLOCK_FORMAT_VPC &&
		       (int)DISK_AIO_THREADS == (int)BLOCK_AIO_THREADS,
	       "the words of --disk are those of devices/block/open.h");

static int open_disk(struct backends *b, const struct disk_config *disk, unsigned queues,
		     struct error *err)
{
	const struct block_open how = {.path = disk->file,
				       .read_only = disk->read_only,
				       .unlocked = b->later,
				       .cache = (enum block_cache)disk->cache,
				       .aio = (enum block_aio)disk->aio,
				       .format = (enum block_format)disk->format};
	char why[400] = "";
	int ret = block_open(&b->block[b->disks], &how, &b->host, why, sizeof(why));

	if (ret)
		return error_set(err, ret, "--disk: %s", why);
	b->disk[b->disks] =
		(struct virtio_blk_config){.block = b->block[b->disks],
					   .serial = disk->serial,
					   .write_cache = disk->cache != DISK_WRITETHROUGH,
					   .queues = queues};
	if (disk->full == DISK_FULL_STOP) {
		b->disk[b->disks].full = b->disk_full;
		b->disk[b->disks].opaque = b->opaque;
	}
	b->disks++;
	return 0;
}

static int open_user(struct backends *b, const struct net_config *config, const char *name,
		     struct net **out, char *why, size_t why_len)
{
	struct net_forward forward[CONFIG_MAX_FORWARDS];
	const struct net_user_config user = {.forward = forward,
					     .forwards = config->forward_count,
					     .restricted = config->restricted,
					     .later = b->later,
					     .hostname = name};

	for (uint32_t i = 0; i < config->forward_count; i++)
		config_parse_forward(config->forward[i], &forward[i], NULL); /* checked when set */
	return net_user_create(out, &user, &b->host, why, why_len);
}

static int open_tap(struct backends *b, const struct net_config *config, unsigned queues,
		    struct net **out, char *why, size_t why_len)
{
	int fds[NET_QUEUES_MAX], ret;
	unsigned count;

	if (b->later) {
		ret = net_tap_look(config->tap, queues, &count, why, why_len);
		if (!ret)
			return net_tap_create(out, NULL, count, config->tap, &b->host, why,
					      why_len);
		if (ret != -ENODEV)
			return ret;
	}
	ret = net_tap_open(config->tap, queues, fds, &count, why, why_len);
	return ret ? ret : net_tap_create(out, fds, count, config->tap, &b->host, why, why_len);
}

static int open_stream(struct backends *b, const struct net_config *config, struct net **out,
		       char *why, size_t why_len)
{
	const char *path = config->stream + strlen("unix:");
	int fd = -1, ret = net_stream_open(path, b->later ? NULL : &fd, why, why_len);

	return ret ? ret : net_stream_create(out, fd, path, &b->host, why, why_len);
}

static int open_net(struct backends *b, const struct net_config *config, const char *name,
		    unsigned queues, struct error *err)
{
	struct net **out = &b->net[b->cards];
	struct virtio_net_config *card = &b->card[b->cards];
	char why[400] = "";
	int ret;

	if (config->none)
		return 0;
	if (config->user)
		ret = open_user(b, config, name, out, why, sizeof(why));
	else if (config->tap)
		ret = open_tap(b, config, queues, out, why, sizeof(why));
	else
		ret = open_stream(b, config, out, why, sizeof(why));
	if (ret)
		return error_set(err, ret, "--net: %s", why);
	card->net = *out;
	if (config->mac)
		config_parse_mac(config->mac, card->mac, NULL);
	else
		net_mac_from_name(name, b->cards, card->mac);
	b->cards++;
	return 0;
}

static int listen_vsock(struct backends *b, struct error *err)
{
	const int fd = unix_listen(b->vsock_dir, b->vsock_name, 64, err);

	b->vsock_listens = fd >= 0;
	return fd < 0 ? error_prefix(err, fd, "--vsock") : fd;
}

static int vsock_listen(void *opaque)
{
	struct error err;

	return listen_vsock(opaque, &err);
}

static void vsock_unlisten(void *opaque)
{
	struct backends *b = opaque;

	if (b->vsock_listens)
		unlinkat(b->vsock_dir, b->vsock_name, 0);
	b->vsock_listens = false;
}

static int open_vsock(struct backends *b, const struct vsock_config *config, struct error *err)
{
	const char *last;
	int fd = -1;

	b->vsock_dir = path_open_dir(config->path, &last, err);
	if (b->vsock_dir < 0)
		return error_prefix(err, b->vsock_dir, "--vsock");
	b->vsock_name = strdup(last);
	if (!b->vsock_name)
		return error_set(err, -ENOMEM, "--vsock: no memory");
	if (!b->later) {
		fd = listen_vsock(b, err);
		if (fd < 0)
			return fd;
	}
	b->vsock = (struct virtio_vsock_config){.cid = config->cid,
						.path = config->path,
						.listen_fd = fd,
						.host = &b->host,
						.listen = vsock_listen,
						.unlisten = vsock_unlisten,
						.opaque = b};
	b->vsocks = 1;
	return 0;
}

int backends_open(struct backends *b, const struct run_config *config, const char *name,
		  struct error *err)
{
	int ret = 0;

	b->vsock_dir = -1;
	for (uint32_t i = 0; i < config->disk_count && !ret; i++)
		ret = open_disk(b, &config->disk[i], config->cpus, err);
	for (uint32_t i = 0; i < config->net_count && !ret; i++)
		ret = open_net(b, &config->net[i], name, config->cpus, err);
	if (!ret && config->vsock_count)
		ret = open_vsock(b, &config->vsock[0], err);
	return ret;
}

void backends_close(struct backends *b)
{
	for (unsigned i = 0; i < CONFIG_MAX_DISKS; i++) {
		if (b->block[i])
			b->block[i]->ops->destroy(b->block[i]);
	}
	for (unsigned i = 0; i < CONFIG_MAX_NETS; i++) {
		if (b->net[i])
			b->net[i]->ops->destroy(b->net[i]);
	}
	vsock_unlisten(b);
	if (b->vsock_dir >= 0)
		close(b->vsock_dir);
	free(b->vsock_name);
}
