/*
 * One description of a machine as plain data: the command line fills it, vm_run() builds from it,
 * `info` prints it, the migration stream carries it. Every field has a row in run_config_fields:
 * parsing, checking, printing and help come from there.
 */
#ifndef VMM_CONFIG_H
#define VMM_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/error.h"

enum { CONFIG_MAX_CPUS = 8, CONFIG_MAX_SERIAL = 4 };
#define CONFIG_NO_RESET_LIMIT UINT32_MAX

enum engine_choice { ENGINE_AUTO, ENGINE_KVM, ENGINE_SOFT };
enum net_kind { NET_NONE };
enum serial_kind { SERIAL_NONE, SERIAL_STDIO, SERIAL_PTY, SERIAL_FILE, SERIAL_SOCKET };

struct serial_config {
	enum serial_kind kind;
	char *path; /* of FILE and SOCKET */
};

/* Strings are owned; NULL where nothing was given. */
struct run_config {
	char *name;   /* NULL: vm_run picks one */
	char *board;  /* versioned: "pc-1.0" */
	char *kernel; /* always there after config_check */
	char *initrd;
	char *append;	 /* kernel command line */
	uint64_t memory; /* bytes, a multiple of 4 KiB */
	bool shared;	 /* guest memory is a memfd, whatever the host's huge pages */
	bool overcommit; /* do not compare memory with what the host has */
	uint32_t cpus;	 /* 1..CONFIG_MAX_CPUS */
	uint32_t engine; /* enum engine_choice */
	char *cpu_model; /* NULL: the portable baseline */
	struct serial_config serial[CONFIG_MAX_SERIAL];
	uint32_t serial_count;
	struct serial_config console[CONFIG_MAX_SERIAL]; /* of virtio-console: one, if any */
	uint32_t console_count;
	uint32_t debug_exit;  /* port of the debug-exit device; 0: none */
	uint32_t reset_limit; /* resets that are allowed: the next one ends the run; or
				 NO_RESET_LIMIT */
	uint32_t net;	      /* enum net_kind */
	char *pidfile;
	char *stats; /* file for the counters at the end */
	bool quiet;
};

/* ---- the schema: how a field is parsed, checked, printed and explained ------------------ */

enum config_type {
	CONFIG_STRING, /* char *, owned */
	CONFIG_BOOL,   /* bool */
	CONFIG_SIZE,   /* uint64_t bytes: K, M, G, T; a plain number is MiB */
	CONFIG_UINT,   /* uint32_t, decimal or 0x */
	CONFIG_CHOICE, /* uint32_t, index of a `word` */
	CONFIG_SERIAL, /* struct serial_config[CONFIG_MAX_SERIAL], its count right behind */
};

struct config_field {
	const char *name; /* "reset_limit", stable: scripts and streams see it */
	enum config_type type;
	size_t offset;
	uint64_t min, max; /* of numbers and sizes; of strings: the longest, 0: any */
	/* Words that a value may be (CHOICE: by index) or begin with (SERIAL); NULL at the end. */
	const char *(*word)(unsigned index);
	const char *initial; /* parsed by config_init; NULL: zero */
	const char *help;    /* a phrase without a full stop */
	/* A further check of the value's text; 0 or -EINVAL with a text that follows the value. */
	int (*check)(const char *text, struct error *err);
};

extern const struct config_field run_config_fields[]; /* end with name == NULL */
const struct config_field *config_find(const struct config_field *fields, const char *name);

/* Zeroes the `size` bytes and sets the initial values. */
void config_init(const struct config_field *fields, void *object, size_t size);
void config_free(const struct config_field *fields, void *object);
/* Parses one value; lists grow, everything else is replaced. -EINVAL with the valid range in the
 * text. */
int config_parse(const struct config_field *field, void *object, const char *text,
		 struct error *err);
/* Writes the value as config_parse would read it; returns its length as snprintf does. `index`
 * counts the elements of a list; beyond its end, and for what is not set, "" and -1. */
int config_format(const struct config_field *field, const void *object, unsigned index, char *buf,
		  size_t len);

/* What no single field can see: a kernel is there, the terminal is used once, and so on. */
int config_check(const struct run_config *config, struct error *err);

/* A size as people read it: "512M", "1.5G" is "1536M". */
void config_size_text(uint64_t bytes, char *buf, size_t len);
/* Letters, digits, '.', '_' and '-', first a letter or digit, at most 63. */
int config_check_name(const char *text, struct error *err);

#endif
