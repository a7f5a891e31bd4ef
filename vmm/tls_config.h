/*
 * How connections of a migration are protected, as users say it: --tls-certs, --tls-psk, --tls-name
 * of `migrate` and `receive`.
 */
#ifndef VMM_TLS_CONFIG_H
#define VMM_TLS_CONFIG_H

#include "migration/tls.h"
#include "vmm/config.h"
#include "vmm/error.h"

struct tls_config {
	char *certs, *psk, *name;
};

/* The fields of a verb's table; `field` makes one of name, type, member. */
#define TLS_CONFIG_FIELDS(field)                                                                   \
	field("tls-certs", CONFIG_STRING, tls.certs,                                               \
	      .help = "TLS with certificates: a folder with ca-cert.pem, and client-cert.pem and " \
		      "client-key.pem (migrate) or server-cert.pem and server-key.pem (receive)"), \
		field("tls-psk", CONFIG_STRING, tls.psk,                                           \
		      .help = "TLS with a key that both sides have: a file of NAME:HEXKEY, as "    \
			      "psktool makes it"),                                                 \
		field("tls-name", CONFIG_STRING, tls.name,                                         \
		      .help = "the name that the other side's certificate must have")

static inline bool tls_config_given(const struct tls_config *config)
{
	return config->certs || config->psk;
}

/* *out: NULL if nothing is given. address: where a client goes to: without a name of its own the
 * certificate must be that of the host there. -EINVAL, or as tls_load(), with a text. */
int tls_config_load(const struct tls_config *config, enum tls_side side, const char *address,
		    struct tls **out, struct error *err);

#endif
