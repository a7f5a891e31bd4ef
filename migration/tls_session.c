/* Sessions: records in memory, and what one side tells of the other. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <gnutls/x509.h>

#include "migration/bytes.h"
#include "migration/tls_internal.h"

enum { INPUT = 1 << 18, RECORD = 16384 };

struct tls_session {
	const struct tls *tls;
	gnutls_session_t gnutls;
	uint8_t *in; /* INPUT bytes: records that came, from in_at to in_len */
	size_t in_at, in_len;
	struct field_buf out; /* records to be sent, from out_at on */
	size_t out_at;
	uint8_t stage[RECORD]; /* what will be the next record */
	size_t staged;
	bool heard; /* something, which was TLS */
	gnutls_typed_vdata_st want[2];
};

/* ---- what GnuTLS reads and writes ------------------------------------------------------- */

static ssize_t push(gnutls_transport_ptr_t ptr, const void *data, size_t len)
{
	struct tls_session *s = ptr;

	if (!field_buf_append(&s->out, data, len))
		return (ssize_t)len;
	gnutls_transport_set_errno(s->gnutls, ENOMEM);
	return -1;
}

static ssize_t pull(gnutls_transport_ptr_t ptr, void *data, size_t len)
{
	struct tls_session *s = ptr;
	const size_t have = s->in_len - s->in_at, n = have < len ? have : len;

	if (!n) {
		gnutls_transport_set_errno(s->gnutls, EAGAIN);
		return -1;
	}
	memcpy(data, s->in + s->in_at, n);
	s->in_at += n;
	return (ssize_t)n;
}

static int pull_timeout(gnutls_transport_ptr_t ptr, unsigned ms)
{
	const struct tls_session *s = ptr;

	(void)ms;
	return s->in_len > s->in_at;
}

uint8_t *tls_session_space(struct tls_session *s, size_t *len)
{
	if (s->in_at) {
		s->in_len -= s->in_at;
		memmove(s->in, s->in + s->in_at, s->in_len);
		s->in_at = 0;
	}
	*len = INPUT - s->in_len;
	return s->in + s->in_len;
}

void tls_session_came(struct tls_session *s, size_t len)
{
	s->in_len += len;
}

bool tls_session_has_input(const struct tls_session *s)
{
	return s->in_len > s->in_at || gnutls_record_check_pending(s->gnutls);
}

const uint8_t *tls_session_pending(const struct tls_session *s, size_t *len)
{
	*len = s->out.len - s->out_at;
	return s->out.data + s->out_at;
}

void tls_session_gone(struct tls_session *s, size_t len)
{
	s->out_at += len;
	if (s->out_at == s->out.len)
		s->out_at = s->out.len = 0;
}

/* ---- who they are ----------------------------------------------------------------------- */

/* Says why we do not accept the other side, to it and to our user. */
static int reject(struct tls_session *s, int code, struct stream_error *err)
{
	const unsigned status = gnutls_session_get_verify_cert_status(s->gnutls);

	if (code == GNUTLS_E_NO_CERTIFICATE_FOUND || code == GNUTLS_E_CERTIFICATE_REQUIRED) {
		gnutls_alert_send_appropriate(s->gnutls, code);
		return stream_fail(err, NULL, -EKEYREJECTED, "the other side has no certificate");
	}
	if (status & GNUTLS_CERT_EXPIRED)
		gnutls_alert_send(s->gnutls, GNUTLS_AL_FATAL, GNUTLS_A_CERTIFICATE_EXPIRED);
	else if (status & (GNUTLS_CERT_SIGNER_NOT_FOUND | GNUTLS_CERT_SIGNATURE_FAILURE))
		gnutls_alert_send(s->gnutls, GNUTLS_AL_FATAL, GNUTLS_A_UNKNOWN_CA);
	else
		gnutls_alert_send_appropriate(s->gnutls, code);
	if (status & GNUTLS_CERT_UNEXPECTED_OWNER)
		return stream_fail(err, NULL, -EKEYREJECTED,
				   "the other side's certificate is none of %s: --tls-name NAME "
				   "says which name it must have",
				   s->tls->peer);
	return stream_fail(err, NULL, -EKEYREJECTED, "the other side's certificate %s (%s)",
			   tls_verdict(status), s->tls->from);
}

/* The other side has said why it does not accept us. */
static int rejected(struct tls_session *s, struct stream_error *err)
{
	const gnutls_alert_description_t alert = gnutls_alert_get(s->gnutls);
	const char *name = gnutls_alert_get_name(alert);

	switch (alert) {
	case GNUTLS_A_CERTIFICATE_EXPIRED:
		return stream_fail(err, NULL, -EKEYREJECTED,
				   "the other side says that our certificate has expired: %s",
				   s->tls->from);
	case GNUTLS_A_UNKNOWN_CA:
		return stream_fail(err, NULL, -EKEYREJECTED,
				   "the other side does not accept our certificate (%s): both need "
				   "the same ca-cert.pem, ours is in %s",
				   name, s->tls->from);
	case GNUTLS_A_BAD_CERTIFICATE:
	case GNUTLS_A_UNSUPPORTED_CERTIFICATE:
	case GNUTLS_A_CERTIFICATE_UNKNOWN:
	case GNUTLS_A_CERTIFICATE_REVOKED:
	case GNUTLS_A_ACCESS_DENIED:
		return stream_fail(err, NULL, -EKEYREJECTED,
				   "the other side does not accept our certificate of %s (%s), and "
				   "says there why",
				   s->tls->from, name);
	case GNUTLS_A_CERTIFICATE_REQUIRED:
	case GNUTLS_A_PROTOCOL_VERSION: break;
	default:
		if (tls_by_key(s->tls))
			return stream_fail(err, NULL, -EKEYREJECTED,
					   "the other side does not know the key %s of %s (%s): "
					   "both need the same one, --tls-psk",
					   s->tls->key[0].name, s->tls->from, name ? name : "?");
	}
	return stream_fail(err, NULL, -EKEYREJECTED,
			   "the other side ends TLS: %s; is it told to use %s too?",
			   name ? name : "?", tls_by_key(s->tls) ? "--tls-psk" : "--tls-certs");
}

/* In the handshake, or after it. */
static int fail_with(struct tls_session *s, int code, bool known, struct stream_error *err)
{
	switch (code) {
	case GNUTLS_E_FATAL_ALERT_RECEIVED: return rejected(s, err);
	case GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR:
	case GNUTLS_E_CERTIFICATE_ERROR:
	case GNUTLS_E_NO_CERTIFICATE_FOUND:
	case GNUTLS_E_CERTIFICATE_REQUIRED: return reject(s, code, err);
	case GNUTLS_E_MEMORY_ERROR: return stream_fail(err, NULL, -ENOMEM, "no memory");
	default: break;
	}
	gnutls_alert_send_appropriate(s->gnutls, code);
	if (tls_by_key(s->tls) && !known &&
	    (code == GNUTLS_E_RECEIVED_ILLEGAL_PARAMETER || code == GNUTLS_E_NO_CIPHER_SUITES ||
	     code == GNUTLS_E_INSUFFICIENT_CREDENTIALS || code == GNUTLS_E_DECRYPTION_FAILED))
		return stream_fail(err, NULL, -EKEYREJECTED,
				   "the other side has no key that is in %s (%s)", s->tls->from,
				   gnutls_strerror(code));
	return stream_fail(err, NULL, -EBADMSG, "TLS: %s", gnutls_strerror(code));
}

/* A ferry that was not told to use TLS begins with a frame. */
static bool is_plain(const struct tls_session *s)
{
	return get_le(s->in + s->in_at, 4) == STREAM_MAGIC;
}

int tls_session_greet(struct tls_session *s, struct stream_error *err)
{
	int ret;

	if (!s->heard && s->in_len - s->in_at >= 4) {
		if (is_plain(s))
			return stream_fail(err, NULL, -EPROTONOSUPPORT,
					   "the other side speaks without TLS");
		s->heard = true;
	}
	/* A client begins; of others nothing is looked at before it can be told what it is. */
	if (!s->heard && (s->in_len || s->tls->side == TLS_SERVER))
		return 0;
	do
		ret = gnutls_handshake(s->gnutls);
	while (ret < 0 && ret != GNUTLS_E_AGAIN && !gnutls_error_is_fatal(ret));
	if (ret == GNUTLS_E_AGAIN)
		return 0;
	return ret < 0 ? fail_with(s, ret, false, err) : 1;
}

/* ---- bytes ------------------------------------------------------------------------------ */

static int send_record(struct tls_session *s, const uint8_t *data, size_t len)
{
	while (len) {
		ssize_t n = gnutls_record_send(s->gnutls, data, len);

		if (n == GNUTLS_E_MEMORY_ERROR || n == GNUTLS_E_PUSH_ERROR)
			return -ENOMEM;
		if (n < 0 && gnutls_error_is_fatal((int)n))
			return -EPROTO;
		data += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
	}
	return 0;
}

int tls_session_push(struct tls_session *s)
{
	int ret = send_record(s, s->stage, s->staged);

	s->staged = 0;
	return ret;
}

int tls_session_write(struct tls_session *s, const void *data, size_t len)
{
	const uint8_t *at = data;
	int ret = 0;

	while (len && !ret) {
		size_t n = RECORD - s->staged < len ? RECORD - s->staged : len;

		if (n == RECORD) {
			ret = send_record(s, at, n);
		} else {
			memcpy(s->stage + s->staged, at, n);
			s->staged += n;
			if (s->staged == RECORD)
				ret = tls_session_push(s);
		}
		at += n;
		len -= n;
	}
	return ret;
}

ssize_t tls_session_read(struct tls_session *s, void *buf, size_t len, struct stream_error *err)
{
	ssize_t n;

	do
		n = gnutls_record_recv(s->gnutls, buf, len);
	while (n < 0 && n != GNUTLS_E_AGAIN && !gnutls_error_is_fatal((int)n));
	if (n > 0)
		return n;
	if (!n)
		return -ENODATA;
	return n == GNUTLS_E_AGAIN ? 0 : fail_with(s, (int)n, true, err);
}

void tls_session_bye(struct tls_session *s)
{
	(void)gnutls_bye(s->gnutls, GNUTLS_SHUT_WR);
}

/* ---- life ------------------------------------------------------------------------------- */

/* What the other side must be. */
static int demand(struct tls_session *s)
{
	const struct tls *tls = s->tls;
	const bool server = tls->side == TLS_SERVER;
	unsigned count = 1;

	if (tls_by_key(tls))
		return server ? gnutls_credentials_set(s->gnutls, GNUTLS_CRD_PSK, tls->psk_server)
			      : gnutls_credentials_set(s->gnutls, GNUTLS_CRD_PSK, tls->psk_client);
	s->want[0] = (gnutls_typed_vdata_st){
		.type = GNUTLS_DT_KEY_PURPOSE_OID,
		.data = (unsigned char *)(uintptr_t)(server ? GNUTLS_KP_TLS_WWW_CLIENT
							    : GNUTLS_KP_TLS_WWW_SERVER)};
	if (tls->peer)
		s->want[count++] = (gnutls_typed_vdata_st){.type = GNUTLS_DT_DNS_HOSTNAME,
							   .data = (unsigned char *)tls->peer};
	gnutls_session_set_verify_cert2(s->gnutls, s->want, count, 0);
	if (server)
		gnutls_certificate_server_set_request(s->gnutls, GNUTLS_CERT_REQUIRE);
	return gnutls_credentials_set(s->gnutls, GNUTLS_CRD_CERTIFICATE, tls->certs);
}

struct tls_session *tls_session_new(const struct tls *tls)
{
	struct tls_session *s = calloc(1, sizeof(*s));
	const unsigned flags = GNUTLS_NONBLOCK | GNUTLS_NO_TICKETS;

	if (!s)
		return NULL;
	s->tls = tls;
	s->in = malloc(INPUT);
	if (!s->in || gnutls_init(&s->gnutls, flags | (tls->side == TLS_SERVER ? GNUTLS_SERVER
									       : GNUTLS_CLIENT))) {
		s->gnutls = NULL;
		tls_session_free(s);
		return NULL;
	}
	gnutls_session_set_ptr(s->gnutls, (void *)(uintptr_t)tls);
	gnutls_transport_set_ptr(s->gnutls, s);
	gnutls_transport_set_push_function(s->gnutls, push);
	gnutls_transport_set_pull_function(s->gnutls, pull);
	gnutls_transport_set_pull_timeout_function(s->gnutls, pull_timeout);
	/* The link watches the time. */
	gnutls_handshake_set_timeout(s->gnutls, GNUTLS_INDEFINITE_TIMEOUT);
	if (!gnutls_priority_set(s->gnutls, tls->priority) && !demand(s))
		return s;
	tls_session_free(s);
	return NULL;
}

void tls_session_free(struct tls_session *s)
{
	if (!s)
		return;
	if (s->gnutls)
		gnutls_deinit(s->gnutls);
	field_buf_free(&s->out);
	free(s->in);
	free(s);
}
