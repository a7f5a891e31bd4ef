#include "migration/arrive.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void arrival_init(struct arrival *a, const struct migration_sink_ops *sink, void *opaque)
{
	*a = (struct arrival){.sink = sink, .opaque = opaque};
}

void arrival_free(struct arrival *a)
{
	stream_blob_free(&a->image);
	stream_blob_free(&a->state);
	free(a->rounds);
	a->rounds = NULL;
}

int arrival_take_image(struct arrival *a, const struct stream_frame *f, struct stream_error *err)
{
	struct stream_piece piece;
	int ret;

	a->image.discard = true;
	ret = stream_blob_add(&a->image, f, ARRIVE_IMAGE_MAX, &piece, err);
	if (ret < 0)
		return ret;
	if (ret)
		stream_blob_free(&a->image);
	return a->sink->image(a->opaque, &piece, err);
}

static int image_whole(const struct arrival *a, const struct stream_frame *f,
		       struct stream_error *err)
{
	return a->image.name[0]
		       ? stream_fail(err, f, -EPROTO, "the image %s is not whole", a->image.name)
		       : 0;
}

static int on_memory(struct arrival *a, const struct stream_frame *f, struct stream_error *err)
{
	int ret = stream_memory_read(f, &a->memory, err) ?: image_whole(a, f, err);

	if (ret)
		return ret;
	a->step = a->late_images ? ARRIVE_LATE_IMAGES : ARRIVE_PAGES;
	return 1;
}

/* A frame that ends the images, if any have come. */
static int end_images(struct arrival *a, const struct stream_frame *f, struct stream_error *err)
{
	const int ret = a->step == ARRIVE_LATE_IMAGES ? image_whole(a, f, err) : 0;

	if (!ret && a->step == ARRIVE_LATE_IMAGES)
		a->step = ARRIVE_PAGES;
	return ret;
}

/* Only now: what a peer promises costs nothing before the machine, which is checked, stands. */
static int make_rounds(struct arrival *a, const struct stream_frame *f, struct stream_error *err)
{
	if (a->rounds)
		return 0;
	a->rounds = calloc(a->memory.pages, sizeof(*a->rounds));
	return a->rounds ? 0 : stream_fail(err, f, -ENOMEM, "no memory");
}

/* RECEIVED has said what is missing, and nothing else is taken any more: what the guest has here is
 * newer than whatever comes. */
static int bring_run(struct arrival *a, const struct stream_frame *f,
		     const struct stream_pages_run *run, uint64_t place, struct stream_error *err)
{
	if (a->sink->bring(a->opaque, run->first, run->count, run->data) < 0)
		return stream_fail(err, f, -ENOMEM, "the pages cannot be put into memory");
	for (uint32_t i = 0; i < run->count; i++) {
		a->received += !a->rounds[place + i];
		a->early += !a->rounds[place + i] && !a->live;
		a->rounds[place + i] = f->round + 1;
	}
	return 0;
}

static void take_page(struct arrival *a, uint64_t page, uint64_t place, const uint8_t *data,
		      uint32_t round)
{
	uint32_t *known = &a->rounds[place];

	if (*known > round + 1)
		return;
	/* Memory that nothing has been written to is zero, and stays unused. */
	if (data)
		memcpy(a->sink->page(a->opaque, page), data, STREAM_PAGE);
	a->received += !*known;
	*known = round + 1;
}

/* A run of zeroes. What had contents is cleared, as many at once as lie side by side. */
static void take_zeroes(struct arrival *a, uint64_t first, uint64_t place, uint32_t count,
			uint32_t round)
{
	uint32_t *known = &a->rounds[place], n;

	for (uint32_t i = 0; i < count; i += n ? n : 1) {
		for (n = 0; i + n < count && known[i + n] && known[i + n] <= round + 1; n++)
			known[i + n] = round + 1;
		if (n)
			a->sink->clear(a->opaque, first + i, n);
		else
			take_page(a, first + i, place + i, NULL, round);
	}
}

/* ---- what they must be ---- */

static int on_digests(struct arrival *a, const struct stream_frame *f, struct stream_error *err)
{
	struct stream_digests digests;
	int ret = stream_digests_read(f, &a->memory, &digests, err);

	if (ret)
		return ret;
	if (digests.kind == STREAM_DIGEST_STATE) {
		a->state_digest = stream_digest(&digests, 0);
		a->state_said = true;
		return 0;
	}
	if (digests.kind != STREAM_DIGEST_PAGES)
		return stream_fail(err, f, -EPROTO, "it may not come here");
	a->digests[f->channel].count = digests.count;
	for (uint32_t i = 0; i < digests.count; i++)
		a->digests[f->channel].value[i] = stream_digest(&digests, i);
	return 0;
}

/* Before anything of the frame is used. The runs are read from a copy of `pages`. */
static int check_digests(struct arrival *a, const struct stream_frame *f, struct stream_pages pages,
			 struct stream_error *err)
{
	struct arrival_digests *d = &a->digests[f->channel];
	struct stream_pages_run run;
	uint32_t at = 0;

	if (d->count != pages.contents)
		return stream_fail(err, f, -EPROTO, "it was not said what its pages must be");
	d->count = 0;
	while (stream_pages_next(&pages, &run)) {
		for (uint32_t i = 0; run.data && i < run.count; i++, at++)
			if (stream_digest_of(run.data + (size_t)i * STREAM_PAGE, STREAM_PAGE) !=
			    d->value[at])
				return stream_fail(err, f, -EBADMSG,
						   "page 0x%" PRIx64 " is not what was sent",
						   run.first + i);
	}
	return 0;
}

/* All of the state is here, and some page is missing: the sink knows of those. */
static bool may_come_ahead(const struct arrival *a)
{
	return a->ahead && a->missed && a->state.whole;
}

static int on_pages(struct arrival *a, const struct stream_frame *f, struct stream_error *err)
{
	struct stream_pages pages;
	struct stream_pages_run run;
	struct arrival_channel *c = &a->channel[f->channel];
	const bool bring = a->live || a->split;
	int ret = make_rounds(a, f, err);

	if (!ret)
		ret = stream_pages_read(f, &a->memory, &pages, err);
	if (ret)
		return ret;
	if (a->verify)
		ret = check_digests(a, f, pages, err);
	if (ret)
		return ret;
	if (a->split && !a->live && !may_come_ahead(a))
		return stream_fail(err, f, -EPROTO, "pages between RECEIVED and RUN");
	if (f->round < c->round || f->round == UINT32_MAX)
		return stream_fail(err, f, -EPROTO, "round %" PRIu32 " after round %" PRIu32,
				   f->round, c->round);
	if (bring && f->round <= a->split_round)
		return stream_fail(err, f, -EPROTO, "pages from before the guest was stopped");
	c->in_round = f->round == c->round ? c->in_round + pages.total : pages.total;
	c->round = f->round;
	a->contents += pages.contents;
	a->zero += pages.total - pages.contents;
	while (stream_pages_next(&pages, &run)) {
		uint64_t place = stream_memory_index(&a->memory, run.first);

		if (bring && (ret = bring_run(a, f, &run, place, err)))
			return ret;
		if (!bring && !run.data)
			take_zeroes(a, run.first, place, run.count, f->round);
		for (uint32_t i = 0; i < run.count && !bring && run.data; i++)
			take_page(a, run.first + i, place + i, run.data + (size_t)i * STREAM_PAGE,
				  f->round);
	}
	return 0;
}

static int on_round(struct arrival *a, const struct stream_frame *f, struct stream_error *err)
{
	const struct arrival_channel *c = &a->channel[f->channel];
	struct stream_round round;
	uint64_t sent = f->round == c->round ? c->in_round : 0;
	int ret = stream_control_read(f, &round, sizeof(round), err);

	if (ret)
		return ret;
	if (f->round < c->round)
		return stream_fail(err, f, -EPROTO, "round %" PRIu32 " after round %" PRIu32,
				   f->round, c->round);
	if (round.ends && round.pages != sent)
		return stream_fail(err, f, -EPROTO,
				   "round %" PRIu32 " ends with %" PRIu64 " pages, %" PRIu64
				   " have come",
				   f->round, round.pages, sent);
	if (round.ends && !f->channel)
		a->rounds_taken = f->round;
	return 0;
}

/* ---- post-copy: which pages come later ---- */

/* Of one call of the sink's: it is done on another thread, and waits for vCPUs, while the guest
 * stands still. */
enum { MISS_PAGES = 65536 };

/* Of the `count` pages from `page` on, in one region, those whose bits are clear, from `bit` on. */
static int miss_region(struct arrival *a, const struct stream_received *r, uint32_t bit,
		       uint64_t page, uint32_t count, struct stream_error *err)
{
	uint64_t missing[MISS_PAGES / 64];

	for (uint32_t done = 0; done < count;) {
		const uint32_t n = count - done < MISS_PAGES ? count - done : MISS_PAGES;
		bool any = false;

		memset(missing, 0, sizeof(missing));
		for (uint32_t i = 0; i < n; i++) {
			const uint32_t at = bit + done + i;
			uint32_t *known = &a->rounds[r->first + at];

			if (r->bits[at / 8] >> (at % 8) & 1) {
				if (!*known)
					return stream_fail(err, NULL, -EPROTO,
							   "page 0x%" PRIx64 " has not come",
							   page + done + i);
				continue;
			}
			any = true;
			missing[i / 64] |= 1ull << (i % 64);
			a->received -= !!*known;
			*known = 0;
		}
		if (any) {
			int ret = a->sink->miss(a->opaque, page + done, n, missing, err);

			if (ret)
				return ret;
			a->missed = true;
		}
		done += n;
	}
	return 0;
}

static int on_received(struct arrival *a, const struct stream_frame *f, struct stream_error *err)
{
	struct stream_received r;
	int ret = make_rounds(a, f, err);
	uint64_t place = 0;

	if (!ret)
		ret = stream_received_read(f, &a->memory, &r, err);
	if (ret)
		return ret;
	if (!a->postcopy || a->live || !a->sink->miss || a->state.whole)
		return stream_fail(err, f, -EPROTO, "it may not come here");
	a->split = true;
	a->split_round = a->channel[0].round;
	for (uint32_t i = 0; i < a->memory.count && !ret; i++) {
		const struct stream_region *region = &a->memory.region[i];
		const uint64_t from = place > r.first ? place : r.first;
		const uint64_t region_end = place + region->count, frame_end = r.first + r.count;
		const uint64_t to = region_end < frame_end ? region_end : frame_end;

		if (from < to)
			ret = miss_region(a, &r, (uint32_t)(from - r.first),
					  region->first + (from - place), (uint32_t)(to - from),
					  err);
		place = region_end;
	}
	return ret;
}

void arrival_cut(struct arrival *a, unsigned channel)
{
	/* Its digests came, and not their pages. */
	a->digests[channel].count = 0;
	a->channel[channel].in_round = 0;
}

uint32_t arrival_bitmap(const struct arrival *a, uint64_t first, uint32_t count, uint8_t *bits)
{
	const uint64_t left = a->memory.pages - first;

	if (count > left)
		count = (uint32_t)left;
	memset(bits, 0, (count + 7) / 8);
	for (uint32_t i = 0; i < count; i++)
		bits[i / 8] |= (uint8_t)(!!a->rounds[first + i] << (i % 8));
	return count;
}

static int on_device(struct arrival *a, const struct stream_frame *f, struct stream_error *err)
{
	int ret;

	/* In post-copy the first one is being loaded. */
	if (a->state.whole && a->split)
		return stream_fail(err, f, -EPROTO, "the state has come already");
	/* A second attempt to stop the guest brings the state again. */
	if (a->state.whole)
		stream_blob_free(&a->state);
	ret = stream_blob_take(&a->state, f, ARRIVE_STATE_MAX, err);
	if (ret > 0 && a->verify &&
	    (!a->state_said ||
	     stream_digest_of(a->state.bytes.data, a->state.bytes.len) != a->state_digest))
		return stream_fail(err, f, -EBADMSG, "the device state is not what was sent");
	return ret > 0 ? 0 : ret;
}

int arrival_take(struct arrival *a, const struct stream_frame *f, struct stream_error *err)
{
	int ret;

	if (f->channel >= ARRIVE_CHANNELS)
		return stream_fail(err, f, -EPROTO, "it is of another channel");
	switch (f->type) {
	case STREAM_DESCRIPTION:
		if (a->step != ARRIVE_DESCRIPTION)
			break;
		ret = a->sink->description(a->opaque, f, err);
		a->step = ARRIVE_IMAGES;
		if (!ret && a->late_images && a->sink->seek)
			a->sink->seek(a->opaque);
		return ret;
	case STREAM_IMAGE:
		if (a->step != (a->late_images ? ARRIVE_LATE_IMAGES : ARRIVE_IMAGES))
			break;
		return arrival_take_image(a, f, err);
	case STREAM_MEMORY:
		if (a->step != ARRIVE_IMAGES)
			break;
		return on_memory(a, f, err);
	case STREAM_ROUND:
		ret = end_images(a, f, err);
		if (ret)
			return ret;
		if (a->step != ARRIVE_PAGES)
			break;
		return on_round(a, f, err);
	case STREAM_PAGES:
		if (a->step != ARRIVE_PAGES)
			break;
		return on_pages(a, f, err);
	case STREAM_DIGESTS:
		if (a->step != ARRIVE_PAGES || !a->verify)
			break;
		return on_digests(a, f, err);
	case STREAM_RECEIVED:
		if (a->step != ARRIVE_PAGES)
			break;
		return on_received(a, f, err);
	case STREAM_DEVICE:
		if (a->step != ARRIVE_PAGES)
			break;
		return on_device(a, f, err);
	case STREAM_STATISTICS:
	case STREAM_ALIVE:
	case STREAM_INDEX:
	case STREAM_DIRECTORY: return 0;
	default: return stream_type_info(f->type)->name ? -EAGAIN : 0;
	}
	return stream_fail(err, f, -EPROTO, "it may not come here");
}

int arrival_complete(const struct arrival *a, struct stream_error *err)
{
	if (a->step != ARRIVE_PAGES || (a->received != a->memory.pages && !a->split))
		return stream_fail(err, NULL, -EPROTO,
				   "%" PRIu64 " of %" PRIu64 " pages have not come",
				   a->memory.pages - a->received, a->memory.pages);
	if (!a->state.whole)
		return stream_fail(err, NULL, -EPROTO, "there is no device state");
	return 0;
}
