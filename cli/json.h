/* The little of JSON that the command line prints. */
#ifndef CLI_JSON_H
#define CLI_JSON_H

#include <stdio.h>

/* A quoted string. Bytes that are no UTF-8 are written as U+FFFD, so that the output always parses.
 */
void json_string(FILE *out, const char *text);

#endif
