/*
 * Who has the guest: the states of both sides of a migration, as one table.
 * docs/migration-states.md shows it; tests/unit/test_migration_state.c walks through all that two
 * sides and a link between them can do.
 *
 * The hand-over is READY (the destination has all it needs), RUN (the source gives the guest away),
 * ACK (it runs there). Until RUN is written the source has the guest and may go on with it at any
 * time; the destination never starts without RUN; between RUN and the answer to it the source
 * stands still and asks.
 */
#ifndef MIGRATION_STATE_H
#define MIGRATION_STATE_H

#include <stdbool.h>

enum migration_state {
	/* The source. */
	SOURCE_COPY,	/* the guest runs, or could: nothing is decided */
	SOURCE_STOPPED, /* it stands still for the last round */
	SOURCE_READY,	/* READY has come */
	SOURCE_DOUBT,	/* RUN was written, at least in part */
	SOURCE_SERVES,	/* the guest runs there and lacks pages that are here */
	SOURCE_MOVED,	/* the guest runs there and lacks nothing: over */
	SOURCE_SPOOLED, /* the guest runs there; what it lacks was written into a file: over */
	SOURCE_KEPT,	/* the guest is ours: over */
	/* The destination. */
	DEST_COPY,
	DEST_READY,    /* READY was written */
	DEST_WAITING,  /* the same, and the link is lost: RUN may be on its way */
	DEST_STARTING, /* RUN has come */
	DEST_NEEDS,    /* the guest runs here, pages of it are still at the source */
	DEST_RUNS,     /* the guest runs here, whole; the source may not know it yet */
	DEST_DONE,     /* and it knows: over */
	DEST_REFUSED,  /* it could not be started here, and will not be; the source must be told */
	DEST_FAILED,   /* over, nothing has run */
	MIGRATION_STATES,
};

enum migration_event {
	/* Done here. */
	EVENT_STOP,	    /* source: the guest stands still */
	EVENT_GO_ON,	    /* source: it goes on, the copy too */
	EVENT_SAY_READY,    /* destination: writes READY */
	EVENT_SAY_RUN,	    /* source: about to write RUN */
	EVENT_STARTED,	    /* destination: the guest runs, all of it is here */
	EVENT_STARTED_PART, /* destination: the guest runs, pages are missing */
	EVENT_WHOLE,	    /* destination: the last missing page has come */
	EVENT_START_FAILED, /* destination: it has not run, and everything taken is given up */
	EVENT_CALL_OFF,	    /* by the user, or an error here */
	EVENT_FORCE,	    /* source's operator: the destination does not have it, he says */
	EVENT_GIVE_UP,	    /* nobody has come back for too long */
	EVENT_SPOOLED,	    /* source: all that may be missing there is in a file, for good */
	EVENT_FILLED,	    /* destination: such a file of this move has brought all of it */
	/* What the other side says. */
	EVENT_READY,	/* READY, or RESUME at that stage */
	EVENT_RUN,	/* with the ticket of our READY */
	EVENT_ACK,	/* ACK, or RESUME at stage RUNNING, of a guest that was sent whole */
	EVENT_ACK_PART, /* the same of one that lacks pages */
	EVENT_COMPLETE, /* RESUME at stage COMPLETE */
	EVENT_FAILURE,	/* FAILURE, CANCEL, or RESUME of a source at a stage before RUN */
	EVENT_END,	/* the source knows that the guest runs here */
	/* The link. */
	EVENT_LOST, /* broken, closed or silent */
	EVENT_BACK, /* a new connection of the same migration */
	MIGRATION_EVENTS,
};

/* The state that follows; -1: this cannot happen there: the peer breaks the rules, or we do. */
int migration_next(enum migration_state state, enum migration_event event);
/* Whether this side may run the guest: never true on both. */
bool migration_owns(enum migration_state state);
bool migration_over(enum migration_state state);
const char *migration_state_name(enum migration_state state);

#endif
