/* What the files of the side that a guest comes to share; all on its own thread. */
#ifndef MIGRATION_DESTINATION_INTERNAL_H
#define MIGRATION_DESTINATION_INTERNAL_H

#include "migration/destination.h"

/* ---- destination.c ---- */
/* What the table does not know is passed over. */
void destination_step(struct destination *d, enum migration_event event);
/* The connection is over. */
void destination_lose(struct destination *d);
/* The same, because of what has come: the source is told, so that people see it there. That says
 * nothing about where the guest is. Up to two seconds. */
void destination_complain(struct destination *d, const struct stream_error *why);
/* 0 or -errno: what cannot be said any more is found out by the next who reads. */
int destination_say(struct destination *d, enum stream_type type, void *object);
/* Why it does not run here; kept for whoever asks later. */
void destination_fail(struct destination *d, uint8_t kind, const char *text);
/* HELLO is answered: on a connection of this migration. */
int destination_greet(struct destination *d, struct link *link, const struct stream_hello *theirs,
		      struct stream_agreement *agreement, struct stream_error *err);
void destination_turn_away(struct destination *d, struct link *link,
			   const struct stream_hello *theirs, const char *text);

/* ---- destination_handover.c ---- */
int destination_say_ready(struct destination *d, struct stream_error *err);
/* From READY on: until both sides know. 0: the guest runs here. */
int destination_hand_over(struct destination *d, struct stream_error *err);
/* PAGES or ROUND, on whichever connection. */
void destination_on_page(struct destination *d, const struct stream_frame *frame);

/* ---- destination_lane.c ---- */
/* What the main connection need not be waited for; 0 or -errno. */
int destination_bells_init(struct destination *d, struct stream_error *err);
void destination_bell_add(struct destination *d, int fd);
void destination_bell_remove(struct destination *d, int fd);
/* Whoever comes while a migration is under way: its source again, its lane, or somebody else. */
void destination_on_caller(struct destination *d, struct link *link,
			   const struct stream_hello *hello);
/* What has come on the lane. 0 or -errno with a text: it is lost. */
int destination_lane_listen(struct destination *d, struct stream_error *err);
void destination_lane_end(struct destination *d);

/* ---- destination_pages.c: the guest runs, pages are missing ---- */
/* Whether this connection knows what is here. Until then who waits does not ring. */
void destination_may_ask(struct destination *d, bool may);
/* Asks for those that somebody waits for. 0 or -errno: the connection is over. */
int destination_ask(struct destination *d);
/* Numbers for people: STATISTICS. */
int destination_say_numbers(struct destination *d);
/* A round begins or has ended here: STATISTICS. 0 or -errno: the connection is over. */
int destination_say_rounds(struct destination *d);
/* Says what is here, to a source that has come back. */
int destination_say_received(struct destination *d);
/* PAGES and what belongs to them. 0; -errno with a text: the connection is over. */
int destination_take_page(struct destination *d, const struct stream_frame *frame,
			  struct stream_error *err);

/* ---- destination_spool.c ---- */
/* Reads one that was handed in meanwhile. */
void destination_look_for_file(struct destination *d);
/* None is read any more. */
void destination_close_file(struct destination *d);

#endif
