/* A CA, certificates and key files for tests, made with GnuTLS. What fails ends the test. */
#ifndef TESTS_UNIT_TLS_UTIL_H
#define TESTS_UNIT_TLS_UTIL_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <gnutls/x509.h>

#define TLS_MUST(x)                                                                                \
	do {                                                                                       \
		if ((x) < 0) {                                                                     \
			printf("%s:%d: %s\n", __FILE__, __LINE__, #x);                             \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

struct tls_ca {
	gnutls_x509_crt_t crt;
	gnutls_x509_privkey_t key;
};

static inline void tls_util_file(const char *folder, const char *name, const void *data, size_t len,
				 mode_t mode)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	f = fopen(path, "w");
	if (!f || fwrite(data, 1, len, f) != len || fclose(f) || chmod(path, mode)) {
		perror(path);
		exit(1);
	}
}

static inline gnutls_x509_privkey_t tls_util_key(void)
{
	gnutls_x509_privkey_t key;

	TLS_MUST(gnutls_x509_privkey_init(&key));
	TLS_MUST(gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA,
					      GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0));
	return key;
}

static inline gnutls_x509_crt_t tls_util_crt(gnutls_x509_privkey_t key, const char *name,
					     time_t until, unsigned serial)
{
	gnutls_x509_crt_t crt;
	unsigned char number[2] = {1, (unsigned char)serial};

	TLS_MUST(gnutls_x509_crt_init(&crt));
	TLS_MUST(gnutls_x509_crt_set_version(crt, 3));
	TLS_MUST(gnutls_x509_crt_set_key(crt, key));
	TLS_MUST(gnutls_x509_crt_set_serial(crt, number, sizeof(number)));
	TLS_MUST(gnutls_x509_crt_set_activation_time(crt, until - 20 * 86400));
	TLS_MUST(gnutls_x509_crt_set_expiration_time(crt, until));
	TLS_MUST(gnutls_x509_crt_set_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, name,
					       (unsigned)strlen(name)));
	return crt;
}

static inline struct tls_ca tls_util_ca(void)
{
	struct tls_ca ca = {.key = tls_util_key()};

	ca.crt = tls_util_crt(ca.key, "CA", time(NULL) + 10 * 86400, 1);
	TLS_MUST(gnutls_x509_crt_set_basic_constraints(ca.crt, 1, -1));
	TLS_MUST(gnutls_x509_crt_set_key_usage(ca.crt, GNUTLS_KEY_KEY_CERT_SIGN));
	TLS_MUST(gnutls_x509_crt_sign2(ca.crt, ca.crt, ca.key, GNUTLS_DIG_SHA256, 0));
	return ca;
}

static inline void tls_util_ca_free(struct tls_ca *ca)
{
	gnutls_x509_crt_deinit(ca->crt);
	gnutls_x509_privkey_deinit(ca->key);
}

/* NAME-cert.pem and NAME-key.pem of a host, that the CA has signed. */
static inline void tls_util_issue(const struct tls_ca *ca, const char *folder, const char *name,
				  const char *host, const char *purpose, time_t until)
{
	gnutls_x509_privkey_t key = tls_util_key();
	gnutls_x509_crt_t crt = tls_util_crt(key, host, until, 2);
	char file[64];
	gnutls_datum_t pem;

	TLS_MUST(gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_DNSNAME, host,
						      (unsigned)strlen(host), GNUTLS_FSAN_SET));
	TLS_MUST(gnutls_x509_crt_set_key_purpose_oid(crt, purpose, 0));
	TLS_MUST(gnutls_x509_crt_sign2(crt, ca->crt, ca->key, GNUTLS_DIG_SHA256, 0));
	TLS_MUST(gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, &pem));
	snprintf(file, sizeof(file), "%s-cert.pem", name);
	tls_util_file(folder, file, pem.data, pem.size, 0644);
	gnutls_free(pem.data);
	TLS_MUST(gnutls_x509_privkey_export2(key, GNUTLS_X509_FMT_PEM, &pem));
	snprintf(file, sizeof(file), "%s-key.pem", name);
	tls_util_file(folder, file, pem.data, pem.size, 0600);
	gnutls_free(pem.data);
	gnutls_x509_crt_deinit(crt);
	gnutls_x509_privkey_deinit(key);
}

static inline void tls_util_trust(const struct tls_ca *ca, const char *folder)
{
	gnutls_datum_t pem;

	TLS_MUST(gnutls_x509_crt_export2(ca->crt, GNUTLS_X509_FMT_PEM, &pem));
	tls_util_file(folder, "ca-cert.pem", pem.data, pem.size, 0644);
	gnutls_free(pem.data);
}

#endif
