/*
 * The side that a guest comes to. In two steps, because the machine has to be made in between: the
 * first one is done when all is known of it, the second one ends when the guest runs here and the
 * source knows it, or when it never will. States: migration/state.h.
 */
#ifndef MIGRATION_DESTINATION_H
#define MIGRATION_DESTINATION_H

#include <pthread.h>

#include "migration/arrive.h"
#include "migration/door.h"
#include "migration/pulse.h"
#include "migration/state.h"

enum { DESTINATION_DEMANDS = 64 /* that are timed at once; others are not */ };

/* A file that a source has written which could not find us any more. */
struct destination_file {
	int fd; /* the caller's, until done() */
	/* On the migration's thread: 0: the guest is whole; -errno with a text. */
	void (*done)(void *opaque, int code, const char *text);
	void *opaque;
};

struct destination {
	struct door *door; /* the caller's */
	int wake_fd;	   /* readable: called off; the caller's */
	const char *ferry, *arch;
	/* How long READY waits for a source that does not come back; ns. */
	uint64_t patience;
	/* How long the end of a guest that runs here waits for a source that has not heard of it;
	 * ns. */
	uint64_t farewell;
	void (*changed)(void *opaque, enum migration_state state); /* may be NULL */
	void *opaque;

	/* Its own. */
	struct arrival arrival;
	struct link *link; /* NULL: lost */
	/* Where pages are asked for; NULL: on the main connection. Both are lost together. */
	struct link *lane;
	int bells; /* epoll: what `link` need not be waited for: the door, the lane, who waits */
	bool takes_lanes; /* agreed, and said in ACCEPT */
	bool given_up;	  /* while pages are copied the source has called again */
	struct stream_hello hello;
	struct stream_agreement agreement;
	enum migration_state state;
	uint64_t ticket;
	struct pulse pulse; /* while the machine is built */
	bool asking;	    /* this connection knows what is here: pages may be asked for on it */
	struct stream_failure failure; /* why it was refused */
	/* Pages that were asked for and have not come; and how long those that have took, ns. */
	struct destination_demand {
		uint64_t page, since;
	} demand[DESTINATION_DEMANDS];
	uint32_t demands;
	uint64_t answered, answered_sum, answered_max;
	pthread_mutex_t lock; /* of these; from destination_begin() to destination_end() */
	struct destination_file file;
	bool closed; /* none is taken any more */
};

/* Fill in the first part before. Waits for a source and for what it says of the machine: 0;
 * -ECANCELED: called off; other: the attempt failed, with a text. destination_end() in each case.
 */
int destination_begin(struct destination *d, const struct migration_sink_ops *sink, void *opaque,
		      struct stream_error *err);
/* The machine is being built: until one of the next three, the source hears that we live. */
void destination_build(struct destination *d);
/* The machine cannot be built here: the source is told, and goes on. */
void destination_refuse(struct destination *d, const char *text);
/* The rest. 0: the guest runs here; -errno with a text: it has not run here and will not. What the
 * migration held is given back; the door is needed no more. */
int destination_run(struct destination *d, struct stream_error *err);
void destination_end(struct destination *d);
/* Any thread: takes what the guest lacks out of that file, and nothing for any other guest. 0:
 * done() is called later, in every case, before destination_run() returns; -EBUSY: another file is
 * being read; -EALREADY: nothing is missing. */
int destination_complete(struct destination *d, const struct destination_file *file);

#endif
