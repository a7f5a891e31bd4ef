/* Options of the verbs that take a machine which exists: what this host gives it. */
#ifndef CLI_INCOMING_OPTIONS_H
#define CLI_INCOMING_OPTIONS_H

#define INCOMING_OPTIONS                                                                           \
	OPTION("name", 0, "NAME", "name", .group = "Here"),                                        \
		OPTION("serial", 0, "stdio|pty|attach|file=PATH|socket=PATH|none", "serial",       \
		       .completion = COMPLETE_FILES),                                              \
		OPTION("console", 0, "stdio|pty|attach|file=PATH|socket=PATH|none", "console",     \
		       .completion = COMPLETE_FILES),                                              \
		OPTION("disk", 0, "N=FILE", "disk", .completion = COMPLETE_FILES),                 \
		OPTION("net", 0, "user|tap=NAME|stream=unix:PATH[,KEY=VALUE]...", "net"),          \
		OPTION("vsock", 0, "PATH[,cid=N]", "vsock", .completion = COMPLETE_FILES),         \
		OPTION("engine", 0, "auto|kvm|soft", "engine"),                                    \
		OPTION("overcommit", 0, NULL, "overcommit"), OPTION("shared", 0, NULL, "shared"),  \
		OPTION("hugepages", 0, NULL, "hugepages")

#define TLS_OPTIONS                                                                                \
	OPTION("tls-certs", 0, "DIR", "tls-certs", .group = "Connection",                          \
	       .completion = COMPLETE_FILES),                                                      \
		OPTION("tls-psk", 0, "FILE", "tls-psk", .completion = COMPLETE_FILES),             \
		OPTION("tls-name", 0, "NAME", "tls-name")

#define INCOMING_RUN_OPTIONS                                                                       \
	OPTION("detach", 'd', NULL, "detach", .group = "Run"),                                     \
		OPTION("pidfile", 0, "FILE", "pidfile", .completion = COMPLETE_FILES),             \
		OPTION("stats", 0, "FILE", "stats", .completion = COMPLETE_FILES),                 \
		OPTION("quiet", 'q', NULL, "quiet")

#endif
