#include "migration/stream_hello.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "migration/stream_items.h"

static const char *const capability_names[] = {"zstd",	"lanes",  "postcopy", "reconnect", "verify",
					       "index", "images", "ahead",    NULL};
static const char *const role_names[] = {"source", "destination", "file", NULL};
static const char *const lane_names[] = {"main", "pages", "demand", NULL};

void stream_hello_init(struct stream_hello *hello)
{
	*hello = (struct stream_hello){
		.version = STREAM_VERSION, .oldest = STREAM_VERSION_OLDEST, .page = STREAM_PAGE};
}

static int put_capabilities(struct field_buf *buf, const struct stream_hello *h)
{
	int ret = 0;

	for (unsigned i = 0; capability_names[i] && !ret; i++) {
		if ((h->offers | h->needs) >> i & 1)
			ret = stream_item_put_text(buf, h->needs >> i & 1,
						   h->needs >> i & 1 ? "need" : "offer",
						   capability_names[i]);
	}
	return ret;
}

int stream_hello_write(struct stream_writer *w, const struct stream_hello *h)
{
	struct field_buf buf = {0};
	int ret = stream_item_put_number(&buf, true, "version", h->version);

	if (!ret)
		ret = stream_item_put_number(&buf, true, "oldest", h->oldest);
	if (!ret)
		ret = stream_item_put_text(&buf, true, "role", role_names[h->role]);
	if (!ret)
		ret = stream_item_put_text(&buf, true, "lane", lane_names[h->lane]);
	if (!ret)
		ret = stream_item_put(&buf, true, "session", h->session, sizeof(h->session));
	if (!ret)
		ret = stream_item_put_text(&buf, true, "arch", h->arch);
	if (!ret)
		ret = stream_item_put_number(&buf, true, "page", h->page);
	if (!ret && h->again)
		ret = stream_item_put(&buf, true, "again", "", 0);
	if (!ret)
		ret = stream_item_put_text(&buf, false, "ferry", h->ferry);
	if (!ret)
		ret = put_capabilities(&buf, h);
	if (!ret)
		ret = stream_write_bytes(w, STREAM_HELLO, 0, buf.data, buf.len);
	field_buf_free(&buf);
	return ret;
}

/* The index of the item's text in the words; -1: none of them. */
static int word_of(const struct stream_item *item, const char *const *words)
{
	for (int i = 0; words[i]; i++) {
		if (strlen(words[i]) == item->len && !memcmp(words[i], item->value, item->len))
			return i;
	}
	return -1;
}

static int read_word(const struct stream_frame *f, const struct stream_item *item,
		     const char *const *words, uint32_t *value, struct stream_error *err)
{
	int i = word_of(item, words);

	if (i < 0)
		return stream_fail(err, f, -ENOTSUP, "%s: not known here", item->name);
	*value = (uint32_t)i;
	return 0;
}

static int read_capability(const struct stream_frame *f, const struct stream_item *item,
			   struct stream_hello *h, struct stream_error *err)
{
	int i = word_of(item, capability_names);
	bool need = !strcmp(item->name, "need");
	char name[32];

	if (i >= 0) {
		h->offers |= 1u << i;
		h->needs |= need ? 1u << i : 0;
	} else if (need) {
		if (stream_item_text(f, item, name, sizeof(name), err))
			return -EBADMSG;
		for (char *c = name; *c; c++)
			*c = *c > 32 && *c < 127 ? *c : '?';
		return stream_fail(err, f, -ENOTSUP,
				   "the other side needs '%s', which this ferry does not know",
				   name);
	}
	return 0;
}

/* Bits of what was there. */
enum {
	HAS_VERSION = 1,
	HAS_OLDEST = 2,
	HAS_ROLE = 4,
	HAS_LANE = 8,
	HAS_SESSION = 16,
	HAS_ARCH = 32,
	HAS_PAGE = 64,
	HAS_ALL = 127,
	HAS_AGAIN = 128,
	HAS_FERRY = 256
};

static int once(const struct stream_frame *f, const struct stream_item *item, unsigned *has,
		unsigned bit, struct stream_error *err)
{
	if (*has & bit)
		return stream_fail(err, f, -EBADMSG, "%s: twice", item->name);
	*has |= bit;
	return 0;
}

static int read_item(const struct stream_frame *f, const struct stream_item *item,
		     struct stream_hello *h, unsigned *has, struct stream_error *err)
{
	static const struct {
		const char *name;
		unsigned bit;
	} known[] = {{"version", HAS_VERSION}, {"oldest", HAS_OLDEST},	 {"role", HAS_ROLE},
		     {"lane", HAS_LANE},       {"session", HAS_SESSION}, {"arch", HAS_ARCH},
		     {"page", HAS_PAGE},       {"again", HAS_AGAIN},	 {"ferry", HAS_FERRY}};
	unsigned bit = 0;
	uint64_t v = 0;
	int ret;

	if (!strcmp(item->name, "offer") || !strcmp(item->name, "need"))
		return read_capability(f, item, h, err);
	for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		bit |= strcmp(known[i].name, item->name) ? 0 : known[i].bit;
	if (!bit)
		return stream_item_unknown(f, item, err);
	ret = once(f, item, has, bit, err);
	if (!ret && bit & (HAS_VERSION | HAS_OLDEST | HAS_PAGE))
		ret = stream_item_number(f, item, UINT32_MAX, &v, err);
	if (ret)
		return ret;
	switch (bit) {
	case HAS_VERSION: h->version = (uint32_t)v; return 0;
	case HAS_OLDEST: h->oldest = (uint32_t)v; return 0;
	case HAS_PAGE: h->page = (uint32_t)v; return 0;
	case HAS_ROLE: return read_word(f, item, role_names, &h->role, err);
	case HAS_LANE: return read_word(f, item, lane_names, &h->lane, err);
	case HAS_ARCH: return stream_item_text(f, item, h->arch, sizeof(h->arch), err);
	case HAS_FERRY: return stream_item_text(f, item, h->ferry, sizeof(h->ferry), err);
	case HAS_AGAIN: h->again = true; return 0;
	default: break;
	}
	if (item->len != sizeof(h->session))
		return stream_fail(err, f, -EBADMSG, "session: not of 16 bytes");
	memcpy(h->session, item->value, sizeof(h->session));
	return 0;
}

int stream_hello_read(const struct stream_frame *f, struct stream_hello *h,
		      struct stream_error *err)
{
	struct stream_item item;
	unsigned has = 0;
	uint32_t at = 0;
	int ret;

	*h = (struct stream_hello){.channel = f->channel};
	if (f->type != STREAM_HELLO)
		return stream_fail(err, f, -EPROTO, "HELLO is expected here");
	while ((ret = stream_item_next(f, &at, &item, err)) > 0) {
		ret = read_item(f, &item, h, &has, err);
		if (ret)
			return ret;
	}
	if (ret)
		return ret;
	if ((has & HAS_ALL) != HAS_ALL || !h->version || h->oldest > h->version)
		return stream_fail(err, f, -EBADMSG, "it does not say what it must");
	if ((h->lane == STREAM_LANE_MAIN) != (h->channel == 0))
		return stream_fail(err, f, -EBADMSG, "channel 0 and no other is the main one");
	return 0;
}

static const char *who(const struct stream_hello *h)
{
	return h->ferry[0] ? h->ferry : "of an unknown version";
}

/* The first capability that `needs` has and `offers` lacks. */
static const char *missing(uint32_t needs, uint32_t offers)
{
	for (unsigned i = 0; capability_names[i]; i++) {
		if ((needs & ~offers) >> i & 1)
			return capability_names[i];
	}
	return NULL;
}

int stream_agree(const struct stream_hello *mine, const struct stream_hello *theirs,
		 struct stream_agreement *agreement, struct stream_error *err)
{
	static const uint8_t none[sizeof(mine->session)];
	const char *name;

	*agreement = (struct stream_agreement){
		.version = mine->version < theirs->version ? mine->version : theirs->version};
	if (agreement->version < mine->oldest || agreement->version < theirs->oldest)
		return stream_fail(err, NULL, -ENOTSUP,
				   "the other side (ferry %s) speaks the stream's versions %" PRIu32
				   " to %" PRIu32 ", this one %" PRIu32 " to %" PRIu32,
				   who(theirs), theirs->oldest, theirs->version, mine->oldest,
				   mine->version);
	if ((mine->role == STREAM_DESTINATION) == (theirs->role == STREAM_DESTINATION))
		return stream_fail(err, NULL, -EPROTO, "both sides are the %s",
				   mine->role == STREAM_DESTINATION ? "destination" : "source");
	if (mine->channel != theirs->channel || mine->lane != theirs->lane)
		return stream_fail(err, NULL, -EPROTO, "the connection is another one's");
	if (memcmp(mine->session, none, sizeof(none)) != 0 &&
	    memcmp(theirs->session, none, sizeof(none)) != 0 &&
	    memcmp(mine->session, theirs->session, sizeof(none)) != 0)
		return stream_fail(err, NULL, -EPROTO, "it belongs to another migration");
	if (strcmp(mine->arch, theirs->arch) != 0)
		return stream_fail(err, NULL, -ENOTSUP, "the guest is of %s here and of %s there",
				   mine->arch, theirs->arch);
	if (mine->page != theirs->page)
		return stream_fail(err, NULL, -ENOTSUP,
				   "pages of %" PRIu32 " bytes here and of %" PRIu32 " there",
				   mine->page, theirs->page);
	name = missing(theirs->needs, mine->offers | mine->needs);
	if (name)
		return stream_fail(err, NULL, -ENOTSUP,
				   "the other side (ferry %s) needs '%s', which this side does not "
				   "offer",
				   who(theirs), name);
	name = missing(mine->needs, theirs->offers | theirs->needs);
	if (name)
		return stream_fail(err, NULL, -ENOTSUP,
				   "this side needs '%s', which the other side (ferry %s) does not "
				   "offer",
				   name, who(theirs));
	agreement->can = (mine->offers | mine->needs) & (theirs->offers | theirs->needs);
	return 0;
}
