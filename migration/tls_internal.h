/* What the files of TLS share. */
#ifndef MIGRATION_TLS_INTERNAL_H
#define MIGRATION_TLS_INTERNAL_H

#include <gnutls/gnutls.h>

#include "migration/tls.h"

enum { TLS_KEYS_MAX = 64, TLS_KEY_MIN = 16, TLS_KEY_MAX = 64, TLS_KEY_NAME = 128 };

struct tls_key {
	char name[TLS_KEY_NAME];
	uint8_t bytes[TLS_KEY_MAX];
	unsigned len;
};

struct tls {
	enum tls_side side;
	char *peer;
	char *from; /* the folder or file, for messages */
	gnutls_priority_t priority;
	gnutls_certificate_credentials_t certs;
	gnutls_psk_client_credentials_t psk_client;
	gnutls_psk_server_credentials_t psk_server;
	struct tls_key *key;
	unsigned keys;
};

static inline bool tls_by_key(const struct tls *tls)
{
	return tls->keys;
}

/* What is wrong with a certificate: "has expired". */
const char *tls_verdict(unsigned status);

#endif
