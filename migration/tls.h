/*
 * TLS 1.3 (RFC 8446) for the connections of a migration, by GnuTLS. An identity is loaded once: who
 * we are and whom we trust. A session turns bytes into records and back; it knows no socket, the
 * link carries its records. Both sides prove who they are, with certificates or with a key that
 * both have; there is no other mode.
 */
#ifndef MIGRATION_TLS_H
#define MIGRATION_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "migration/stream.h"

enum tls_side { TLS_CLIENT, TLS_SERVER };

struct tls_files {
	/* Folder with ca-cert.pem, for the client client-cert.pem and client-key.pem, for the
	 * server server-cert.pem and server-key.pem; perhaps ca-crl.pem. Or NULL. */
	const char *certs;
	/* File of lines NAME:HEXKEY, as psktool writes them; a client uses the first one. Or NULL.
	 */
	const char *psk;
	/* The name or IP address that the other side's certificate must have; NULL: any that the
	 * CA has signed, for a server only. */
	const char *peer;
};

/* Does not change once it is loaded: any number of sessions, on any threads. */
struct tls;
/* One of certs and psk. What is wrong is said with the file's name and what cures it: -ENOENT,
 * -EACCES (also: a key that others can read), -EKEYEXPIRED, -EKEYREJECTED, -EINVAL, -ENOMEM. */
int tls_load(struct tls **out, const struct tls_files *files, enum tls_side side,
	     struct stream_error *err);
void tls_free(struct tls *tls); /* NULL is fine; no session uses it any more */
/* "GnuTLS 3.7.9" */
const char *tls_library(void);

/* One thread at a time. */
struct tls_session;
/* tls must stay. NULL: no memory. */
struct tls_session *tls_session_new(const struct tls *tls);
void tls_session_free(struct tls_session *s); /* NULL is fine */

/* Room for records that come, at least 1 byte unless what came before has not been read; and how
 * many bytes of it were filled. */
uint8_t *tls_session_space(struct tls_session *s, size_t *len);
void tls_session_came(struct tls_session *s, size_t len);
/* Something came that has not been read. */
bool tls_session_has_input(const struct tls_session *s);
/* Records that are to be sent; and how many bytes of them were. */
const uint8_t *tls_session_pending(const struct tls_session *s, size_t *len);
void tls_session_gone(struct tls_session *s, size_t len);

/* The handshake, as far as what has come allows. 1: done; 0: more must come; -EKEYREJECTED: one
 * side does not accept the other; -EPROTONOSUPPORT: the other side sends frames without TLS;
 * -EBADMSG and the like; with a text. In each case something may be pending, an alert at least. */
int tls_session_greet(struct tls_session *s, struct stream_error *err);
/* Bytes into records; the last few wait for tls_session_push(). 0, -ENOMEM, -EPROTO. */
int tls_session_write(struct tls_session *s, const void *data, size_t len);
int tls_session_push(struct tls_session *s);
/* What came, decrypted: bytes; 0: more must come; -ENODATA: the other side has ended it;
 * -EKEYREJECTED, -EBADMSG with a text. */
ssize_t tls_session_read(struct tls_session *s, void *buf, size_t len, struct stream_error *err);
/* Nothing more will be written. */
void tls_session_bye(struct tls_session *s);

#endif
