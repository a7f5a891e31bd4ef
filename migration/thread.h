/*
 * How ferry starts a thread: signals are the main thread's business, but those of a crash: blocked,
 * they would end the process without its handler, which puts the terminal back (vmm/cleanup.h).
 */
#ifndef MIGRATION_THREAD_H
#define MIGRATION_THREAD_H

#include <pthread.h>

/* As pthread_create(), joinable; 0 or -errno. The caller's own mask stays as it is. */
int thread_start(pthread_t *thread, void *(*fn)(void *arg), void *arg);

#endif
