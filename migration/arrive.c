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

static int on_image(struct arrival *a, const struct stream_frame *f, struct stream_error *err)
{
	int ret = stream_blob_take(&a->image, f, ARRIVE_IMAGE_MAX, err);

	if (ret <= 0)
		return ret;
	ret = a->sink->image(a->opaque, a->image.name, a->image.bytes.data, a->image.bytes.len,
			     err);
	stream_blob_free(&a->image);
	return ret;
}

static int on_memory(struct arrival *a, const struct stream_frame *f, struct stream_error *err)
{
	int ret = stream_memory_read(f, &a->memory, err);

	if (ret)
		return ret;
	if (a->image.name[0])
		return stream_fail(err, f, -EPROTO, "the image %s is not whole", a->image.name);
	a->step = ARRIVE_PAGES;
	return 1;
}

/* Only now: what a peer promises costs nothing before the machine, which is checked, stands. */
static int make_rounds(struct arrival *a, const struct stream_frame *f, struct stream_error *err)
{
	if (a->rounds)
		return 0;
	a->rounds = calloc(a->memory.pages, sizeof(*a->rounds));
	return a->rounds ? 0 : stream_fail(err, f, -ENOMEM, "no memory");
}

static void take_page(struct arrival *a, uint64_t page, uint64_t place, const uint8_t *data,
		      uint32_t round)
{
	uint32_t *known = &a->rounds[place];
	uint8_t *to;

	if (*known > round + 1)
		return;
	to = a->sink->page(a->opaque, page);
	/* Memory that nothing has been written to is zero, and stays unused. */
	if (data)
		memcpy(to, data, STREAM_PAGE);
	else if (*known)
		memset(to, 0, STREAM_PAGE);
	a->received += !*known;
	*known = round + 1;
}

static int on_pages(struct arrival *a, const struct stream_frame *f, struct stream_error *err)
{
	struct stream_pages pages;
	struct stream_pages_run run;
	int ret = make_rounds(a, f, err);

	if (!ret)
		ret = stream_pages_read(f, &a->memory, &pages, err);
	if (ret)
		return ret;
	if (f->round < a->round || f->round == UINT32_MAX)
		return stream_fail(err, f, -EPROTO, "round %" PRIu32 " after round %" PRIu32,
				   f->round, a->round);
	a->in_round = f->round == a->round ? a->in_round + pages.total : pages.total;
	a->round = f->round;
	a->contents += pages.contents;
	a->zero += pages.total - pages.contents;
	while (stream_pages_next(&pages, &run)) {
		uint64_t place = stream_memory_index(&a->memory, run.first);

		for (uint32_t i = 0; i < run.count; i++)
			take_page(a, run.first + i, place + i,
				  run.data ? run.data + (size_t)i * STREAM_PAGE : NULL, f->round);
	}
	return 0;
}

static int on_round(struct arrival *a, const struct stream_frame *f, struct stream_error *err)
{
	struct stream_round round;
	uint64_t sent = f->round == a->round ? a->in_round : 0;
	int ret = stream_control_read(f, &round, sizeof(round), err);

	if (ret)
		return ret;
	if (f->round < a->round)
		return stream_fail(err, f, -EPROTO, "round %" PRIu32 " after round %" PRIu32,
				   f->round, a->round);
	if (round.ends && round.pages != sent)
		return stream_fail(err, f, -EPROTO,
				   "round %" PRIu32 " ends with %" PRIu64 " pages, %" PRIu64
				   " have come",
				   f->round, round.pages, sent);
	return 0;
}

static int on_device(struct arrival *a, const struct stream_frame *f, struct stream_error *err)
{
	int ret;

	/* A second attempt to stop the guest brings the state again. */
	if (a->state.whole)
		stream_blob_free(&a->state);
	ret = stream_blob_take(&a->state, f, ARRIVE_STATE_MAX, err);
	return ret > 0 ? 0 : ret;
}

int arrival_take(struct arrival *a, const struct stream_frame *f, struct stream_error *err)
{
	int ret;

	switch (f->type) {
	case STREAM_DESCRIPTION:
		if (a->step != ARRIVE_DESCRIPTION)
			break;
		ret = a->sink->description(a->opaque, f, err);
		a->step = ARRIVE_IMAGES;
		return ret;
	case STREAM_IMAGE:
		if (a->step != ARRIVE_IMAGES)
			break;
		return on_image(a, f, err);
	case STREAM_MEMORY:
		if (a->step != ARRIVE_IMAGES)
			break;
		return on_memory(a, f, err);
	case STREAM_ROUND:
		if (a->step != ARRIVE_PAGES)
			break;
		return on_round(a, f, err);
	case STREAM_PAGES:
		if (a->step != ARRIVE_PAGES)
			break;
		return on_pages(a, f, err);
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
	if (a->step != ARRIVE_PAGES || a->received != a->memory.pages)
		return stream_fail(err, NULL, -EPROTO,
				   "%" PRIu64 " of %" PRIu64 " pages have not come",
				   a->memory.pages - a->received, a->memory.pages);
	if (!a->state.whole)
		return stream_fail(err, NULL, -EPROTO, "there is no device state");
	return 0;
}
