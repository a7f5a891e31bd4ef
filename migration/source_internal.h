/* What the files of the side that a guest leaves share; all on its own thread, but
 * for what the lane's thread calls. */
#ifndef MIGRATION_SOURCE_INTERNAL_H
#define MIGRATION_SOURCE_INTERNAL_H

#include "migration/source.h"

/* ---- source_control.c ---- */
/* -EPROTO: not in this state; -ECANCELED: it was called off before RUN. */
int source_step(struct source *s, enum migration_event event);
void source_phase(struct source *s, const char *phase);
/* The link is dead; why is for people. */
void source_paused(struct source *s, const char *why);
/* What was asked for meanwhile. */
bool source_forced(struct source *s);
bool source_abandoned(struct source *s);

/* ---- source_link.c ---- */
/* The first connection, or another of the same migration; wake_fd: called off, or abandoned. 0 or
 * -errno with a text: there is none. */
int source_connect(struct source *s, bool again, int wake_fd, struct stream_error *err);
void source_drop_link(struct source *s);
/* Bytes on the wire, over all connections that there were. */
uint64_t source_sent(const struct source *s);
/* A new connection, with RESUME at that stage. Cannot be called off, but abandoned. On failure
 * there is none. */
int source_ask_again(struct source *s, enum stream_stage stage, struct stream_error *err);
/* HELLO in both directions, on a new connection. 1: `other` came instead of theirs. */
int source_greet(struct link *link, const struct stream_hello *hello,
		 struct stream_agreement *agreement, struct stream_frame *other,
		 struct stream_error *err);
/* Asked for, or enough time for another attempt; *delay grows. */
void source_wait_retry(struct source *s, uint64_t *delay);
/* A call of the machine's that may take long: the other side hears that we live. */
int source_busy(struct source *s, int (*op)(void *opaque, struct stream_error *err),
		struct stream_error *err);
/* What the other side says before RUN, for at most so long: 0: nothing that matters. The second is
 * for while we speak: without waiting. */
int source_hear(struct source *s, int timeout_ms, struct stream_error *err);
int source_listen(struct source *s, struct stream_error *err);
/* Sending came to ret, which is not 0: who has hung up may have said why. -errno with a text. */
int source_unsent(struct source *s, int ret, struct stream_error *err);
/* STATISTICS; 0, or -errno with a text: it is damaged. */
int source_numbers(struct source *s, const struct stream_frame *frame, struct stream_error *err);
/* FAILURE: what it says, as -ECONNREFUSED with a text; other errors: it is damaged. Nothing is
 * decided by that. */
int source_read_failure(const struct stream_frame *frame, struct stream_failure *failure,
			struct stream_error *err);
/* A frame that was not asked for, before RUN: FAILURE, which ends the migration, or an error. */
int source_said(struct source *s, const struct stream_frame *frame, struct stream_error *err);

/* ---- source_handover.c ---- */
int source_wait_ready(struct source *s, struct stream_error *err);
/* From its first byte on nobody here knows where the guest is. -ECANCELED: it was called off, there
 * is no such byte. */
int source_say_run(struct source *s);
/* RUN was written: until it is known where the guest is. It cannot be called off any more. */
void source_resolve(struct source *s);
/* The guest is theirs and we know it. */
void source_say_end(struct source *s);
/* The guest is ours: the destination need not wait for it. If the connection is gone, so many new
 * ones are tried. Whether it was said. */
bool source_say_cancel(struct source *s, const char *why, unsigned tries);

/* ---- source_policy.c ---- */
/* Bytes per second of late, at least 1; of the connection that there is. */
uint64_t source_rate(struct source *s);
/* ns that the guest would stand still for so many pages. */
uint64_t source_expect_downtime(struct source *s, uint64_t pages);
void source_show(struct source *s, uint64_t remaining, uint64_t pages, uint64_t zero);
/* The same while there are no pages yet. */
void source_show_sent(struct source *s);
/* The guest goes now, whatever is left. */
bool source_switch_now(struct source *s);
/* The time-out, for whoever waits for the link while pages are copied. */
void source_limit_copy(struct source *s);
/* In a round: the same, if nothing is gained by waiting for the round's end. */
int source_look_at_time(struct source *s, struct stream_error *err);
/* After each round that has left too much: goes on (0), with processors throttled perhaps;
 * *postcopy: goes at once; -ETIME. */
int source_decide(struct source *s, bool *postcopy, struct stream_error *err);
void source_throttle_off(struct source *s);

/* ---- source_rounds.c ---- */
/* Description, then rounds until what is left fits into the downtime, then the last one and the
 * device state, with the guest stopped. */
int source_copy(struct source *s, struct stream_error *err);

/* ---- source_pages.c: post-copy ---- */
/* Says which pages the destination has; the others come after the guest. */
int source_say_received(struct source *s, struct stream_error *err);
/* The guest stands still, and the destination loads its state: some of the pages that will be
 * missing there, if RUN need not wait for them. 1; 0: none, for now; -errno with a text. */
int source_send_ahead(struct source *s, struct stream_error *err);
/* The connection was lost, and the guest runs nowhere: some of these may be lost, too. */
void source_forget_ahead(struct source *s);
/* A frame from the other side, or some pages to it; -errno with a text: this connection is of no
 * use any more. */
int source_turn(struct source *s, struct stream_error *err);
/* REQUEST: sends what is still here of it; in doubt it tells that the guest runs there. Any thread,
 * with a batch of its own; `serving`. */
int source_answer(struct source *s, struct stream_batch *batch, const struct stream_frame *frame,
		  struct stream_error *err);

/* ---- source_serve.c ---- */
/* The guest runs there: until nothing is missing there, all of that is in a file, or we are
 * abandoned. */
void source_serve(struct source *s);

/* ---- source_lane.c ---- */
/* Opens the lane, if both sides want one; without it all goes over the main connection. */
void source_lane_begin(struct source *s);
/* Until it is up or refused, at most so long. */
void source_lane_wait(struct source *s, int timeout_ms);
/* It was up and is no more: what was sent on it may be lost. */
bool source_lane_lost(struct source *s);
/* Why, for people. */
void source_lane_why(struct source *s, char *why, size_t size);
void source_lane_end(struct source *s);

/* ---- source.c ---- */
/* Of the bitmap: each region begins with a word of its own. */
uint64_t source_words(const struct source *s);
static inline uint64_t source_region_words(uint64_t pages)
{
	return (pages + 63) / 64;
}
/* Pages of one frame: with a limit not more than it lets through in an eighth of a second. */
unsigned source_batch_limit(const struct source *s);

#endif
