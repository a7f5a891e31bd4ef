/* The event loop: order of timers, guest time standing still, posts from threads, descriptors,
 * signals. */
#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/check.h"
#include "vmm/loop.h"

#define MS 1000000ull

static struct loop *loop;
static char order[64];
static const struct timer_source *timers;
static const struct clock_source *clk;

static uint64_t now(void)
{
	return clk->now(clk->opaque);
}

static void note(void *arg)
{
	strcat(order, arg);
	if (strchr(arg, '!'))
		loop_stop(loop, 7);
}

static void begin(void)
{
	CHECK(loop_create(&loop, NULL) == 0);
	timers = loop_timers(loop);
	clk = loop_clock(loop);
	order[0] = 0;
}

static void test_timers(void)
{
	static const char *const names[] = {"a", "b", "c", "d", "e!"};
	static const uint64_t at[] = {50, 10, 30, 20, 60};
	struct vtimer *t[5], *never;

	begin();
	for (int i = 0; i < 5; i++) {
		t[i] = timers->create(timers->opaque, note, (void *)names[i], "test");
		timers->set(t[i], 5 * MS);
		timers->set(t[i], at[i] * MS);
	}
	never = timers->create(timers->opaque, note, (void *)"never!", "test");
	timers->set(never, 1 * MS);
	timers->set(never, 0);
	loop_clock_resume(loop);
	CHECK(loop_run(loop) == 7);
	CHECK(!strcmp(order, "bdcae!"));
	CHECK(now() >= 60 * MS && now() < 2000 * MS);
	for (int i = 0; i < 5; i++)
		timers->destroy(t[i]);
	timers->destroy(never);
	loop_destroy(loop);
}

/* Against a plain model: random sets and disarms, then everything fires in order. */
static uint64_t fired[200], fired_count;
struct one {
	struct vtimer *timer;
	uint64_t deadline;
};
static void fire(void *arg)
{
	struct one *one = arg;

	fired[fired_count++] = one->deadline;
	one->deadline = 0;
}

static void test_heap(void)
{
	struct one all[200] = {0};
	unsigned live = 0;

	begin();
	srand(1);
	for (int i = 0; i < 200; i++)
		all[i].timer = timers->create(timers->opaque, fire, &all[i], "heap");
	for (int n = 0; n < 5000; n++) {
		struct one *one = &all[rand() % 200];

		one->deadline = rand() % 3 ? 1000 + (uint64_t)(rand() % 1000000) : 0;
		timers->set(one->timer, one->deadline);
	}
	for (int i = 0; i < 200; i++)
		live += all[i].deadline != 0;
	struct vtimer *end = timers->create(timers->opaque, note, (void *)"!", "end");

	timers->set(end, 20 * MS);
	loop_clock_resume(loop);
	loop_run(loop);
	CHECK(fired_count == live);
	for (unsigned i = 1; i < fired_count; i++)
		CHECK(fired[i - 1] <= fired[i]);
	for (int i = 0; i < 200; i++)
		timers->destroy(all[i].timer);
	timers->destroy(end);
	loop_destroy(loop);
}

static void resume_later(void *arg, uint32_t events)
{
	char c;

	(void)arg;
	(void)events;
	CHECK(read(*(int *)arg, &c, 1) == 1);
	CHECK(order[0] == 0); /* 30 ms of host time are over, but the clock stood still */
	loop_clock_resume(loop);
}

static void *write_later(void *arg)
{
	usleep(30000);
	CHECK(write(*(int *)arg, "x", 1) == 1);
	return NULL;
}

static void test_pause(void)
{
	struct vtimer *timer;
	struct loop_fd *entry;
	pthread_t thread;
	uint64_t t0, t1;
	int fds[2];

	begin();
	CHECK(now() == 0 && loop_clock_paused(loop));
	loop_clock_resume(loop);
	usleep(2000);
	loop_clock_pause(loop);
	loop_clock_pause(loop);
	t0 = now();
	CHECK(t0 >= 2 * MS);
	usleep(5000);
	CHECK(now() == t0);
	loop_clock_resume(loop);
	loop_clock_resume(loop);
	t1 = now();
	CHECK(t1 >= t0 && t1 < t0 + 1000 * MS);
	loop_clock_pause(loop);
	loop_clock_set(loop, 5000000 * MS); /* longer than this host has been up, maybe */
	CHECK(now() == 5000000 * MS);
	timer = timers->create(timers->opaque, note, (void *)"!", "t");
	timers->set(timer, now() + 5 * MS);
	CHECK(pipe(fds) == 0);
	CHECK(loop_fd_add(loop, fds[0], EPOLLIN, resume_later, &fds[0], &entry) == 0);
	pthread_create(&thread, NULL, write_later, &fds[1]);
	CHECK(loop_run(loop) == 7);
	pthread_join(thread, NULL);
	CHECK(now() >= 5000005 * MS && now() < 5002000 * MS);
	timers->destroy(timer);
	loop_fd_del(entry);
	loop_destroy(loop);
	close(fds[0]);
	close(fds[1]);
}

/* Posts and timers from threads, while the clock pauses and goes on: nothing is lost, time never
 * runs back. */
enum { THREADS = 4, ROUNDS = 2000 };
static unsigned posted, worked, timer_fired;
static struct loop_work work;
static _Atomic bool done;

static void count(void *arg)
{
	++*(unsigned *)arg;
	if (posted == THREADS * ROUNDS && done)
		loop_stop(loop, 3);
}

static void timer_count(void *arg)
{
	(void)arg;
	timer_fired++;
}

static void *storm(void *arg)
{
	struct vtimer *timer = arg;
	uint64_t last = 0;

	for (int i = 0; i < ROUNDS; i++) {
		uint64_t t = now();

		CHECK(t >= last);
		last = t;
		CHECK(loop_post(loop, count, &posted) == 0);
		loop_work_post(loop, &work);
		timers->set(timer, i % 3 ? t + 1000 : 0);
		if (i % 64 == 0)
			usleep(100);
	}
	timers->set(timer, 1);
	return NULL;
}

static void pause_once(void *arg)
{
	uint64_t t = now();

	(void)arg;
	loop_clock_pause(loop);
	CHECK(now() >= t);
	loop_clock_resume(loop);
}

static void *supervise(void *arg)
{
	pthread_t *threads = arg;

	for (int i = 0; i < 200; i++) {
		loop_post(loop, pause_once, NULL);
		usleep(100);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	done = true;
	loop_work_post(loop, &work);
	return NULL;
}

static void test_threads(void)
{
	struct vtimer *t[THREADS];
	pthread_t threads[THREADS], supervisor;

	begin();
	work = (struct loop_work){.fn = count, .arg = &worked};
	loop_clock_resume(loop);
	for (int i = 0; i < THREADS; i++) {
		t[i] = timers->create(timers->opaque, timer_count, NULL, "storm");
		pthread_create(&threads[i], NULL, storm, t[i]);
	}
	pthread_create(&supervisor, NULL, supervise, threads);
	CHECK(loop_run(loop) == 3);
	pthread_join(supervisor, NULL);
	CHECK(posted == THREADS * ROUNDS);
	CHECK(worked >= 1 && worked <= THREADS * ROUNDS + 1);
	/* The last arming of each was for the past. */
	struct vtimer *end = timers->create(timers->opaque, note, (void *)"!", "end");

	timers->set(end, now() + MS);
	loop_run(loop);
	CHECK(timer_fired >= THREADS);
	for (int i = 0; i < THREADS; i++)
		timers->destroy(t[i]);
	timers->destroy(end);
	loop_post(loop, count, &posted); /* stays queued: freed */
	loop_destroy(loop);
}

/* A callback that deletes the other descriptor of the same round, and work that is cancelled. */
static struct loop_fd *pair[2];
static unsigned pair_calls;

static void delete_other(void *arg, uint32_t events)
{
	struct loop_fd **other = arg;

	(void)events;
	pair_calls++;
	loop_fd_del(*other);
	*other = NULL;
	loop_stop(loop, 0);
}

static void test_fds(void)
{
	struct loop_work cancelled = {.fn = note, .arg = (void *)"cancelled"};
	int fds[2];

	begin();
	CHECK(pipe(fds) == 0 && write(fds[1], "x", 1) == 1);
	int twin = dup(fds[0]);

	CHECK(loop_fd_add(loop, fds[0], EPOLLIN, delete_other, &pair[1], &pair[0]) == 0);
	CHECK(loop_fd_add(loop, twin, EPOLLIN, delete_other, &pair[0], &pair[1]) == 0);
	loop_work_post(loop, &cancelled);
	loop_work_cancel(loop, &cancelled);
	CHECK(loop_run(loop) == 0);
	CHECK(pair_calls == 1 && order[0] == 0);
	loop_fd_del(pair[0]);
	loop_fd_del(pair[1]);
	loop_destroy(loop);
	close(fds[0]);
	close(fds[1]);
	close(twin);
}

static void on_signal(void *arg, int signo)
{
	CHECK(signo == SIGHUP);
	strcat(order, arg);
}

static void test_signals(void)
{
	sigset_t mask;

	begin();
	CHECK(loop_stop_on_signals(loop) == 0);
	CHECK(loop_signal_add(loop, SIGHUP, on_signal, (void *)"h") == 0);
	kill(getpid(), SIGHUP);
	CHECK(loop_run(loop) == 128 + SIGHUP);
	CHECK(!strcmp(order, "h"));
	loop_signal_del(loop, on_signal, (void *)"h");
	kill(getpid(), SIGTERM);
	CHECK(loop_run(loop) == 128 + SIGTERM);
	loop_stop(loop, 1);
	loop_stop(loop, 2);
	CHECK(loop_run(loop) == 1);
	kill(getpid(), SIGINT); /* pending at the end: swallowed */
	loop_destroy(loop);
	sigprocmask(SIG_BLOCK, NULL, &mask);
	CHECK(!sigismember(&mask, SIGTERM));
}

int main(void)
{
	alarm(60);
	test_timers();
	test_heap();
	test_pause();
	test_threads();
	test_fds();
	test_signals();
	return 0;
}
