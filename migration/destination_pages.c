/* Post-copy as the destination sees it: the guest runs here, and lacks pages that the source has.
 */
#include <errno.h>
#include <stdlib.h>

#include "migration/clock.h"
#include "migration/destination_internal.h"
#include "migration/stream_items.h"

static void time_demand(struct destination *d, uint64_t page)
{
	for (uint32_t i = 0; i < d->demands; i++)
		if (d->demand[i].page == page)
			return;
	if (d->demands < DESTINATION_DEMANDS)
		d->demand[d->demands++] = (struct destination_demand){page, clock_now()};
}

/* Those that have come. A link that was dead in between counts: somebody has waited. */
static void time_answers(struct destination *d)
{
	const struct arrival *a = &d->arrival;
	const uint64_t now = clock_now();
	uint32_t kept = 0;

	for (uint32_t i = 0; i < d->demands; i++) {
		const struct destination_demand *demand = &d->demand[i];
		const uint64_t took = now - demand->since;

		if (!a->rounds[stream_memory_index(&a->memory, demand->page)]) {
			d->demand[kept++] = *demand;
			continue;
		}
		d->answered++;
		d->answered_sum += took;
		d->answered_max = took > d->answered_max ? took : d->answered_max;
	}
	d->demands = kept;
}

static int say_items(struct destination *d, int ret, struct field_buf *buf)
{
	if (!ret)
		ret = stream_write_bytes(&d->link->w, STREAM_STATISTICS, 0, buf->data, buf->len);
	field_buf_free(buf);
	return ret;
}

int destination_say_numbers(struct destination *d)
{
	struct field_buf buf = {0};
	int ret;

	if (!d->link || !d->answered)
		return 0;
	ret = stream_item_put_number(&buf, false, "demand.mean-ns", d->answered_sum / d->answered);
	if (!ret)
		ret = stream_item_put_number(&buf, false, "demand.max-ns", d->answered_max);
	return say_items(d, ret, &buf);
}

int destination_say_rounds(struct destination *d)
{
	struct field_buf buf = {0};

	return say_items(d, stream_item_put_number(&buf, false, "rounds", d->arrival.rounds_taken),
			 &buf);
}

void destination_may_ask(struct destination *d, bool may)
{
	const struct arrival *a = &d->arrival;

	d->asking = may;
	if (!a->missed)
		return;
	if (may)
		destination_bell_add(d, a->sink->wanted_fd(a->opaque));
	else
		destination_bell_remove(d, a->sink->wanted_fd(a->opaque));
}

int destination_ask(struct destination *d)
{
	const struct migration_sink_ops *sink = d->arrival.sink;
	struct stream_request requests[STREAM_REQUESTS_MAX];
	unsigned count;

	if (!d->link || !d->asking)
		return 0;
	do {
		uint64_t page;

		for (count = 0; count < STREAM_REQUESTS_MAX; count++) {
			if (!sink->wanted(d->arrival.opaque, &page))
				break;
			time_demand(d, page);
			requests[count] = (struct stream_request){
				.first = page, .count = 1, .flags = STREAM_REQUEST_WAITING};
		}
		if (count) {
			struct link *link = d->lane ? d->lane : d->link;
			int ret = stream_request_write(&link->w, requests, count);

			if (ret)
				return ret;
		}
	} while (count == STREAM_REQUESTS_MAX);
	return 0;
}

int destination_say_received(struct destination *d)
{
	const struct arrival *a = &d->arrival;
	uint8_t *bits = malloc(STREAM_RECEIVED_MAX / 8);
	int ret = bits ? 0 : -ENOMEM;

	for (uint64_t first = 0; first < a->memory.pages && !ret;) {
		struct stream_received r = {.first = first, .bits = bits};

		r.count = arrival_bitmap(a, first, STREAM_RECEIVED_MAX, bits);
		first += r.count;
		r.last = first == a->memory.pages;
		ret = stream_received_write(&d->link->w, &r);
	}
	free(bits);
	if (ret)
		return ret;
	a->sink->want_again(a->opaque);
	destination_may_ask(d, true);
	return 0;
}

int destination_take_page(struct destination *d, const struct stream_frame *frame,
			  struct stream_error *err)
{
	struct arrival *a = &d->arrival;
	int ret = arrival_take(a, frame, err);

	if (!ret)
		time_answers(d);
	return ret;
}
