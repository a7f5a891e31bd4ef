/*
 * What ferry tells its user while a guest runs: one line on stderr, "ferry: TEXT". Any thread.
 */
#ifndef VMM_MESSAGE_H
#define VMM_MESSAGE_H

#include <stdbool.h>

void message(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Control characters (of a file's name, of a guest) become '?': a message stays one line. */
void message_clean(char *text);
/* Standard error is a log: lines begin with the time, and `after` is called behind each, on the
 * thread that wrote it. NULL: no log any more. Before other threads are made, or after them. */
void message_set_log(void (*after)(void *opaque), void *opaque);
/* The terminal is raw: lines need a carriage return. */
void message_set_raw(bool raw);

#endif
