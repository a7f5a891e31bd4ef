/*
 * All that two sides and a link between them can do, by the table of migration/state.h: messages
 * that arrive late or never, links that break at any moment and come back, users that call it off,
 * starts that fail, pages that go by a file. In no state both sides have the guest; where nothing
 * more can happen by itself, one has it, or the source is in doubt while the destination has given
 * up for ever.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migration/state.h"

enum message {
	NOTHING,
	STATE, /* the device state: all is sent */
	RUN,
	CANCEL,
	END,
	RESUME_COPY,
	RESUME_RUN,
	READY,
	ACK,
	FAILURE,
	RESUME_READY,
	RESUME_RUNNING,
	RESUME_COMPLETE,
	PAGES, /* the last of them */
};
enum { QUEUE = 4 };

struct world {
	uint8_t source, dest;
	bool source_link, dest_link; /* what each believes */
	bool whole;		     /* what is sent arrives */
	bool sent_state, ticket, goodbye;
	bool part; /* post-copy: the state is sent, and not all pages */
	bool file; /* they were written into one, because the link is dead */
	uint8_t to_dest[QUEUE], to_source[QUEUE];
};

static struct world *worlds;
static unsigned count, room, done;
static unsigned moved, kept, doubts, served, spooled;

static void visit(const struct world *w)
{
	if (migration_owns(w->source) && migration_owns(w->dest)) {
		printf("both have it: source %s, destination %s\n", migration_state_name(w->source),
		       migration_state_name(w->dest));
		exit(1);
	}
	for (unsigned i = count; i--;)
		if (!memcmp(&worlds[i], w, sizeof(*w)))
			return;
	if (count == room) {
		room = room ? 2 * room : 1024;
		worlds = realloc(worlds, room * sizeof(*worlds));
		if (!worlds)
			exit(1);
	}
	worlds[count++] = *w;
}

static void send(struct world *w, uint8_t *queue, enum message m)
{
	if (!w->whole)
		return;
	for (unsigned i = 0; i < QUEUE; i++) {
		if (!queue[i]) {
			queue[i] = m;
			return;
		}
	}
}

static enum message take(uint8_t *queue)
{
	enum message m = queue[0];

	memmove(queue, queue + 1, QUEUE - 1);
	queue[QUEUE - 1] = NOTHING;
	return m;
}

/* As both programmes do: what the table does not know is passed over. */
static bool go(uint8_t *state, enum migration_event event)
{
	int next = migration_next(*state, event);

	if (next >= 0)
		*state = (uint8_t)next;
	return next >= 0;
}

static void keep(struct world *w, enum migration_event event)
{
	if (!migration_over(w->source) && go(&w->source, event) && w->source == SOURCE_KEPT &&
	    w->source_link)
		send(w, w->to_dest, CANCEL);
}

static void source_hears(struct world *w, enum message m)
{
	switch (m) {
	case READY: w->ticket |= go(&w->source, EVENT_READY); break;
	case ACK:
	case RESUME_RUNNING:
		if (w->part && go(&w->source, EVENT_ACK_PART))
			send(w, w->to_dest, PAGES);
		else if (!w->part && go(&w->source, EVENT_ACK))
			send(w, w->to_dest, END);
		break;
	case RESUME_COMPLETE:
		if (go(&w->source, EVENT_COMPLETE))
			send(w, w->to_dest, END);
		break;
	case RESUME_READY:
		if (w->source == SOURCE_DOUBT && go(&w->source, EVENT_READY))
			send(w, w->to_dest, RUN);
		break;
	case FAILURE: keep(w, EVENT_FAILURE); break;
	default: break;
	}
}

static void dest_hears(struct world *w, enum message m)
{
	switch (m) {
	case STATE:
		if (go(&w->dest, EVENT_SAY_READY))
			send(w, w->to_source, READY);
		break;
	case RUN:
		go(&w->dest, EVENT_RUN);
		if (w->dest == DEST_RUNS || w->dest == DEST_NEEDS)
			send(w, w->to_source, ACK);
		else if (w->dest == DEST_REFUSED)
			send(w, w->to_source, FAILURE);
		break;
	case CANCEL:
	case RESUME_COPY: go(&w->dest, EVENT_FAILURE); break;
	case END: go(&w->dest, EVENT_END); break;
	case RESUME_RUN:
		if (w->dest == DEST_REFUSED)
			send(w, w->to_source, FAILURE);
		else if (w->dest == DEST_NEEDS)
			send(w, w->to_source, RESUME_RUNNING);
		else if (w->dest == DEST_RUNS)
			send(w, w->to_source, RESUME_COMPLETE);
		else if (w->dest == DEST_READY)
			send(w, w->to_source, RESUME_READY);
		break;
	case PAGES:
		if (go(&w->dest, EVENT_WHOLE))
			send(w, w->to_source, RESUME_COMPLETE);
		break;
	default: break;
	}
}

/* A new connection: whatever was on the old one is gone, and the destination learns of it now. */
static bool connect_again(struct world *w)
{
	if (migration_over(w->dest))
		return false;
	if (w->dest_link)
		go(&w->dest, EVENT_LOST);
	/* One that was still copying has given up with its link. */
	if (migration_over(w->dest))
		return false;
	memset(w->to_dest, 0, QUEUE);
	memset(w->to_source, 0, QUEUE);
	w->whole = w->source_link = w->dest_link = true;
	go(&w->dest, EVENT_BACK);
	return true;
}

static void source_moves(struct world w)
{
	struct world n;

	if (w.to_source[0] && w.source_link) {
		n = w;
		source_hears(&n, take(n.to_source));
		visit(&n);
	}
	if (!w.whole && w.source_link && !w.to_source[0]) {
		n = w;
		n.source_link = false;
		keep(&n, EVENT_LOST);
		visit(&n);
	}
	n = w;
	if (w.source == SOURCE_COPY && go(&n.source, EVENT_STOP))
		visit(&n);
	n = w;
	if (w.source == SOURCE_STOPPED && !w.sent_state) {
		if (go(&n.source, EVENT_GO_ON))
			visit(&n);
		n = w;
		n.sent_state = true;
		send(&n, n.to_dest, STATE);
		visit(&n);
		n.part = true;
		visit(&n);
	}
	n = w;
	if (w.source == SOURCE_READY && go(&n.source, EVENT_SAY_RUN)) {
		send(&n, n.to_dest, RUN);
		visit(&n);
	}
	n = w;
	keep(&n, EVENT_CALL_OFF);
	visit(&n);
	n = w;
	if ((w.source == SOURCE_DOUBT || w.source == SOURCE_SERVES) && !w.source_link &&
	    connect_again(&n)) {
		send(&n, n.to_dest, RESUME_RUN);
		visit(&n);
	}
	/* The link stays dead for the source: it ends, and leaves a file. */
	n = w;
	if (w.source == SOURCE_SERVES && !w.source_link && go(&n.source, EVENT_SPOOLED)) {
		n.file = true;
		visit(&n);
	}
	/* Once, to let a destination go that waits. */
	n = w;
	if (w.source == SOURCE_KEPT && !w.source_link && w.ticket && !w.goodbye &&
	    connect_again(&n)) {
		n.goodbye = true;
		send(&n, n.to_dest, RESUME_COPY);
		visit(&n);
	}
}

static void dest_moves(struct world w)
{
	struct world n;

	if (w.to_dest[0] && w.dest_link && !migration_over(w.dest)) {
		n = w;
		dest_hears(&n, take(n.to_dest));
		visit(&n);
	}
	if (!w.whole && w.dest_link && !w.to_dest[0]) {
		n = w;
		n.dest_link = false;
		go(&n.dest, EVENT_LOST);
		visit(&n);
	}
	n = w;
	if (w.dest == DEST_STARTING && go(&n.dest, w.part ? EVENT_STARTED_PART : EVENT_STARTED)) {
		send(&n, n.to_source, ACK);
		visit(&n);
		n = w;
		go(&n.dest, EVENT_START_FAILED);
		send(&n, n.to_source, FAILURE);
		visit(&n);
	}
	n = w;
	if ((w.dest == DEST_READY || w.dest == DEST_WAITING || w.dest == DEST_COPY) &&
	    go(&n.dest, EVENT_CALL_OFF)) {
		send(&n, n.to_source, FAILURE);
		visit(&n);
	}
	n = w;
	if (!w.dest_link && go(&n.dest, EVENT_GIVE_UP))
		visit(&n);
	/* Somebody brings it, sooner or later. */
	n = w;
	if (w.file && go(&n.dest, EVENT_FILLED))
		visit(&n);
}

/* Pages over a connection of their own: asked for as soon as the guest runs, and answered by a
 * source that waits for its ACK. */
static void lane_moves(struct world w)
{
	if (w.part && w.whole && w.source_link && w.dest_link &&
	    (w.source == SOURCE_DOUBT || w.source == SOURCE_SERVES) && w.dest == DEST_NEEDS) {
		dest_hears(&w, PAGES);
		visit(&w);
	}
}

static void link_moves(struct world w)
{
	if (w.whole) {
		w.whole = false;
		visit(&w);
		return;
	}
	/* What was on its way is lost, on either side, from the end. */
	for (unsigned side = 0; side < 2; side++) {
		struct world n = w;
		uint8_t *queue = side ? n.to_dest : n.to_source;
		unsigned last = 0;

		while (last < QUEUE && queue[last])
			last++;
		if (last) {
			queue[last - 1] = NOTHING;
			visit(&n);
		}
	}
}

/* Nothing happens by itself any more: who has it? */
static void judge(const struct world *w)
{
	/* Who serves has somebody to serve. */
	if (w->source == SOURCE_SERVES && !migration_owns(w->dest)) {
		printf("nobody has it: the destination is %s\n", migration_state_name(w->dest));
		exit(1);
	}
	served += w->source == SOURCE_SERVES;
	/* A file is written for a guest that runs there, and it completes that one. */
	if (w->source == SOURCE_SPOOLED &&
	    (!w->file || !migration_owns(w->dest) ||
	     (w->dest != DEST_DONE && migration_next(w->dest, EVENT_FILLED) != DEST_DONE))) {
		printf("the pages are in a file, and the destination is %s\n",
		       migration_state_name(w->dest));
		exit(1);
	}
	if (w->file && w->source != SOURCE_SPOOLED) {
		printf("a file, and the source is %s\n", migration_state_name(w->source));
		exit(1);
	}
	spooled += w->source == SOURCE_SPOOLED;
	if (!migration_over(w->source) && w->source != SOURCE_DOUBT)
		return;
	if (w->source == SOURCE_KEPT)
		kept++;
	if (w->source == SOURCE_MOVED) {
		if (!migration_owns(w->dest)) {
			printf("nobody has it: the destination is %s\n",
			       migration_state_name(w->dest));
			exit(1);
		}
		/* What is not there is nowhere any more. */
		if (w->dest == DEST_NEEDS) {
			printf("the source is gone, and pages are missing\n");
			exit(1);
		}
		moved++;
	}
	if (w->source == SOURCE_DOUBT && w->dest == DEST_FAILED)
		doubts++;
}

int main(void)
{
	struct world first;

	memset(&first, 0, sizeof(first));
	first.source = SOURCE_COPY;
	first.dest = DEST_COPY;
	first.source_link = first.dest_link = first.whole = true;
	visit(&first);
	for (done = 0; done < count; done++) {
		const struct world w = worlds[done];

		judge(&w);
		source_moves(w);
		dest_moves(w);
		lane_moves(w);
		link_moves(w);
	}
	printf("%u states of the two; %u with the guest moved, %u with pages to follow, %u with "
	       "them in a file, %u with it kept, %u in doubt for ever, because the destination has "
	       "given up\n",
	       count, moved, served, spooled, kept, doubts);
	if (!moved || !kept || !served || !spooled) {
		printf("they were not all reached\n");
		return 1;
	}
	return 0;
}
