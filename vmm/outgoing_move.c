/* To another ferry: the thread, what can be asked of it, and what it is told. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "migration/address.h"
#include "vmm/json_util.h"
#include "vmm/message.h"
#include "vmm/outgoing_internal.h"

enum { CONNECT_MS = 10000 };

static int dial(void *opaque, int wake_fd, struct stream_error *err)
{
	const struct outgoing *o = opaque;

	return address_connect(o->path, CONNECT_MS, wake_fd, err);
}

static int fill_spool(void *opaque, int fd, struct stream_error *err)
{
	return source_spool(&((struct outgoing *)opaque)->move, fd, err);
}

static int spool(void *opaque)
{
	const struct outgoing *o = opaque;
	struct stream_error why;
	int ret = outgoing_file(o->spool, fill_spool, opaque, &why);

	if (ret)
		message("%s: the pages that the guest lacks cannot be written: %s", o->spool,
			why.text);
	return ret;
}

static void *move_main(void *arg)
{
	struct outgoing *o = arg;
	int code;

	pthread_setname_np(pthread_self(), "migration");
	code = outgoing_wait_memory(o, &o->why);
	if (!code)
		code = source_run(&o->move, &o->why);
	if (!o->stays)
		o->code = code;
	loop_work_post(o->vm->loop, &o->over_work);
	return NULL;
}

void outgoing_move_abandon(struct outgoing *o)
{
	source_abandon(&o->move);
	outgoing_wake(o);
}

void outgoing_move_exit(struct outgoing *o)
{
	source_exit(&o->move);
	tls_free(o->tls);
}

static int find_policy(const char *word)
{
	if (!word || !strcmp(word, "cancel"))
		return MIGRATION_CANCEL;
	if (!strcmp(word, "postcopy"))
		return MIGRATION_POSTCOPY;
	return strcmp(word, "throttle") ? -1 : MIGRATION_THROTTLE;
}

int outgoing_move(struct vm *vm, const struct outgoing_params *params,
		  struct control_request *request, struct error *err)
{
	struct stream_error why;
	struct outgoing *o;
	struct tls *tls;
	int policy, ret = address_check(params->to, &why);

	if (ret)
		return error_set(err, ret, "%s", why.text);
	policy = find_policy(params->on_timeout);
	if (policy < 0)
		return error_set(err, -EINVAL, "'%s' is none of cancel, postcopy, throttle",
				 params->on_timeout);
	ret = params->spool ? outgoing_file_check(params->spool, err) : 0;
	if (!ret)
		ret = tls_config_load(&params->tls, TLS_CLIENT, params->to, &tls, err);
	if (ret)
		return ret;
	o = outgoing_create(vm, err);
	if (!o) {
		tls_free(tls);
		return -EBUSY;
	}
	o->tls = tls;
	o->request = request;
	o->path = strdup(params->to);
	o->spool = params->spool ? strdup(params->spool) : NULL;
	o->move = (struct source){.m = &o->source,
				  .params = {.downtime = params->downtime_ms * 1000000,
					     .bandwidth = params->bandwidth,
					     .timeout = params->timeout_ms * 1000000,
					     .on_timeout = policy,
					     .postcopy_rounds = params->postcopy_rounds,
					     .postcopy_time = params->postcopy_ms * 1000000,
					     .verify = params->verify,
					     .uncompressed = params->uncompressed,
					     .recover = params->recover_ms * 1000000},
				  .dial = dial,
				  .spool = params->spool ? spool : NULL,
				  .stays = outgoing_stays,
				  .opaque = o,
				  .tls = tls,
				  .wake_fd = o->wake_fd};
	ret = source_init(&o->move);
	o->live = true;
	if (ret || !o->path || (params->spool && !o->spool))
		ret = error_set(err, -ENOMEM, "no memory");
	else
		ret = outgoing_start(o, move_main, err);
	if (ret)
		outgoing_free(o);
	return ret;
}

static int runs_there(const struct outgoing *o, struct error *err)
{
	return error_set(err, -EBUSY,
			 "it is too late: the guest runs at %s, and what is here is older than "
			 "what it has written there; if that process has ended the guest is lost, "
			 "and ferry kill %s ends what is left of it here",
			 o->path, o->vm->presence->name.name);
}

static int cancel_save(struct outgoing *o, struct error *err)
{
	int was = SAVE_OPEN;

	if (!atomic_compare_exchange_strong(&o->save, &was, SAVE_CALLED_OFF) && was == SAVE_DONE)
		return error_set(err, -EBUSY, "it is too late: all of the guest is written to %s",
				 o->path);
	outgoing_wake(o);
	outgoing_stop_cancel(o);
	return 0;
}

/* Who is told that it is called off finds the guest here. */
static int cancel(struct outgoing *o, struct error *err)
{
	const int ret = source_cancel(&o->move);

	if (ret == -EALREADY)
		return runs_there(o, err);
	if (ret)
		return error_set(err, ret,
				 "it is too late: the guest was given away, and only %s knows "
				 "whether it runs there",
				 o->path);
	o->cancelled = true;
	outgoing_wake(o);
	outgoing_stop_cancel(o);
	return 0;
}

static int force(struct outgoing *o, struct error *err)
{
	const bool doubt = source_in_doubt(&o->move);

	if (source_gone(&o->move))
		return runs_there(o, err);
	if (!doubt)
		return error_set(err, -EINVAL, "nothing is in doubt: cancel will do");
	message("told to take the guest back, though it may run at %s: if it does, two of it "
		"write to the same disks",
		o->path);
	source_force(&o->move);
	return 0;
}

static int postcopy(struct outgoing *o, struct error *err)
{
	const int ret = source_postcopy(&o->move);

	if (ret == -ENOTSUP)
		return error_set(err, ret,
				 "the ferry at %s has no post-copy: the move goes on without",
				 o->path);
	if (ret)
		return error_set(err, ret, "the guest is being handed over already");
	return 0;
}

int outgoing_control(struct vm *vm, const char *action, struct error *err)
{
	struct outgoing *o = vm->outgoing;

	if (!o || o->told)
		return error_set(err, -ENOENT, "the machine is not being moved");
	if (!o->live)
		return !strcmp(action, "cancel")
			       ? cancel_save(o, err)
			       : error_set(err, -EINVAL, "the machine is being saved: only cancel");
	if (!strcmp(action, "retry")) {
		source_retry(&o->move);
		return 0;
	}
	if (!strcmp(action, "postcopy"))
		return postcopy(o, err);
	if (!strcmp(action, "cancel"))
		return cancel(o, err);
	if (!strcmp(action, "force"))
		return force(o, err);
	return error_set(err, -EINVAL, "'%s' is none of cancel, retry, postcopy, force", action);
}

static json_int_t ms(uint64_t ns)
{
	return (json_int_t)((ns + 999999) / 1000000);
}

/* How long it takes yet, ns; UINT64_MAX: it does not come to an end like this. In pre-copy what is
 * written again has to be sent again. */
static uint64_t time_left(const struct migration_progress *p)
{
	uint64_t again = p->state == SOURCE_COPY ? p->dirty_rate : 0;

	if (!p->remaining)
		return 0;
	if (p->rate <= again || (p->stalled && p->state == SOURCE_COPY))
		return UINT64_MAX;
	return (uint64_t)((double)p->remaining * 1e9 / (double)(p->rate - again));
}

static json_t *progress_json(const struct migration_progress *p)
{
	const uint64_t left = time_left(p);
	json_t *j = json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f}",
			      "phase", p->phase, "state", migration_state_name(p->state), "round",
			      (json_int_t)p->round, "total", (json_int_t)p->total, "remaining",
			      (json_int_t)p->remaining, "bytes", (json_int_t)p->sent, "pages",
			      (json_int_t)p->pages, "zero-pages", (json_int_t)p->zero, "rate",
			      (json_int_t)p->rate, "dirty-rate", (json_int_t)p->dirty_rate,
			      "expected-downtime-ms", ms(p->downtime_expected), "total-ms",
			      ms(p->elapsed), "done", p->done);

	if (left != UINT64_MAX)
		json_object_set_new(j, "eta-ms", json_integer(ms(left)));
	if (p->throttle)
		json_object_set_new(j, "throttle", json_integer((json_int_t)p->throttle));
	if (p->trouble[0])
		json_object_set_new(j, "trouble", json_text(p->trouble));
	return j;
}

json_t *outgoing_query(struct vm *vm)
{
	struct migration_progress p;
	json_t *j;

	if (!vm->outgoing || !vm->outgoing->live || vm->outgoing->told)
		return NULL;
	source_progress(&vm->outgoing->move, &p);
	j = progress_json(&p);
	json_object_set_new(j, "to", json_text(vm->outgoing->path));
	return j;
}

json_t *outgoing_summary(struct outgoing *o)
{
	struct migration_progress p;
	json_t *j;

	source_progress(&o->move, &p);
	j = progress_json(&p);
	json_object_set_new(j, "status",
			    json_string(o->move.state == SOURCE_SPOOLED ? "spooled"
					: !o->code			? "moved"
					: o->ended			? "ended"
					: o->move.refused		? "refused"
					: o->cancelled			? "cancelled"
					: o->code == -EINPROGRESS	? "doubt"
									: "failed"));
	json_object_set_new(j, "text", json_text(o->code ? o->why.text : ""));
	if (o->move.state == SOURCE_SPOOLED)
		json_object_set_new(j, "file", json_text(o->spool));
	json_object_set_new(j, "downtime-ms", json_integer(ms(p.downtime)));
	json_object_set_new(j, "faults", json_integer((json_int_t)p.faults));
	json_object_set_new(j, "fault-mean-us", json_integer((json_int_t)(p.fault_mean / 1000)));
	json_object_set_new(j, "fault-max-us", json_integer((json_int_t)(p.fault_max / 1000)));
	return j;
}
