/* A guest that runs elsewhere lacks pages, and nobody there can be reached: the pages go into a
 * file, and with it to whoever can carry it there. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "migration/save.h"
#include "migration/source_internal.h"
#include "migration/stream_index.h"

/* The session and the ticket are random numbers that only the two of them have: another machine
 * does not take it. */
static int write_head(struct source *s, struct stream_writer *w)
{
	struct stream_hello hello = s->hello;
	struct stream_resume resume = {.stage = STREAM_STAGE_RUNNING, .ticket = s->ticket};
	int ret;

	hello.role = STREAM_FILE;
	hello.again = true;
	hello.offers = 0;
	ret = stream_hello_write(w, &hello);
	return ret ? ret : stream_control_write(w, STREAM_RESUME, s->round, &resume);
}

static int write_pages(struct source *s, struct stream_batch *batch, struct stream_end *end)
{
	const struct stream_memory *memory = &s->m->memory;
	const uint64_t *bits = s->unsure;
	int ret = 0;

	for (uint32_t r = 0; r < memory->count && !ret; r++) {
		const struct stream_region *region = &memory->region[r];

		for (uint64_t i = 0; i < region->count && ret >= 0; i++) {
			const uint64_t page = region->first + i;

			if (!(bits[i / 64] >> (i % 64) & 1))
				continue;
			ret = stream_batch_add(batch, page, s->m->ops->page(s->m->opaque, page),
					       false);
			end->zero += ret == 1;
			end->pages += ret == 0;
		}
		bits += source_region_words(region->count);
		ret = ret > 0 ? 0 : ret;
	}
	return ret ? ret : stream_batch_flush(batch);
}

int source_spool(struct source *s, int fd, struct stream_error *err)
{
	/* Behind all that may have come. */
	const uint32_t number = s->serve_round + 1;
	struct stream_round round = {.phase = STREAM_POSTCOPY};
	struct stream_end end = {0};
	struct stream_batch *batch;
	struct stream_writer w;
	int ret;

	stream_writer_init(&w, 0, migration_file_put, &fd);
	batch = stream_batch_new(&w, 0);
	if (batch)
		stream_batch_verify(batch, s->params.verify);
	ret = batch ? stream_batch_round(batch, number) : -ENOMEM;
	if (!ret)
		ret = write_head(s, &w);
	if (!ret)
		ret = stream_control_write(&w, STREAM_ROUND, number, &round);
	if (!ret)
		ret = write_pages(s, batch, &end);
	round.ends = true;
	round.pages = end.pages + end.zero;
	if (!ret)
		ret = stream_control_write(&w, STREAM_ROUND, number, &round);
	if (!ret)
		ret = stream_end_write(&w, &end);
	if (!ret && fsync(fd) && errno != EINVAL && errno != EROFS)
		ret = -errno;
	stream_batch_free(batch);
	stream_writer_free(&w);
	return ret ? stream_fail(err, NULL, ret, "%s", strerror(-ret)) : 0;
}
