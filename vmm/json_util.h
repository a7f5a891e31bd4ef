/* What JSON needs beyond libjansson: text of unknown encoding. */
#ifndef VMM_JSON_UTIL_H
#define VMM_JSON_UTIL_H

#include <jansson.h>

/* A string value; bytes that are no UTF-8 become U+FFFD. NULL (text or no memory): null. */
json_t *json_text(const char *text);

#endif
