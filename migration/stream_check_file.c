/* What only a file has, and its end: whether the index tells the truth, and no page is missing. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "migration/stream_check_internal.h"

int stream_check_index(struct stream_check *c, const struct stream_frame *f,
		       struct stream_error *err)
{
	const struct stream_memory *m = &c->sum.memory;
	struct stream_entry *more;
	struct stream_index index;

	if (stream_index_read(f, &index, err))
		return -EBADMSG;
	if (!stream_memory_has(m, index.first, index.count) ||
	    c->index_count == STREAM_DIRECTORY_MAX)
		return stream_fail(err, f, -EBADMSG, "pages that are not in memory");
	for (uint32_t i = 0; c->ledger && i < index.count; i++) {
		uint64_t offset = stream_index_offset(&index, i);
		uint64_t newest = c->ledger[stream_memory_index(m, index.first) + i];

		if (offset != (newest == LEDGER_ZERO ? 0 : newest))
			return stream_fail(err, f, -EBADMSG,
					   "page 0x%" PRIx64 ": the newest contents are elsewhere",
					   index.first + i);
	}
	more = realloc(c->index, (c->index_count + 1) * sizeof(*more));
	if (!more)
		return stream_fail(err, f, -ENOMEM, "no memory");
	c->index = more;
	more[c->index_count++] = (struct stream_entry){index.first, index.count, f->offset};
	return 0;
}

int stream_check_directory(struct stream_check *c, const struct stream_frame *f,
			   struct stream_error *err)
{
	struct stream_directory directory = {0};
	int ret = c->directory ? stream_check_unexpected(f, err)
			       : stream_directory_read(f, &directory, err);
	bool same = directory.count == c->index_count;

	if (ret)
		return ret;
	for (uint32_t i = 0; same && i < c->index_count; i++) {
		struct stream_entry e = stream_directory_entry(&directory, i);

		same = !memcmp(&e, &c->index[i], sizeof(e));
	}
	c->directory = f->offset;
	return same ? 0 : stream_fail(err, f, -EBADMSG, "it is not that of the INDEX frames");
}

int stream_check_end(struct stream_check *c, const struct stream_frame *f, struct stream_error *err)
{
	const struct stream_summary *s = &c->sum;
	struct stream_end end;

	if (stream_end_read(f, &end, err))
		return -EBADMSG;
	if (end.frames != f->number || end.bytes != f->offset || end.pages != s->contents ||
	    end.zero != s->zero || end.directory != c->directory)
		return stream_fail(err, f, -EBADMSG, "it does not say what has come");
	if (c->image.name[0] || (c->state.name[0] && !c->state.whole))
		return stream_fail(err, f, -EPROTO,
				   "a boot image or the device state is not whole");
	c->step = AT_END;
	c->sum.ended = true;
	for (uint64_t i = 0; c->ledger && i < s->memory.pages; i++)
		c->sum.missing += c->ledger[i] == LEDGER_NEVER;
	c->sum.counted = c->ledger;
	return 0;
}
