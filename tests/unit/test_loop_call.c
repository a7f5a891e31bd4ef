/* Calls of the loop from another thread: the answer is that of the call, also at the end. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "tests/unit/check.h"
#include "vmm/loop_call.h"

static struct loop *loop;
static struct loop_call call, waiting;
static atomic_bool ended;
static unsigned ran;
static int first, last, late, let_go;

static void answer(void *arg)
{
	ran++;
	loop_call_answer(&call, *(int *)arg);
}

/* Nobody answers before the end. */
static void answer_never(void *arg)
{
	(void)arg;
	ran++;
	loop_stop(loop, 3);
}

static void *caller_main(void *arg)
{
	int seven = 7, zero = 0;

	(void)arg;
	first = loop_call(&call, answer, &seven);
	last = loop_call(&call, answer, &zero);
	let_go = loop_call(&waiting, answer_never, NULL);
	while (!ended)
		usleep(1000);
	late = loop_call(&call, answer, &seven);
	return NULL;
}

int main(void)
{
	pthread_t caller;

	alarm(60);
	CHECK(loop_create(&loop, NULL) == 0);
	loop_call_init(&call, loop);
	loop_call_init(&waiting, loop);
	CHECK(!pthread_create(&caller, NULL, caller_main, NULL));
	CHECK(loop_run(loop) == 3);
	loop_call_end(&waiting);
	loop_call_end(&call);
	ended = true;
	pthread_join(caller, NULL);
	CHECK(first == 7 && last == 0);
	CHECK(let_go == -ECANCELED);
	/* What was answered last is no answer to this: nothing was done. */
	CHECK(late == -ECANCELED && ran == 3);
	loop_call_exit(&call);
	loop_call_exit(&waiting);
	loop_destroy(loop);
	return 0;
}
