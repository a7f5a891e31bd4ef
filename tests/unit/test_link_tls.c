/*
 * Links with TLS: what passes them, and who does not: wrong certificates and keys, old ones, other
 * names, sides without TLS, halves of handshakes, noise. `test_link_tls speed` measures.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migration/clock.h"
#include "migration/link.h"
#include "migration/stream_blob.h"
#include "migration/stream_control.h"
#include "migration/stream_hello.h"
#include "migration/tls_internal.h"
#include "check.h"
#include "tls_util.h"

static char base[] = "/tmp/ferry-test-tls-XXXXXX";

/* ---- two sides -------------------------------------------------------------------------- */

enum { BIG = 5 << 20 };

struct side {
	struct link *link;
	uint64_t say, heard; /* numbers that go over */
	bool gives, takes;   /* BIG bytes */
	int code;
	struct stream_error err;
	pthread_t thread;
};

static uint8_t pattern(size_t i)
{
	return (uint8_t)(i * 31 + (i >> 13));
}

static int say_bulk(struct side *s)
{
	uint8_t *data = malloc(BIG);
	int ret;

	for (size_t i = 0; i < BIG; i++)
		data[i] = pattern(i);
	ret = stream_blob_write(&s->link->w, STREAM_DEVICE, 0, "machine", data, BIG);
	free(data);
	return ret;
}

static int take_bulk(struct side *s, const struct stream_frame *frame, struct stream_blob *blob)
{
	int ret = stream_blob_take(blob, frame, BIG, &s->err);

	for (size_t i = 0; ret > 0 && i < BIG; i++)
		if (blob->bytes.data[i] != pattern(i))
			return stream_fail(&s->err, NULL, -EBADMSG, "other bytes at %zu", i);
	return ret;
}

/* Says its number, and all that the other side says is right, or an error. */
static void *side_main(void *arg)
{
	struct side *s = arg;
	struct stream_hello hello;
	struct stream_blob blob = {.total = 0};
	struct stream_frame frame;
	bool whole = !s->takes;
	int ret;

	stream_hello_init(&hello);
	memcpy(hello.session, &s->say, sizeof(s->say));
	ret = stream_hello_write(&s->link->w, &hello);
	if (!ret && s->gives)
		(void)say_bulk(s);
	while (!s->heard || !whole) {
		s->code = link_receive(s->link, 5000, &frame, &s->err);
		if (s->code <= 0)
			break;
		if (frame.type == STREAM_FAILURE) {
			struct stream_failure failure;

			stream_control_read(&frame, &failure, sizeof(failure), &s->err);
			s->code = stream_fail(&s->err, NULL, -ECONNREFUSED, "%.199s", failure.text);
			break;
		}
		if (frame.type == STREAM_HELLO && !stream_hello_read(&frame, &hello, &s->err))
			memcpy(&s->heard, hello.session, sizeof(s->heard));
		if (frame.type == STREAM_DEVICE) {
			s->code = take_bulk(s, &frame, &blob);
			if (s->code < 0)
				break;
			whole |= s->code;
		}
	}
	stream_blob_free(&blob);
	if (s->code >= 0)
		s->code = s->heard ? 0 : -ETIME;
	link_finish(s->link);
	return NULL;
}

static void meet(const struct tls *client, const struct tls *server, bool bulk, struct side *a,
		 struct side *b)
{
	int fd[2];

	CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd));
	*a = (struct side){.say = 111, .gives = bulk};
	*b = (struct side){.say = 222, .takes = bulk};
	CHECK(!link_open(&a->link, fd[0], 0, -1, client));
	CHECK(!link_open(&b->link, fd[1], 0, -1, server));
	pthread_create(&a->thread, NULL, side_main, a);
	pthread_create(&b->thread, NULL, side_main, b);
	pthread_join(a->thread, NULL);
	pthread_join(b->thread, NULL);
	link_close(a->link);
	link_close(b->link);
}

static void meet_well(const struct tls *client, const struct tls *server, bool bulk)
{
	struct side a, b;

	meet(client, server, bulk, &a, &b);
	if (a.code || b.code)
		printf("client: %s, server: %s\n", a.err.text, b.err.text);
	CHECK(!a.code && !b.code && a.heard == 222 && b.heard == 111);
}

/* Neither has heard anything; and what they say. */
static void meet_badly(const char *what, const struct tls *client, const struct tls *server,
		       const char *at_client, const char *at_server)
{
	struct side a, b;

	meet(client, server, false, &a, &b);
	printf("%s: client: %s; server: %s\n", what, a.err.text, b.err.text);
	CHECK(!a.heard && !b.heard && a.code < 0 && b.code < 0);
	CHECK(strstr(a.err.text, at_client) && strstr(b.err.text, at_server));
}

/* ---- identities ------------------------------------------------------------------------- */

static const char *folder(const char *name)
{
	static char path[16][256];
	static unsigned n;
	char *p = path[n++ % 16];

	snprintf(p, 256, "%s/%s", base, name);
	mkdir(p, 0700);
	return p;
}

static struct tls *load(const char *certs, const char *psk, const char *peer, enum tls_side side)
{
	struct tls_files files = {.certs = certs, .psk = psk, .peer = peer};
	struct stream_error err = {0};
	struct tls *tls;

	if (tls_load(&tls, &files, side, &err))
		printf("%s\n", err.text);
	CHECK(tls);
	return tls;
}

static void load_badly(const char *certs, const char *psk, enum tls_side side, int code,
		       const char *text)
{
	struct tls_files files = {.certs = certs, .psk = psk, .peer = "here"};
	struct stream_error err = {0};
	struct tls *tls;
	int ret = tls_load(&tls, &files, side, &err);

	printf("%s\n", err.text);
	CHECK(ret == code && !tls && strstr(err.text, text));
}

static void issue_all(const struct tls_ca *ca, const char *where)
{
	const time_t until = time(NULL) + 5 * 86400;

	tls_util_trust(ca, where);
	tls_util_issue(ca, where, "server", "here", GNUTLS_KP_TLS_WWW_SERVER, until);
	tls_util_issue(ca, where, "client", "there", GNUTLS_KP_TLS_WWW_CLIENT, until);
}

static long leap;
static time_t later(time_t *t)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	now.tv_sec += leap;
	if (t)
		*t = now.tv_sec;
	return now.tv_sec;
}

static void certificates(void)
{
	struct tls_ca one = tls_util_ca(), two = tls_util_ca();
	const char *a = folder("a"), *b = folder("b"), *c = folder("c");
	struct tls *client, *server, *other_client, *other_server, *named, *nobody;

	issue_all(&one, a);
	issue_all(&two, b);
	client = load(a, NULL, "here", TLS_CLIENT);
	server = load(a, NULL, NULL, TLS_SERVER);
	meet_well(client, server, false);
	meet_well(client, server, true);

	other_client = load(b, NULL, "here", TLS_CLIENT);
	other_server = load(b, NULL, NULL, TLS_SERVER);
	meet_badly("a server of another CA", client, other_server, "not signed by the CA",
		   "does not accept our certificate");
	meet_badly("a client of another CA", other_client, server, "not signed by the CA",
		   "does not accept our certificate");
	tls_free(other_client);

	/* A client that trusts the server's CA, and has a certificate of another one. */
	issue_all(&two, c);
	other_client = load(c, NULL, "here", TLS_CLIENT);
	gnutls_certificate_free_cas(other_client->certs);
	CHECK(gnutls_certificate_set_x509_trust(other_client->certs, &one.crt, 1) == 1);
	meet_badly("a client that is not known", other_client, server,
		   "does not accept our certificate", "not signed by the CA");
	gnutls_certificate_free_keys(other_client->certs);
	meet_badly("a client without a certificate", other_client, server, "is required",
		   "has no certificate");

	named = load(a, NULL, "elsewhere", TLS_CLIENT);
	meet_badly("a server of another name", named, server, "none of elsewhere", "certificate");
	tls_free(named);
	named = load(a, NULL, "elsewhere", TLS_SERVER);
	meet_badly("a client of another name", client, named, "certificate", "none of elsewhere");
	tls_free(named);
	named = load(a, NULL, "there", TLS_SERVER);
	meet_well(client, named, false);
	tls_free(named);

	/* A server's certificate is none of a client. */
	tls_util_issue(&one, c, "client", "there", GNUTLS_KP_TLS_WWW_SERVER, time(NULL) + 86400);
	tls_util_trust(&one, c);
	nobody = load(c, NULL, "here", TLS_CLIENT);
	meet_badly("a server as a client", nobody, server, "certificate", "not meant for");
	tls_free(nobody);

	gnutls_global_set_time_function(later);
	leap = 6 * 86400;
	meet_badly("certificates that have expired", client, server, "has expired", "has expired");
	gnutls_global_set_time_function(time);
	meet_well(client, server, false);

	meet_badly("a client without TLS", NULL, server, "it uses TLS", "does not use TLS");
	meet_badly("a server without TLS", client, NULL, "does not use TLS", "uses TLS");
	tls_free(client);
	tls_free(server);
	tls_free(other_client);
	tls_free(other_server);

	/* What is wrong with a folder. */
	load_badly(folder("empty"), NULL, TLS_CLIENT, -ENOENT, "ca-cert.pem is missing");
	tls_util_trust(&one, folder("empty"));
	load_badly(folder("empty"), NULL, TLS_CLIENT, -ENOENT, "client-cert.pem is missing");
	load_badly(folder("empty"), NULL, TLS_SERVER, -ENOENT, "server-cert.pem is missing");
	tls_util_trust(&two, a);
	load_badly(a, NULL, TLS_CLIENT, -EKEYREJECTED, "client-cert.pem is not signed by the CA");
	tls_util_issue(&two, a, "client", "there", GNUTLS_KP_TLS_WWW_CLIENT, time(NULL) - 10);
	load_badly(a, NULL, TLS_CLIENT, -EKEYEXPIRED, "client-cert.pem has expired");
	issue_all(&one, a);
	tls_util_file(a, "client-key.pem", "-----", 5, 0604);
	load_badly(a, NULL, TLS_CLIENT, -EACCES, "chmod o=");
	tls_util_file(a, "client-key.pem", "-----", 5, 0600);
	load_badly(a, NULL, TLS_CLIENT, -EINVAL, "client-key.pem");
	tls_util_issue(&one, b, "client", "there", GNUTLS_KP_TLS_WWW_CLIENT, time(NULL) + 86400);
	tls_util_trust(&one, b);
	tls_util_issue(&one, c, "client", "there", GNUTLS_KP_TLS_WWW_CLIENT, time(NULL) + 86400);
	{
		char from[300], to[300];

		snprintf(from, sizeof(from), "%s/client-key.pem", c);
		snprintf(to, sizeof(to), "%s/client-key.pem", b);
		CHECK(!rename(from, to));
	}
	load_badly(b, NULL, TLS_CLIENT, -EKEYREJECTED, "is not the key of");
	tls_util_file(a, "client-cert.pem", "", 0, 0644);
	load_badly(a, NULL, TLS_CLIENT, -EINVAL, "is empty");
	tls_util_file(a, "client-cert.pem", "noise", 5, 0644);
	load_badly(a, NULL, TLS_CLIENT, -EINVAL, "is no certificate");
	tls_util_ca_free(&one);
	tls_util_ca_free(&two);
}

static const char *key_file(const char *name, const char *text, mode_t mode)
{
	static char path[6][256];
	static unsigned n;
	char *p = path[n++ % 6];

	tls_util_file(base, name, text, strlen(text), mode);
	snprintf(p, 256, "%s/%s", base, name);
	return p;
}

#define KEY_1 "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define KEY_2 "ff112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff"

static void keys(void)
{
	struct tls *server =
		load(NULL, key_file("psk-s", "# both\nvm:" KEY_1 "\n\nother:" KEY_2 "\n", 0600),
		     NULL, TLS_SERVER);
	struct tls *client = load(NULL, key_file("psk-c", "vm:" KEY_1, 0600), NULL, TLS_CLIENT);
	struct tls *second = load(NULL, key_file("psk-d", "other:" KEY_2, 0640), NULL, TLS_CLIENT);
	struct tls *wrong = load(NULL, key_file("psk-e", "vm:" KEY_2, 0600), NULL, TLS_CLIENT);
	struct tls *unknown = load(NULL, key_file("psk-f", "no:" KEY_1, 0600), NULL, TLS_CLIENT);
	struct tls_ca ca = tls_util_ca();
	struct tls *certified;

	meet_well(client, server, false);
	meet_well(second, server, true);
	meet_badly("another key", wrong, server, "does not know the key vm", "no key that is in");
	meet_badly("a key of another name", unknown, server, "does not know the key no",
		   "no key that is in");
	issue_all(&ca, folder("k"));
	certified = load(folder("k"), NULL, "here", TLS_CLIENT);
	meet_badly("a certificate for a key", certified, server, "--tls-certs", "no key");
	tls_free(certified);
	certified = load(folder("k"), NULL, NULL, TLS_SERVER);
	meet_badly("a key for a certificate", client, certified, "has no key", "ends TLS");
	tls_free(certified);
	meet_badly("no TLS for a key", NULL, server, "it uses TLS", "does not use TLS");
	tls_free(server);
	tls_free(client);
	tls_free(second);
	tls_free(wrong);
	tls_free(unknown);
	tls_util_ca_free(&ca);

	load_badly(NULL, "/nowhere/k", TLS_CLIENT, -ENOENT, "/nowhere/k is missing");
	load_badly(NULL, base, TLS_CLIENT, -EINVAL, "is not a file");
	load_badly(NULL, key_file("psk-g", "vm:" KEY_1, 0644), TLS_CLIENT, -EACCES, "chmod o=");
	load_badly(NULL, key_file("psk-g", "#\n", 0600), TLS_CLIENT, -EINVAL, "has no key");
	load_badly(NULL, key_file("psk-h", "vm:" KEY_1 "\nvm", 0600), TLS_CLIENT, -EINVAL,
		   "line 2");
	load_badly(NULL, key_file("psk-i", "vm:0011", 0600), TLS_CLIENT, -EINVAL, "16 to 64 bytes");
	load_badly(NULL, key_file("psk-j", "vm:" KEY_1 "0", 0600), TLS_CLIENT, -EINVAL, "line 1");
	load_badly(NULL, key_file("psk-l", "vm:0g" KEY_1, 0600), TLS_CLIENT, -EINVAL, "line 1");
	load_badly(NULL, key_file("psk-m", ":" KEY_1, 0600), TLS_CLIENT, -EINVAL, "line 1");
}

/* ---- no TLS at all ---------------------------------------------------------------------- */

/* What a link makes of these bytes, of one that then hangs up, or stays. */
static void noise(const struct tls *tls, const void *data, size_t len, bool stay, const char *text)
{
	struct stream_error err = {0};
	struct stream_frame frame;
	struct link *l;
	int fd[2], ret = 0;

	CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd));
	CHECK(!link_open(&l, fd[0], 0, -1, tls));
	l->secured_by = clock_now() + 200000000;
	CHECK(write(fd[1], data, len) == (ssize_t)len);
	if (!stay)
		shutdown(fd[1], SHUT_WR);
	ret = link_receive(l, 5000, &frame, &err);
	if (!strstr(err.text, text) || ret >= 0)
		printf("noise of %zu bytes: %d %s\n", len, ret, err.text);
	CHECK(ret < 0 && strstr(err.text, text));
	/* It stays as it is. */
	CHECK(stream_write(&l->w, STREAM_ALIVE, 0, NULL, 0) < 0);
	CHECK(link_receive(l, 0, &frame, &err) < 0);
	link_close(l);
	close(fd[1]);
}

static void strangers(void)
{
	struct tls *server = load(NULL, key_file("psk-s", "vm:" KEY_1, 0600), NULL, TLS_SERVER);
	struct tls *client = load(NULL, key_file("psk-s", "vm:" KEY_1, 0600), NULL, TLS_CLIENT);
	struct stream_error err;
	struct tls_session *s = tls_session_new(client);
	uint8_t hello[4096], spoiled[4096];
	const uint8_t *records;
	unsigned seed = 1;
	size_t len;

	CHECK(s && !tls_session_greet(s, &err));
	records = tls_session_pending(s, &len);
	CHECK(len && len < sizeof(hello));
	memcpy(hello, records, len);
	tls_session_free(s);

	noise(server, "", 0, false, "hung up in the handshake");
	noise(server, "", 0, true, "takes too long");
	noise(server, hello, len, true, "takes too long");
	noise(server, "GET / HTTP/1.0\r\n\r\n", 18, true, "TLS");
	noise(server, "FRY", 3, false, "hung up in the handshake");
	noise(server, "FRY1", 4, false, "does not use TLS");
	for (size_t cut = 1; cut < len; cut += cut < 16 ? 1 : 37)
		noise(server, hello, cut, false, "hung up in the handshake");
	for (unsigned i = 0; i < 200; i++) {
		memcpy(spoiled, hello, len);
		for (unsigned n = 0; n <= i % 8; n++)
			spoiled[(unsigned)rand_r(&seed) % len] ^= (uint8_t)rand_r(&seed) | 1;
		noise(server, spoiled, len, false, "");
		noise(client, spoiled, len, false, "");
	}
	tls_free(server);
	tls_free(client);
}

/* Records that were changed on the way, or come twice. */
static void damage(void)
{
	const char *file = key_file("psk-s", "vm:" KEY_1, 0600);
	struct tls *tls[2] = {load(NULL, file, NULL, TLS_CLIENT),
			      load(NULL, file, NULL, TLS_SERVER)};

	for (int kind = 0; kind < 3; kind++) {
		struct tls_session *s[2] = {tls_session_new(tls[0]), tls_session_new(tls[1])};
		struct stream_error err = {0};
		uint8_t record[256], text[16];
		const uint8_t *records;
		ssize_t got = 0;
		size_t len, room;
		int done[2] = {0, 0};

		for (int i = 0; i < 20; i++) {
			const uint8_t *data;

			done[i % 2] = tls_session_greet(s[i % 2], &err);
			CHECK(done[i % 2] >= 0);
			data = tls_session_pending(s[i % 2], &len);
			memcpy(tls_session_space(s[!(i % 2)], &room), data, len);
			tls_session_came(s[!(i % 2)], len);
			tls_session_gone(s[i % 2], len);
			if (done[0] && done[1])
				break;
		}
		CHECK(done[0] && done[1]);
		CHECK(!tls_session_write(s[0], "hello", 5) && !tls_session_push(s[0]));
		records = tls_session_pending(s[0], &len);
		CHECK(len && len < sizeof(record));
		memcpy(record, records, len);
		for (int n = 0; n < 2 && got >= 0; n++) {
			if (kind == 1)
				record[len - 1] ^= 1;
			memcpy(tls_session_space(s[1], &room), record, len);
			tls_session_came(s[1], len);
			if (kind == 2)
				tls_session_bye(s[0]);
			got = tls_session_read(s[1], text, sizeof(text), &err);
			if (!n && kind != 1)
				CHECK(got == 5 && !memcmp(text, "hello", 5));
		}
		CHECK(got == -EBADMSG);
		tls_session_free(s[0]);
		tls_session_free(s[1]);
	}
	tls_free(tls[0]);
	tls_free(tls[1]);
}

/* ---- speed ------------------------------------------------------------------------------ */

enum { FRAMES = 100 };

static void *sink_main(void *arg)
{
	struct side *s = arg;
	struct stream_frame frame;

	for (unsigned i = 0; i <= FRAMES; i++)
		if (link_receive(s->link, -1, &frame, &s->err) <= 0)
			break;
	return NULL;
}

static void speed(const char *name, const struct tls *client, const struct tls *server)
{
	uint8_t *data = calloc(1, 1 << 20);
	struct side a = {0}, b = {0};
	struct stream_hello hello;
	uint64_t begun;
	clock_t work = clock();
	int fd[2];

	CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd));
	CHECK(!link_open(&a.link, fd[0], 0, -1, client) &&
	      !link_open(&b.link, fd[1], 0, -1, server));
	a.link->silence = UINT64_MAX;
	pthread_create(&b.thread, NULL, sink_main, &b);
	begun = clock_now();
	stream_hello_init(&hello);
	CHECK(!stream_hello_write(&a.link->w, &hello));
	for (unsigned i = 0; i < FRAMES; i++)
		CHECK(!stream_write_bytes(&a.link->w, STREAM_DEVICE, 0, data, 1 << 20));
	pthread_join(b.thread, NULL);
	CHECK(!b.err.text[0]);
	work = clock() - work;
	printf("%s: %.0f MiB/s, %.2f s of processors per GiB, both sides\n", name,
	       FRAMES / ((double)(clock_now() - begun) / 1e9),
	       (double)work / CLOCKS_PER_SEC * 1024 / FRAMES);
	link_close(a.link);
	link_close(b.link);
	free(data);
}

static void measure(void)
{
	const char *file = key_file("psk-s", "vm:" KEY_1, 0600);
	struct tls *client = load(NULL, file, NULL, TLS_CLIENT);
	struct tls *server = load(NULL, file, NULL, TLS_SERVER);

	for (int i = 0; i < 3; i++) {
		speed("plain", NULL, NULL);
		speed("TLS", client, server);
	}
	tls_free(client);
	tls_free(server);
}

int main(int argc, char **argv)
{
	char remove[300];

	CHECK(mkdtemp(base));
	if (argc > 1 && !strcmp(argv[1], "speed")) {
		measure();
	} else {
		certificates();
		keys();
		strangers();
		damage();
	}
	snprintf(remove, sizeof(remove), "rm -r %s", base);
	return system(remove) != 0;
}
