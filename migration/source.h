/*
 * The side that a guest leaves. Runs on a thread of its own from the first connection until it is
 * known where the guest is. States: migration/state.h.
 */
#ifndef MIGRATION_SOURCE_H
#define MIGRATION_SOURCE_H

#include <pthread.h>
#include <stdatomic.h>

#include "migration/link.h"
#include "migration/machine.h"
#include "migration/state.h"
#include "migration/stream_hello.h"

struct migration_params {
	uint64_t downtime;  /* ns, at most */
	uint64_t bandwidth; /* bytes per second, 0: what there is */
	uint64_t timeout;   /* ns, 0: none */
	/* What is done then; all but CANCEL also before, at a moment when as little is left as ever
	 * and it does not get less. */
	enum migration_policy {
		MIGRATION_CANCEL,
		MIGRATION_POSTCOPY, /* the guest goes at once, its pages after it */
		MIGRATION_THROTTLE, /* processors that write faster than the link carries wait */
	} on_timeout;
	/* Post-copy after so many rounds, or ns; 0: never. */
	uint32_t postcopy_rounds;
	uint64_t postcopy_time;
	bool verify; /* every page and the state are checked there against what they were here */
	bool uncompressed; /* nothing is */
	/* Pages are here that the guest there lacks, and the link is dead for so long (ns, 0: for
	 * ever): source.spool is called. */
	uint64_t recover;
};

/* What people are shown; numbers never go back but `remaining`, the rates and the round's. */
struct migration_progress {
	enum migration_state state;
	/* connecting, image, copy, handover, postcopy, paused, completed, spooled, failed,
	 * cancelled */
	const char *phase;
	uint32_t round;
	uint64_t total, remaining;	/* bytes of memory; still to be sent of this round */
	uint64_t sent;			/* bytes on the wire */
	uint64_t pages, zero;		/* sent */
	uint64_t faults;		/* pages that somebody there waited for */
	uint64_t fault_mean, fault_max; /* for so long, as the destination says; ns */
	uint64_t rate, dirty_rate;	/* bytes per second */
	uint64_t throttle;		/* that processors may write; 0: as they like */
	uint64_t downtime_expected, downtime, elapsed; /* ns */
	double done;				       /* 0 to 1 */
	bool stalled;	   /* pre-copy: what is left does not get less */
	char trouble[200]; /* while paused: why the other side is not found, or the guest not
			    taken back */
};

/* A connection of its own for pages that somebody waits for there, and a thread that answers. */
struct source_lane {
	pthread_t thread;
	bool started;
	int wake_fd, bell_fd; /* eventfds: ends the thread; rung when the state has changed */
	enum source_lane_state {
		LANE_OPENING,
		LANE_UP,
		LANE_REFUSED, /* it never was up: pages are asked for on the main connection */
		LANE_LOST,    /* it was up */
	} state;	      /* with `lock` */
	char why[200];	      /* it was lost; with `lock` */
	atomic_uint_least64_t sent; /* bytes */
	struct stream_hello hello;
};

struct source {
	const struct migration_source *m;
	struct migration_params params;
	/* A new connection (non-blocking socket), or -errno with a text. wake_fd: give up. */
	int (*dial)(void *opaque, int wake_fd, struct stream_error *err);
	void *opaque;
	/* Makes a file and fills it by source_spool(). 0: it is there, whole, to stay; -errno: it
	 * is tried again later. NULL: never: the other side is waited for. */
	int (*spool)(void *opaque);
	/* The thread's: the guest stays and runs, and source_run() will return this: only the other
	 * side has not heard of it, which may take a while where the link is dead. source_abandon()
	 * ends that. NULL: nobody asks. */
	void (*stays)(void *opaque, int code, const struct stream_error *why);
	const struct tls *tls; /* of a client, for all connections; NULL: without; the caller's */
	int wake_fd;	       /* readable: called off; the caller's */
	uint64_t retry_max;    /* ns between attempts to reconnect; 0: 2 s */

	pthread_mutex_t lock; /* of progress; and what is asked for */
	struct migration_progress progress;
	bool force, retry, abandon, postcopy, cancel;
	bool precopy_only; /* the destination has no post-copy; with `lock` */
	int abandon_fd;	   /* eventfd: `abandon`; ends what waits when wake_fd does not any more */

	/* The thread's. */
	struct link *link;
	struct stream_batch *batch;
	struct stream_hello hello;
	struct stream_agreement agreement;
	enum migration_state state;
	uint64_t *bitmap; /* pages to be sent, by place in memory; regions begin at words */
	atomic_uint_least64_t dirty; /* of them; the lane changes it, too */
	/* Post-copy: pages that nobody has said to be there: those, and what is on its way. */
	uint64_t *unsure;
	uint64_t missing; /* at RUN: pages that come after the guest */
	/* Post-copy. */
	uint32_t lanes; /* connections beside the main one that the destination takes */
	struct source_lane lane;
	/* Of bitmap, dirty and near from `serving` on: the lane's thread answers, too. */
	pthread_mutex_t pages_lock;
	atomic_bool serving;  /* the guest stands still, and what is missing was said */
	uint32_t serve_round; /* of the pages that come after it */
	atomic_bool asked;    /* for one of them, after RUN */
	bool ahead;	      /* its round has begun, on this connection, before RUN */
	uint64_t ahead_bytes; /* that this connection has carried by then */
	bool asking;	      /* a new connection: RECEIVED is awaited before anything is sent */
	uint64_t lacking;     /* pages there, as it has said last; at first `missing` */
	uint64_t agreed;      /* since when a connection is good for pages; ns */
	uint64_t near;	      /* the next page to be sent if nobody asks for one */
	uint64_t bounded;     /* when the main connection's queue was, last; ns */
	uint32_t round;
	uint64_t begun, state_size;
	uint64_t stopped;   /* since when the guest stands still; 0: it runs */
	uint32_t state_crc; /* of the device state that was sent last */
	uint64_t wire;	    /* bytes of connections that are gone */
	/* Rounds that the destination has taken in whole, if it says so: what has been sent is not
	 * there yet when it is with its kernel. */
	bool counts;
	uint64_t taken;
	uint64_t spent, since,
		paced; /* ns of rounds; of this one: its begin, and what the limit took */
	struct source_sample {
		uint64_t arrived, active; /* bytes, ns */
	} sample[2];			  /* of this connection: one and two windows ago */
	/* What was left after each round: the least, rounds that have not undercut it. */
	uint64_t least;
	unsigned stalls;
	uint64_t throttled;
	uint64_t harvested; /* when the bitmap was fetched last */
	uint64_t ticket;
	bool refused;		      /* by the destination, before anything was paused */
	char reason[STREAM_TEXT + 1]; /* why it could not start the guest, as it says; or "" */
};

/* Fill in the first part. 0 or -ENOMEM. */
int source_init(struct source *s);
/* 0: the guest runs there, whole or (s->state is SOURCE_SPOOLED) with a file to complete it.
 * Otherwise it is here and runs as before (if it ran): -ECANCELED, -ECONNREFUSED (refused there:
 * s->refused), others; with a text. What it gave up is asked for until it is there. -EOWNERDEAD: it
 * stands still, and was abandoned so. */
int source_run(struct source *s, struct stream_error *err);
void source_exit(struct source *s);
/* Any thread. */
void source_progress(struct source *s, struct migration_progress *out);
/* Whether nobody here knows where the guest is. */
bool source_in_doubt(struct source *s);
/* Calls it off: 0: RUN is not said any more, the guest stays; the caller makes wake_fd readable,
 * too. -EBUSY: it is in doubt; -EALREADY: source_gone(). */
int source_cancel(struct source *s);
/* The operator knows that the destination does not have it. */
void source_force(struct source *s);
/* Post-copy from now on. -EALREADY: the guest is being handed over; -ENOTSUP: the destination has
 * none. If that turns out later, source_run() ends with it. */
int source_postcopy(struct source *s);
/* For `spool`, on its thread: writes what the destination may lack into fd, down to stable storage:
 * a stream that only this destination takes (destination_complete()). 0 or -errno with a text. */
int source_spool(struct source *s, int fd, struct stream_error *err);
/* The guest runs there, for sure. */
bool source_gone(struct source *s);
/* Tries to reconnect, or to take the guest back, now. */
void source_retry(struct source *s);
/* The machine's process ends: source_run() returns soon, also in doubt (-EINPROGRESS). */
void source_abandon(struct source *s);

#endif
