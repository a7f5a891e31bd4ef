#include "migration/state.h"

#include <stddef.h>

static const char *const state_names[MIGRATION_STATES] = {
	[SOURCE_COPY] = "copy",	      [SOURCE_STOPPED] = "stopped", [SOURCE_READY] = "ready",
	[SOURCE_DOUBT] = "doubt",     [SOURCE_SERVES] = "serves",   [SOURCE_MOVED] = "moved",
	[SOURCE_SPOOLED] = "spooled", [SOURCE_KEPT] = "kept",	    [DEST_NEEDS] = "needs",
	[DEST_COPY] = "copy",	      [DEST_READY] = "ready",	    [DEST_WAITING] = "waiting",
	[DEST_STARTING] = "starting", [DEST_RUNS] = "runs",	    [DEST_DONE] = "done",
	[DEST_REFUSED] = "refused",   [DEST_FAILED] = "failed",
};

static const struct row {
	unsigned char state, event, next;
} rows[] = {
	{SOURCE_COPY, EVENT_STOP, SOURCE_STOPPED},
	{SOURCE_COPY, EVENT_CALL_OFF, SOURCE_KEPT},
	{SOURCE_COPY, EVENT_FAILURE, SOURCE_KEPT},
	{SOURCE_COPY, EVENT_LOST, SOURCE_KEPT},

	{SOURCE_STOPPED, EVENT_GO_ON, SOURCE_COPY},
	{SOURCE_STOPPED, EVENT_READY, SOURCE_READY},
	{SOURCE_STOPPED, EVENT_CALL_OFF, SOURCE_KEPT},
	{SOURCE_STOPPED, EVENT_FAILURE, SOURCE_KEPT},
	{SOURCE_STOPPED, EVENT_LOST, SOURCE_KEPT},

	{SOURCE_READY, EVENT_SAY_RUN, SOURCE_DOUBT},
	{SOURCE_READY, EVENT_CALL_OFF, SOURCE_KEPT},
	{SOURCE_READY, EVENT_FAILURE, SOURCE_KEPT},
	{SOURCE_READY, EVENT_LOST, SOURCE_KEPT},

	/* Only the destination can say what it is; until then it is too late to call it off. */
	{SOURCE_DOUBT, EVENT_ACK, SOURCE_MOVED},
	{SOURCE_DOUBT, EVENT_ACK_PART, SOURCE_SERVES},
	{SOURCE_DOUBT, EVENT_COMPLETE, SOURCE_MOVED},
	{SOURCE_DOUBT, EVENT_FAILURE, SOURCE_KEPT},
	{SOURCE_DOUBT, EVENT_READY, SOURCE_DOUBT}, /* it has no RUN: again */
	{SOURCE_DOUBT, EVENT_SAY_RUN, SOURCE_DOUBT},
	{SOURCE_DOUBT, EVENT_LOST, SOURCE_DOUBT},
	{SOURCE_DOUBT, EVENT_BACK, SOURCE_DOUBT},
	{SOURCE_DOUBT, EVENT_FORCE, SOURCE_KEPT},

	/* What is here is old but for the pages that are missing there: no way back. */
	{SOURCE_SERVES, EVENT_ACK_PART, SOURCE_SERVES},
	{SOURCE_SERVES, EVENT_COMPLETE, SOURCE_MOVED},
	{SOURCE_SERVES, EVENT_LOST, SOURCE_SERVES},
	{SOURCE_SERVES, EVENT_BACK, SOURCE_SERVES},
	{SOURCE_SERVES, EVENT_SPOOLED, SOURCE_SPOOLED},

	{DEST_COPY, EVENT_SAY_READY, DEST_READY},
	{DEST_COPY, EVENT_CALL_OFF, DEST_FAILED},
	{DEST_COPY, EVENT_FAILURE, DEST_FAILED},
	{DEST_COPY, EVENT_LOST, DEST_FAILED},

	/* Its user can end it here: it has not run. */
	{DEST_READY, EVENT_RUN, DEST_STARTING},
	{DEST_READY, EVENT_FAILURE, DEST_FAILED},
	{DEST_READY, EVENT_CALL_OFF, DEST_REFUSED},
	{DEST_READY, EVENT_LOST, DEST_WAITING},

	{DEST_WAITING, EVENT_BACK, DEST_READY},
	{DEST_WAITING, EVENT_CALL_OFF, DEST_REFUSED},
	{DEST_WAITING, EVENT_GIVE_UP, DEST_FAILED},

	{DEST_STARTING, EVENT_STARTED, DEST_RUNS},
	{DEST_STARTING, EVENT_STARTED_PART, DEST_NEEDS},
	{DEST_STARTING, EVENT_START_FAILED, DEST_REFUSED},

	{DEST_NEEDS, EVENT_RUN, DEST_NEEDS},
	{DEST_NEEDS, EVENT_LOST, DEST_NEEDS},
	{DEST_NEEDS, EVENT_BACK, DEST_NEEDS},
	{DEST_NEEDS, EVENT_WHOLE, DEST_RUNS},
	{DEST_NEEDS, EVENT_FILLED, DEST_DONE}, /* whoever wrote the file has ended */

	{DEST_RUNS, EVENT_RUN, DEST_RUNS}, /* once more, after a new connection */
	{DEST_RUNS, EVENT_LOST, DEST_RUNS},
	{DEST_RUNS, EVENT_BACK, DEST_RUNS},
	{DEST_RUNS, EVENT_END, DEST_DONE},
	{DEST_RUNS, EVENT_FILLED, DEST_DONE},

	{DEST_REFUSED, EVENT_RUN, DEST_REFUSED},
	{DEST_REFUSED, EVENT_LOST, DEST_REFUSED},
	{DEST_REFUSED, EVENT_BACK, DEST_REFUSED},
	{DEST_REFUSED, EVENT_FAILURE, DEST_FAILED}, /* the source has heard it */
	{DEST_REFUSED, EVENT_GIVE_UP, DEST_FAILED},
};

int migration_next(enum migration_state state, enum migration_event event)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (rows[i].state == state && rows[i].event == event)
			return rows[i].next;
	}
	return -1;
}

bool migration_owns(enum migration_state state)
{
	switch (state) {
	case SOURCE_COPY:
	case SOURCE_STOPPED:
	case SOURCE_READY:
	case SOURCE_KEPT:
	case DEST_NEEDS:
	case DEST_RUNS:
	case DEST_DONE: return true;
	default: return false;
	}
}

bool migration_over(enum migration_state state)
{
	return state == SOURCE_MOVED || state == SOURCE_SPOOLED || state == SOURCE_KEPT ||
	       state == DEST_DONE || state == DEST_FAILED;
}

const char *migration_state_name(enum migration_state state)
{
	return state_names[state];
}
