/*
 * One connection of a migration: frames in both directions over a non-blocking socket, bounded in
 * rate and in time. One thread at a time. A side that has said nothing for `silence` is dead: who
 * has nothing to say says ALIVE.
 *
 * With TLS or without: nobody above the link sees a difference. The handshake goes on within
 * whatever is said or received first; one that takes longer than 10 s, or does not prove who the
 * other side is, ends the link. Nothing is said, and nothing believed, before it is done.
 */
#ifndef MIGRATION_LINK_H
#define MIGRATION_LINK_H

#include "migration/stream.h"
#include "migration/tls.h"

struct link {
	int fd;
	int wake_fd; /* readable: everything that waits returns -ECANCELED; -1: none */
	int bell_fd; /* readable: link_receive() has something else to look at; -1: none */
	struct stream_parser *parser;
	struct stream_writer w;
	uint8_t *in; /* what has been read and not been parsed */
	size_t in_at, in_len;
	uint64_t silence;	    /* ns */
	uint64_t last_in, last_out; /* CLOCK_MONOTONIC, ns */
	uint64_t limit;		    /* bytes per second, 0: none */
	uint64_t next;		    /* when the limit allows the next frame */
	bool held;		    /* it has made the next bulk wait */
	uint64_t deadline;	    /* who waits until then finds it over, -ETIME; 0: none */
	const char *late;	    /* why, for people */
	uint64_t queue_max;	    /* what the system lets a user queue; 0: not known yet */
	uint64_t received, sent;    /* bytes */
	int broken;		    /* -errno of what ended it; 0 */
	struct tls_session *tls;    /* NULL: without */
	bool secured;		    /* its handshake is done */
	uint64_t secured_by;	    /* or ends then */
	struct stream_error why;    /* what ended it, in words; or empty */
};

/* For tests, before there is a link: another silence than 10 s, and ALIVE as often within it. */
void link_set_silence(uint64_t ns);

/* fd is the link's from now on, also on failure. tls: NULL: none; it must stay. -ENOMEM. */
int link_open(struct link **out, int fd, uint16_t channel, int wake_fd, const struct tls *tls);
void link_close(struct link *l); /* NULL is fine */

/* The next frame, ALIVE passed over: 1; 0: none within timeout_ms, or the bell rings; -ECANCELED;
 * -ECONNRESET: the other side has closed or is silent; -EBADMSG and the like: what came is damaged;
 * -EKEYREJECTED: one side does not accept the other; -EPROTONOSUPPORT: one with TLS, one without.
 * Says ALIVE meanwhile. */
int link_receive(struct link *l, int timeout_ms, struct stream_frame *frame,
		 struct stream_error *err);
/* To be called between frames of bulk: waits as long as the limit wants it. 0 or -ECANCELED. */
int link_pace(struct link *l);
/* ns until the limit allows more bulk, which then waits; 0: now. */
uint64_t link_wait(struct link *l);
/* Says ALIVE if nothing else has been said for a while. */
int link_alive(struct link *l);
/* Bytes that have been sent and are not with the other side's kernel yet. */
uint64_t link_unsent(const struct link *l);
/* From now on little lies in the way of what is more urgent: the kernel queues what the connection
 * carries in two round trips, 64 KiB, and what goes at `rate` (bytes per second; 0: not known) in
 * 2 ms: so long it may take until whoever writes gets a processor. Who writes more waits. To be
 * said again when the rate is another; if the system does not let a user queue that much, the
 * kernel decides. */
void link_bound(struct link *l, uint64_t rate);
/* Bulk is compressed from now on where that costs no time: while there is more of it on its way
 * than what is to be compressed, or the limit has made it wait since the last. */
void link_compress(struct link *l);
/* Everything was said: the other side reads an end. */
void link_finish(struct link *l);
/* The same, and what still comes is taken and thrown away, until the other side hangs up too or for
 * two seconds: who closes with something unread may undo what he has said last. */
void link_goodbye(struct link *l);
/* Whether one can still speak: what came was damaged, not what goes, or somebody has called it off.
 * Clears that, for last words: no more is read, and while wake_fd is readable they are not waited
 * for, should there be no room for them. Where a frame was being written they end up inside it: the
 * other side then only hears that it is over. */
bool link_may_speak(struct link *l);

#endif
