/* The words of --net that are more than one value. */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices/net/net.h"
#include "vmm/config.h"

/* Six pairs of hexadecimal digits with colons between them. */
static bool parse_mac(const char *text, uint8_t mac[6])
{
	static const char digits[] = "0123456789abcdef";

	for (unsigned i = 0; i < 12; i++, text++) {
		const char *digit = *text ? strchr(digits, tolower((unsigned char)*text)) : NULL;

		if (!digit)
			return false;
		mac[i / 2] = (uint8_t)(mac[i / 2] << 4 | (digit - digits));
		if (i % 2 && i < 11 && *++text != ':')
			return false;
	}
	return !*text;
}

int config_parse_mac(const char *text, uint8_t mac[6], struct error *err)
{
	memset(mac, 0, 6);
	if (!parse_mac(text, mac))
		return error_set(err, -EINVAL, "it is no address like 52:54:00:12:34:56");
	if (mac[0] & 1)
		return error_set(err, -EINVAL,
				 "a card's own address has an even first byte (not %02x)", mac[0]);
	return 0;
}

static bool parse_port(const char *text, size_t len, bool zero, uint16_t *port)
{
	char digits[8], *end;
	unsigned long value;

	if (!len || len > 5 || strspn(text, "0123456789") < len)
		return false;
	snprintf(digits, sizeof(digits), "%.*s", (int)len, text);
	value = strtoul(digits, &end, 10);
	*port = (uint16_t)value;
	return value <= 65535 && (value || zero);
}

/* "ADDRESS:PORT", "[ADDRESS]:PORT", ":PORT" of `len` bytes. */
static bool parse_end(const char *text, size_t len, bool zero, char *address, size_t size,
		      uint16_t *port)
{
	const char *colon = memrchr(text, ':', len);
	struct in6_addr binary;
	size_t n;

	if (!colon || !parse_port(colon + 1, len - (size_t)(colon + 1 - text), zero, port))
		return false;
	n = (size_t)(colon - text);
	if (n >= 2 && *text == '[' && text[n - 1] == ']') {
		text++;
		n -= 2;
	}
	if (n >= size)
		return false;
	memcpy(address, text, n);
	address[n] = 0;
	return !n || inet_pton(strchr(address, ':') ? AF_INET6 : AF_INET, address, &binary) == 1;
}

int config_parse_forward(const char *text, struct net_forward *forward, struct error *err)
{
	const char *at = strchr(text, ':'), *dash;

	memset(forward, 0, sizeof(*forward));
	if (at && !strncmp(text, "udp", (size_t)(at - text)) && at - text == 3)
		forward->udp = true;
	else if (at && at != text && strncmp(text, "tcp", 3) != 0)
		at = NULL;
	dash = at ? strchr(at, '-') : NULL;
	if (dash &&
	    parse_end(at + 1, (size_t)(dash - at - 1), true, forward->host, sizeof(forward->host),
		      &forward->host_port) &&
	    parse_end(dash + 1, strlen(dash + 1), false, forward->guest, sizeof(forward->guest),
		      &forward->guest_port))
		return 0;
	return error_set(err, -EINVAL,
			 "it is not like tcp:127.0.0.1:2222-:22 (protocol:[host address]:port-"
			 "[guest address]:port, IPv6 addresses in brackets)");
}
