/* Identities: what a folder of certificates or a file of keys says, looked at before anything is
 * connected. */
#include "migration/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <gnutls/crypto.h>
#include <gnutls/x509.h>

#include "migration/tls_internal.h"

enum { FILE_MAX = 1 << 20 };
/* AES-128-GCM first: it is the fastest where processors have it, and a pre-shared key of TLS 1.3
 * wants a cipher of its own hash, SHA-256. */
#define TLS_13                                                                                     \
	"NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:+CHACHA20-POLY1305:+AES-256-GCM"

const char *tls_library(void)
{
	static char text[40];

	snprintf(text, sizeof(text), "GnuTLS %s", gnutls_check_version(NULL));
	return text;
}

/* ---- files ------------------------------------------------------------------------------ */

static int open_file(const char *path, bool secret, const char *remedy, struct stream_error *err)
{
	/* Of a FIFO nothing is waited for. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0)
		return errno == ENOENT
			       ? stream_fail(err, NULL, -ENOENT, "%s is missing: %s", path, remedy)
			       : stream_fail(err, NULL, -errno, "%s: %s", path, strerror(errno));
	if (!fstat(fd, &st) && S_ISREG(st.st_mode)) {
		if (!secret || !(st.st_mode & (S_IROTH | S_IWOTH)))
			return fd;
		close(fd);
		return stream_fail(err, NULL, -EACCES,
				   "%s is a secret that others can read: chmod o= %s", path, path);
	}
	close(fd);
	return stream_fail(err, NULL, -EINVAL, "%s is not a file", path);
}

/* All of it, with a zero behind it; to be freed by drop(). */
static int take_file(const char *path, bool secret, const char *remedy, gnutls_datum_t *out,
		     struct stream_error *err)
{
	int fd = open_file(path, secret, remedy, err);
	uint8_t *data;
	ssize_t n = 1;
	size_t len = 0;

	if (fd < 0)
		return fd;
	data = malloc(FILE_MAX + 1);
	while (data && n > 0 && len < FILE_MAX) {
		n = read(fd, data + len, FILE_MAX - len);
		len += n > 0 ? (size_t)n : 0;
	}
	close(fd);
	if (data && !n && len) {
		data[len] = 0;
		*out = (gnutls_datum_t){data, (unsigned)len};
		return 0;
	}
	free(data);
	if (!data)
		return stream_fail(err, NULL, -ENOMEM, "no memory");
	return stream_fail(err, NULL, n < 0 ? -EIO : -EINVAL, "%s %s", path,
			   n < 0 ? "cannot be read"
			   : len ? "is too long"
				 : "is empty");
}

static void drop(gnutls_datum_t *data)
{
	if (data->data)
		gnutls_memset(data->data, 0, data->size);
	free(data->data);
	*data = (gnutls_datum_t){NULL, 0};
}

/* ---- certificates ----------------------------------------------------------------------- */

const char *tls_verdict(unsigned status)
{
	static const struct {
		unsigned bit;
		const char *text;
	} verdicts[] = {
		{GNUTLS_CERT_REVOKED, "has been revoked (ca-crl.pem)"},
		/* The second: of another CA that has the same name. */
		{GNUTLS_CERT_SIGNER_NOT_FOUND | GNUTLS_CERT_SIGNATURE_FAILURE,
		 "is not signed by the CA of ca-cert.pem"},
		{GNUTLS_CERT_SIGNER_NOT_CA, "is signed by a certificate that is none of a CA"},
		{GNUTLS_CERT_EXPIRED, "has expired"},
		{GNUTLS_CERT_NOT_ACTIVATED, "is not valid yet (are the clocks right?)"},
		{GNUTLS_CERT_INSECURE_ALGORITHM, "has a weak signature or key"},
		{GNUTLS_CERT_PURPOSE_MISMATCH, "is not meant for this side of a connection"},
		{GNUTLS_CERT_UNEXPECTED_OWNER, "has another name"},
	};

	for (unsigned i = 0; i < sizeof(verdicts) / sizeof(verdicts[0]); i++)
		if (status & verdicts[i].bit)
			return verdicts[i].text;
	return "is not valid";
}

/* A user who has mixed up two folders, or forgotten a date, learns it here and not from the other
 * side. */
static int check_own(const char *path, const gnutls_datum_t *own, const gnutls_datum_t *ca,
		     struct stream_error *err)
{
	gnutls_x509_trust_list_t trust = NULL;
	gnutls_x509_crt_t *chain = NULL;
	unsigned count = 0, status = 0;
	int ret = gnutls_x509_crt_list_import2(&chain, &count, own, GNUTLS_X509_FMT_PEM, 0);

	if (ret < 0)
		return stream_fail(err, NULL, -EINVAL, "%s is no certificate: %s", path,
				   gnutls_strerror(ret));
	ret = gnutls_x509_trust_list_init(&trust, 0);
	if (!ret &&
	    gnutls_x509_trust_list_add_trust_mem(trust, ca, NULL, GNUTLS_X509_FMT_PEM, 0, 0) < 1)
		ret = GNUTLS_E_MEMORY_ERROR;
	if (!ret)
		ret = gnutls_x509_trust_list_verify_crt(trust, chain, count, 0, &status, NULL);
	if (trust)
		gnutls_x509_trust_list_deinit(trust, 1);
	for (unsigned i = 0; i < count; i++)
		gnutls_x509_crt_deinit(chain[i]);
	gnutls_free(chain);
	if (ret < 0)
		return stream_fail(err, NULL, -EINVAL, "%s: %s", path, gnutls_strerror(ret));
	if (status)
		return stream_fail(
			err, NULL, status & GNUTLS_CERT_EXPIRED ? -EKEYEXPIRED : -EKEYREJECTED,
			"%s %s: make a new one (docs/migration-tls.md)", path, tls_verdict(status));
	return 0;
}

struct certificate_files {
	char path[4][4096]; /* CA, own, its key, revoked ones */
	gnutls_datum_t data[4];
};

static int take_certificates(struct tls *tls, struct certificate_files *f, const char *folder,
			     struct stream_error *err)
{
	static const char remedy[] = "docs/migration-tls.md says how to make one";
	const char *who = tls->side == TLS_CLIENT ? "client" : "server";
	int ret;

	snprintf(f->path[0], sizeof(f->path[0]), "%s/ca-cert.pem", folder);
	snprintf(f->path[1], sizeof(f->path[1]), "%s/%s-cert.pem", folder, who);
	snprintf(f->path[2], sizeof(f->path[2]), "%s/%s-key.pem", folder, who);
	snprintf(f->path[3], sizeof(f->path[3]), "%s/ca-crl.pem", folder);
	for (int i = 0; i < 3; i++) {
		ret = take_file(f->path[i], i == 2, remedy, &f->data[i], err);
		if (ret)
			return ret;
	}
	if (!access(f->path[3], F_OK))
		return take_file(f->path[3], false, remedy, &f->data[3], err);
	return 0;
}

static int use_certificates(struct tls *tls, struct certificate_files *f, struct stream_error *err)
{
	int ret = gnutls_certificate_allocate_credentials(&tls->certs);

	if (ret)
		return stream_fail(err, NULL, -ENOMEM, "no memory");
	ret = gnutls_certificate_set_x509_trust_mem(tls->certs, &f->data[0], GNUTLS_X509_FMT_PEM);
	if (ret < 1)
		return stream_fail(err, NULL, -EINVAL, "%s has no certificate: %s", f->path[0],
				   ret ? gnutls_strerror(ret) : "it is empty");
	if (f->data[3].data &&
	    gnutls_certificate_set_x509_crl_mem(tls->certs, &f->data[3], GNUTLS_X509_FMT_PEM) < 1)
		return stream_fail(err, NULL, -EINVAL, "%s is no list of revoked certificates",
				   f->path[3]);
	ret = check_own(f->path[1], &f->data[1], &f->data[0], err);
	if (ret)
		return ret;
	ret = gnutls_certificate_set_x509_key_mem(tls->certs, &f->data[1], &f->data[2],
						  GNUTLS_X509_FMT_PEM);
	if (ret == GNUTLS_E_CERTIFICATE_KEY_MISMATCH)
		return stream_fail(err, NULL, -EKEYREJECTED, "%s is not the key of %s", f->path[2],
				   f->path[1]);
	if (ret < 0)
		return stream_fail(err, NULL, -EINVAL,
				   "%s: %s (a key with a password is not taken)", f->path[2],
				   gnutls_strerror(ret));
	return 0;
}

static int load_certificates(struct tls *tls, const char *folder, struct stream_error *err)
{
	struct certificate_files *f = calloc(1, sizeof(*f));
	int ret;

	if (!f)
		return stream_fail(err, NULL, -ENOMEM, "no memory");
	ret = take_certificates(tls, f, folder, err);
	if (!ret)
		ret = use_certificates(tls, f, err);
	for (int i = 0; i < 4; i++)
		drop(&f->data[i]);
	free(f);
	return ret;
}

/* ---- keys ------------------------------------------------------------------------------- */

static int nibble(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "name:0123abcd" */
static bool parse_key(const char *line, size_t len, struct tls_key *key)
{
	const char *colon = memchr(line, ':', len);
	size_t name = colon ? (size_t)(colon - line) : 0, digits = len - name - 1;

	if (!name || name >= sizeof(key->name) || digits % 2 || digits < 2 * TLS_KEY_MIN ||
	    digits > 2 * TLS_KEY_MAX)
		return false;
	*key = (struct tls_key){.len = (unsigned)digits / 2};
	memcpy(key->name, line, name);
	for (size_t i = 0; i < digits; i += 2) {
		const int high = nibble(colon[1 + i]), low = nibble(colon[2 + i]);

		if (high < 0 || low < 0)
			return false;
		key->bytes[i / 2] = (uint8_t)(high << 4 | low);
	}
	return true;
}

static int parse_keys(struct tls *tls, const char *path, const char *text, struct stream_error *err)
{
	for (unsigned line = 1; *text; line++) {
		size_t len = strcspn(text, "\r\n");

		if (len && *text != '#') {
			if (tls->keys == TLS_KEYS_MAX)
				return stream_fail(err, NULL, -E2BIG, "%s: more than %d keys", path,
						   TLS_KEYS_MAX);
			if (!parse_key(text, len, &tls->key[tls->keys]))
				return stream_fail(
					err, NULL, -EINVAL,
					"%s, line %u is not NAME:HEXKEY with a key of "
					"%d to %d bytes: psktool -u NAME -p %s makes one",
					path, line, TLS_KEY_MIN, TLS_KEY_MAX, path);
			tls->keys++;
		}
		text += len;
		text += strspn(text, "\r\n");
	}
	return tls->keys
		       ? 0
		       : stream_fail(err, NULL, -EINVAL,
				     "%s has no key: psktool -u NAME -p %s makes one", path, path);
}

/* A name that is not known gets a key that nobody knows: the other side does not learn which of the
 * two was wrong. */
static int find_key(gnutls_session_t session, const char *name, gnutls_datum_t *out)
{
	const struct tls *tls = gnutls_session_get_ptr(session);
	const struct tls_key *key = NULL;

	for (unsigned i = 0; i < tls->keys && !key; i++)
		key = strcmp(tls->key[i].name, name) ? NULL : &tls->key[i];
	out->size = key ? key->len : TLS_KEY_MAX / 2;
	out->data = gnutls_malloc(out->size);
	if (!out->data)
		return -1;
	if (!key)
		return gnutls_rnd(GNUTLS_RND_KEY, out->data, out->size);
	memcpy(out->data, key->bytes, out->size);
	return 0;
}

static int load_keys(struct tls *tls, const char *path, struct stream_error *err)
{
	gnutls_datum_t data = {NULL, 0}, first;
	int ret = take_file(path, true, "psktool -u NAME -p FILE makes it", &data, err);

	if (ret || !data.data)
		return ret;
	tls->key = calloc(TLS_KEYS_MAX, sizeof(*tls->key));
	if (tls->key)
		ret = parse_keys(tls, path, (char *)data.data, err);
	drop(&data);
	if (!tls->key)
		return stream_fail(err, NULL, -ENOMEM, "no memory");
	if (ret)
		return ret;
	if (tls->side == TLS_SERVER) {
		ret = gnutls_psk_allocate_server_credentials(&tls->psk_server);
		if (!ret)
			gnutls_psk_set_server_credentials_function(tls->psk_server, find_key);
	} else {
		first = (gnutls_datum_t){tls->key[0].bytes, tls->key[0].len};
		ret = gnutls_psk_allocate_client_credentials(&tls->psk_client);
		if (!ret)
			ret = gnutls_psk_set_client_credentials(tls->psk_client, tls->key[0].name,
								&first, GNUTLS_PSK_KEY_RAW);
	}
	return ret ? stream_fail(err, NULL, -ENOMEM, "%s: %s", path, gnutls_strerror(ret)) : 0;
}

/* ---- the whole -------------------------------------------------------------------------- */

int tls_load(struct tls **out, const struct tls_files *files, enum tls_side side,
	     struct stream_error *err)
{
	const char *from = files->psk ? files->psk : files->certs, *at;
	struct tls *tls = calloc(1, sizeof(*tls));
	int ret;

	*out = NULL;
	if (!tls)
		return stream_fail(err, NULL, -ENOMEM, "no memory");
	tls->side = side;
	tls->from = strdup(from);
	tls->peer = files->peer && *files->peer ? strdup(files->peer) : NULL;
	if (!tls->from || (files->peer && *files->peer && !tls->peer))
		ret = stream_fail(err, NULL, -ENOMEM, "no memory");
	else
		ret = files->psk ? load_keys(tls, from, err) : load_certificates(tls, from, err);
	if (!ret &&
	    gnutls_priority_init2(&tls->priority,
				  files->psk ? TLS_13 ":-KX-ALL:+ECDHE-PSK" : TLS_13, &at, 0))
		ret = stream_fail(err, NULL, -ENOTSUP, "%s on this host allows no TLS 1.3: %s",
				  tls_library(), at);
	if (ret)
		tls_free(tls);
	else
		*out = tls;
	return ret;
}

void tls_free(struct tls *tls)
{
	if (!tls)
		return;
	if (tls->certs)
		gnutls_certificate_free_credentials(tls->certs);
	if (tls->psk_client)
		gnutls_psk_free_client_credentials(tls->psk_client);
	if (tls->psk_server)
		gnutls_psk_free_server_credentials(tls->psk_server);
	if (tls->priority)
		gnutls_priority_deinit(tls->priority);
	if (tls->key)
		gnutls_memset(tls->key, 0, TLS_KEYS_MAX * sizeof(*tls->key));
	free(tls->key);
	free(tls->peer);
	free(tls->from);
	free(tls);
}
