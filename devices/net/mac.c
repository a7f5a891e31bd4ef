#include "devices/net/net.h"

/* FNV-1a, and a last stir so that neighbouring names and cards lie far apart. */
void net_mac_from_name(const char *name, unsigned index, uint8_t mac[6])
{
	uint64_t hash = 0xcbf29ce484222325;

	for (; *name; name++)
		hash = (hash ^ (uint8_t)*name) * 0x100000001b3;
	hash = (hash ^ index) * 0x100000001b3;
	hash ^= hash >> 32;
	hash *= 0xd6e8feb86659fd93;
	hash ^= hash >> 32;
	/* 52:54:00 is what virtual machines have: locally administered. */
	mac[0] = 0x52;
	mac[1] = 0x54;
	mac[2] = 0x00;
	for (unsigned i = 3; i < 6; i++, hash >>= 8)
		mac[i] = (uint8_t)hash;
}
