#include "devices/net/open.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "devices/net/net.h"

/* ---- tap ---- */

static int attach(const char *name, short extra, int *fd)
{
	struct ifreq ifr = {.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | extra)};
	int ret;

	*fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (*fd < 0)
		return -errno;
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	if (!ioctl(*fd, TUNSETIFF, &ifr))
		return 0;
	ret = -errno;
	close(*fd);
	return ret;
}

static int set_header(int fd)
{
	int size = NET_HEADER, little = 1;

	/* Old kernels for hosts of that order know the second as the only one. */
	(void)ioctl(fd, TUNSETVNETLE, &little);
	return ioctl(fd, TUNSETVNETHDRSZ, &size) ? -errno : 0;
}

static void explain_tap(const char *name, int ret, char *why, size_t len)
{
	switch (-ret) {
	case ENOENT:
	case ENODEV:
	case ENXIO:
		snprintf(why, len, "tap=%s: this host has no /dev/net/tun (modprobe tun)", name);
		break;
	case EACCES:
		snprintf(why, len,
			 "tap=%s: /dev/net/tun may not be opened: chmod 666 is its usual mode",
			 name);
		break;
	case EBUSY:
		snprintf(why, len, "tap=%s: another program has it; make another one", name);
		break;
	case EPERM:
		snprintf(why, len,
			 "tap=%s: there is none that is yours; once, as root: ip tuntap add mode "
			 "tap "
			 "user $USER multi_queue name %s && ip link set %s up",
			 name, name, name);
		break;
	case EINVAL:
		snprintf(why, len, "tap=%s: it is no tap device (or a tun device)", name);
		break;
	default: snprintf(why, len, "tap=%s: %s", name, strerror(-ret)); break;
	}
}

int net_tap_open(const char *name, unsigned want, int *fds, unsigned *count, char *why,
		 size_t why_len)
{
	int ret = -EINVAL;

	*count = 0;
	if (!*name || strlen(name) >= IFNAMSIZ) {
		snprintf(why, why_len, "tap=%s: a name has 1 to %d characters", name, IFNAMSIZ - 1);
		return -EINVAL;
	}
	/* The kernel wants to be told of several queues as the device was made, so both are tried;
	 * one queue of a device for many is fine too. */
	if (want > 1)
		ret = attach(name, IFF_MULTI_QUEUE, &fds[0]);
	if (ret) {
		ret = attach(name, 0, &fds[0]);
		if (ret == -EINVAL)
			ret = attach(name, IFF_MULTI_QUEUE, &fds[0]);
		want = 1;
	}
	while (!ret) {
		ret = set_header(fds[*count]);
		if (++*count == want || ret)
			break;
		ret = attach(name, IFF_MULTI_QUEUE, &fds[*count]);
	}
	if (!ret)
		return 0;
	explain_tap(name, ret, why, why_len);
	while (*count)
		close(fds[--*count]);
	return ret;
}

/* By what its driver says, which anybody may ask. */
static bool is_tap(const char *name)
{
	struct ethtool_drvinfo info = {.cmd = ETHTOOL_GDRVINFO};
	struct ifreq ifr = {.ifr_data = (char *)&info};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool found;

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	found = fd >= 0 && !ioctl(fd, SIOCETHTOOL, &ifr) && !strcmp(info.driver, "tun") &&
		!strcmp(info.bus_info, "tap");
	if (fd >= 0)
		close(fd);
	return found;
}

int net_tap_look(const char *name, unsigned want, unsigned *count, char *why, size_t why_len)
{
	int fd, ret;

	*count = 1;
	if (!*name || strlen(name) >= IFNAMSIZ || !if_nametoindex(name))
		return -ENODEV;
	if (!is_tap(name)) {
		explain_tap(name, -EINVAL, why, why_len);
		return -EINVAL;
	}
	/* One for a single queue is free or in use; one for several wants to be told so. */
	ret = attach(name, 0, &fd);
	if (!ret)
		close(fd);
	if (!ret || ret == -EBUSY)
		return 0;
	if (ret == -EINVAL) {
		*count = want;
		return 0;
	}
	explain_tap(name, ret, why, why_len);
	return ret;
}

/* ---- stream ---- */

static int look_for_socket(const char *path)
{
	struct stat st;

	if (stat(path, &st))
		return -errno;
	return S_ISSOCK(st.st_mode) ? 0 : -ENOTSOCK;
}

int net_stream_open(const char *path, int *fd, char *why, size_t why_len)
{
	int ret = fd ? net_stream_connect(path, fd) : look_for_socket(path);

	switch (-ret) {
	case 0: break;
	case ENOENT:
	case ECONNREFUSED:
		snprintf(why, why_len,
			 "stream=unix:%s: nobody listens there; start the other side first, for "
			 "example: passt --socket %s",
			 path, path);
		break;
	case ENAMETOOLONG:
		snprintf(why, why_len, "stream=unix:%s: too long for a socket's path (at most %zu)",
			 path, sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
		break;
	default: snprintf(why, why_len, "stream=unix:%s: %s", path, strerror(-ret)); break;
	}
	return ret;
}

int net_stream_connect(const char *path, int *fd)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int ret;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, strlen(path));
	*fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (*fd < 0)
		return -errno;
	if (!connect(*fd, (struct sockaddr *)&address, sizeof(address)))
		return 0;
	ret = -errno;
	close(*fd);
	return ret;
}
