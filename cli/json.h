/* What the command line prints as JSON. */
#ifndef CLI_JSON_H
#define CLI_JSON_H

#include <jansson.h>
#include <stdio.h>

/* A quoted string. Bytes that are no UTF-8 are written as U+FFFD, so that the output always parses.
 */
void print_json_string(FILE *out, const char *text);
/* A whole value on standard output, for scripts and for reading; the reference is taken. */
void print_json(json_t *value);

#endif
