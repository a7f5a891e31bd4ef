#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "migration/stream.h"

enum { SMALL = STREAM_SMALL_MAX, BULK = STREAM_PAYLOAD_MAX };

static const struct stream_type_info types[STREAM_TYPES] = {
	[STREAM_HELLO] = {"HELLO", SMALL, true, false, 3},
	[STREAM_DESCRIPTION] = {"DESCRIPTION", BULK, true, false, 1},
	[STREAM_IMAGE] = {"IMAGE", BULK, true, true, 1},
	[STREAM_MEMORY] = {"MEMORY", SMALL, true, false, 1},
	[STREAM_ACCEPT] = {"ACCEPT", SMALL, true, false, 2},
	[STREAM_ROUND] = {"ROUND", SMALL, true, false, 1},
	[STREAM_PAGES] = {"PAGES", BULK, true, true, 1},
	[STREAM_DIGESTS] = {"DIGESTS", SMALL, true, false, 1},
	[STREAM_DEVICE] = {"DEVICE", BULK, true, true, 1},
	[STREAM_READY] = {"READY", SMALL, true, false, 2},
	[STREAM_RUN] = {"RUN", SMALL, true, false, 1},
	[STREAM_ACK] = {"ACK", SMALL, true, false, 2},
	[STREAM_REQUEST] = {"REQUEST", SMALL, true, false, 2},
	[STREAM_RESUME] = {"RESUME", SMALL, true, false, 3},
	[STREAM_RECEIVED] = {"RECEIVED", SMALL, true, false, 3},
	[STREAM_STATISTICS] = {"STATISTICS", SMALL, false, false, 3},
	[STREAM_ALIVE] = {"ALIVE", 0, false, false, 3},
	[STREAM_CANCEL] = {"CANCEL", SMALL, true, false, 1},
	[STREAM_FAILURE] = {"FAILURE", SMALL, true, false, 3},
	[STREAM_INDEX] = {"INDEX", SMALL, true, false, 1},
	[STREAM_DIRECTORY] = {"DIRECTORY", BULK, true, false, 1},
	[STREAM_END] = {"END", 64, true, false, 1},
};

const struct stream_type_info *stream_type_info(unsigned type)
{
	static const struct stream_type_info unknown = {NULL, BULK, false, true, 3};

	return type < STREAM_TYPES && types[type].name ? &types[type] : &unknown;
}

int stream_fail(struct stream_error *err, const struct stream_frame *frame, int code,
		const char *fmt, ...)
{
	const char *name = frame ? stream_type_info(frame->type)->name : NULL;
	int n = 0;
	va_list ap;

	if (!err)
		return code;
	err->frame = frame ? frame->number : 0;
	err->offset = frame ? frame->offset : 0;
	if (frame)
		n = snprintf(err->text, sizeof(err->text),
			     "frame %" PRIu64 "%s%s%s at byte %" PRIu64 ": ", frame->number,
			     name ? " (" : "", name ? name : "", name ? ")" : "", frame->offset);
	va_start(ap, fmt);
	vsnprintf(err->text + n, sizeof(err->text) - (size_t)n, fmt, ap);
	va_end(ap);
	return code;
}
