/* Lists of strings and of structures in a configuration: what config.c leaves to config_list.c.
 * `at` is the list itself. */
#ifndef VMM_CONFIG_LIST_H
#define VMM_CONFIG_LIST_H

#include "vmm/config.h"

uint32_t *config_list_count(const struct config_field *field, void *at);
int config_parse_strings(const struct config_field *field, void *at, const char *text,
			 struct error *err);
int config_parse_list(const struct config_field *field, void *at, const char *text,
		      struct error *err);
int config_format_element(const struct config_field *field, const void *at, unsigned index,
			  char *buf, size_t len);
void config_free_list(const struct config_field *field, void *at);

#endif
