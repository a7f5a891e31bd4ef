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

enum {
	CONFIG_MAX_CPUS = 8,
	CONFIG_MAX_SERIAL = 4,
	CONFIG_MAX_DISKS = 16,
	CONFIG_MAX_NETS = 8,
	CONFIG_MAX_FORWARDS = 32,
};
#define CONFIG_NO_RESET_LIMIT UINT32_MAX

enum engine_choice { ENGINE_AUTO, ENGINE_KVM, ENGINE_SOFT };
enum serial_kind {
	SERIAL_NONE,
	SERIAL_STDIO,
	SERIAL_PTY,
	SERIAL_FILE,
	SERIAL_SOCKET,
	SERIAL_ATTACH, /* `ferry console` */
};

struct serial_config {
	enum serial_kind kind;
	char *path; /* of FILE and SOCKET */
};

enum disk_cache { DISK_WRITEBACK, DISK_WRITETHROUGH, DISK_DIRECT, DISK_UNSAFE };
enum disk_aio { DISK_AIO_AUTO, DISK_AIO_URING, DISK_AIO_THREADS };
enum disk_format {
	DISK_FORMAT_AUTO,
	DISK_RAW,
	DISK_QCOW2,
	DISK_VMDK,
	DISK_VDI,
	DISK_VHDX,
	DISK_VPC
};
enum disk_full { DISK_FULL_STOP, DISK_FULL_REPORT };
struct disk_config {
	char *file; /* or an NBD address */
	bool read_only;
	char *serial;
	uint32_t cache, aio, format, full;
	/* No field: bytes that it had where the machine comes from; 0: not known. */
	uint64_t size;
};

/* One of none, user, tap, stream is set. */
struct net_config {
	bool none, user, restricted;
	char *tap, *stream, *mac;
	char *forward[CONFIG_MAX_FORWARDS];
	uint32_t forward_count;
};

struct vsock_config {
	char *path;
	uint32_t cid;
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
	bool hugepages;	 /* guest memory is of reserved huge pages */
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
	struct disk_config disk[CONFIG_MAX_DISKS];
	uint32_t disk_count;
	struct net_config net[CONFIG_MAX_NETS];
	uint32_t net_count;
	struct vsock_config vsock[1];
	uint32_t vsock_count;
	char *pidfile;
	char *stats; /* file for the counters at the end */
	bool quiet;
	bool detach; /* in the background, with logs in the runtime folder */
};

/* ---- the schema: how a field is parsed, checked, printed and explained ------------------ */

enum config_type {
	CONFIG_STRING,	/* char *, owned */
	CONFIG_BOOL,	/* bool */
	CONFIG_SIZE,	/* uint64_t bytes: K, M, G, T; a plain number is MiB */
	CONFIG_UINT,	/* uint32_t, decimal or 0x */
	CONFIG_CHOICE,	/* uint32_t, index of a `word` */
	CONFIG_SERIAL,	/* struct serial_config[CONFIG_MAX_SERIAL], its count right behind */
	CONFIG_STRINGS, /* char *[limit], its count right behind */
	/* Structures [limit] of `element` bytes that `sub` describes, their count right behind; a
	 * value is "FIRST,key=value,flag", ",," being a comma inside a value. */
	CONFIG_LIST,
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
	/* Of lists. */
	const struct config_field *sub;
	size_t element;
	uint32_t limit;
	int (*check_element)(const void *element, struct error *err);
	bool positional; /* of a `sub`: the value stands first and without its name */
};

extern const struct config_field run_config_fields[]; /* end with name == NULL */
/* Parts of it that other tables have, too. */
extern const struct config_field config_net_fields[], config_vsock_fields[];
int config_check_net(const void *element, struct error *err);
const char *config_engine_word(unsigned index);
const char *config_serial_word(unsigned index);
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

/* The number of elements of a list; 1 of everything else. */
unsigned config_count(const struct config_field *field, const void *object);
/* The element of a CONFIG_LIST, as `field->sub` describes it. */
const void *config_element(const struct config_field *field, const void *object, unsigned index);

/* What no single field can see: a kernel is there, the terminal is used once, and so on. */
int config_check(const struct run_config *config, struct error *err);

/* A size as people read it: "512M", "1.5G" is "1536M". */
void config_size_text(uint64_t bytes, char *buf, size_t len);
/* Letters, digits, '.', '_' and '-', first a letter or digit, at most 63. */
int config_check_name(const char *text, struct error *err);

/* "tcp:127.0.0.1:2222-:22", "udp:[::1]:53-10.0.2.15:53": the parts of a --net user,hostfwd=. */
struct net_forward;
int config_parse_forward(const char *text, struct net_forward *forward, struct error *err);
/* "52:54:00:12:34:56"; no multicast address. */
int config_parse_mac(const char *text, uint8_t mac[6], struct error *err);

#endif
