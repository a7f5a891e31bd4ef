# ferry. `make help` prints the lines that begin with "#?".
#
#? make                  build ferry (build/release/ferry)
#? make deps             install what building and testing need (Debian packages)
#? make run              build, then boot a Debian kernel to a shell in this terminal
#? make test             unit tests, guest tests, whole-programme tests
#? make test-sanitizers  unit tests under the address, undefined and thread sanitizers
#? make test-cross       libmmu and its tests for arm64 and RISC-V, under qemu-user
#? make test-migration-faults  links and processes that fail at each frame of a migration
#? make fuzz             fuzz targets with sanitizers, FUZZ_SECONDS=20 each
#? make boots            boot both kernels N=20 times with 1, 2, 4 and 8 processors
#? make stress           the stress suite for MINUTES=5
#? make soak             boots, stress, large disks, a Debian under mixed load for SOAK_MINUTES=30
#? make image            Debian on a disk image for tests, built once and kept
#? make mmu-decoders     emulated processors walk the tables of mmu/, PROBES=4000 accesses per format
#? make mmu-explore      every interleaving of small programs over mmu/, PREEMPTIONS=2 STALE=1
#? make mmu-mutants      mistakes planted into mmu/ are found by that
#? make mmu-model        a million random operations on each format, held against a model
#? make mmu-soak         8 threads on the MMU core under sanitizers, MINUTES=5 for each
#? make bench            compare with QEMU's TCG
#? make bench-io         the same for disks and network
#? make bench-migration  moves between two namespaces, next to QEMU's
#? make bench-mmu        costs of the MMU core, per format, next to a floor and other locking
#? make lint             what the continuous integration checks without running anything
#? make libmmu           the second-stage MMU core alone, as a library (mmu/README.md)
#? make mmu-share        how much of it is common to all formats
#? make man              man pages, in build/release/man
#? make install          programme, man pages, shell completion: PREFIX=/usr/local, DESTDIR=
#? make uninstall        remove them
#? make clean            remove the build folder
#?
#?   BUILD=DIR     build somewhere else than ./build
#?   V=1           show the commands
#?   SAN=LIST      address,undefined or thread: build with sanitizers, in a folder of their own
#?   WERROR=0      do not stop at warnings
#?   CROSS=TRIPLE- libmmu and mmu-cross (its tests under qemu-user): aarch64-linux-gnu- or riscv64-linux-gnu-
#?   T=PATTERN     tests: only those with this in their name
#?   ARGS=...      more options for ferry run, or for tests/run.py
#?   SUITE=NAME    the kernel of make run: bookworm or trixie
#?   FERRY_CACHE   folder that keeps kernels and the built Unicorn (~/.cache/ferry)

VERSION := 0.1
CC ?= gcc
SAN ?=
BUILD ?= build
comma := ,
O := $(BUILD)/$(if $(SAN),$(subst $(comma),-,$(SAN)),release)
PREFIX ?= /usr/local
DESTDIR ?=

ifneq ($(V),1)
Q := @
say = @printf '  %-8s%s\n' '$(1)' '$(2)';
else
say = $(if $(1),)
endif

# Unicorn is built once per patch series and kept outside the tree (cpu/soft/unicorn/README.md).
UNICORN_VARIANT := $(if $(findstring address,$(SAN)),asan,release)
UNICORN := $(shell cpu/soft/unicorn/build.sh --dir $(UNICORN_VARIANT))

PKGS := liburcu-memb liblz4 libzstd zlib liblzma jansson liburing libnbd slirp gnutls
WARN := -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes \
	-Wmissing-prototypes -Wundef -Wvla -Wwrite-strings -Wformat=2 $(if $(filter 0,$(WERROR)),,-Werror)
# Sanitizers make the compiler slow: format-specialised code takes it minutes at -O2.
CFLAGS ?= $(if $(SAN),-O1,-O2) -g
ALL_CFLAGS = -std=gnu17 $(CFLAGS) $(WARN) -I. -D_GNU_SOURCE -DFERRY_VERSION='"$(VERSION)"' \
	-pthread $(CROSS_CFLAGS) $(if $(PKGS),$(shell pkg-config --cflags $(PKGS) 2>/dev/null)) \
	$(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer)
ALL_LDFLAGS = -pthread -Wl,--as-needed $(LDFLAGS) $(if $(SAN),-fsanitize=$(SAN))
LIBS = $(shell pkg-config --libs $(PKGS)) -lm

CROSS ?=
ifneq ($(CROSS),)
include tests/cross/cross.mk
endif

MMU_SRC := $(wildcard mmu/*.c mmu/format/*.c mmu/guest/*.c)
LIB_SRC := $(MMU_SRC) $(wildcard migration/*.c devices/*.c devices/*/*.c cpu/*.c cpu/x86/*.c \
	cpu/soft/*.c cpu/kvm/*.c vmm/*.c vmm/boot/*.c vmm/board/*.c)
CLI_SRC := $(wildcard cli/*.c)
UNIT_SRC := $(wildcard tests/unit/test_*.c)

obj = $(patsubst %.c,$(O)/%.o,$(1))

.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all
all: $(O)/ferry

$(O)/%.o: %.c $(UNICORN)/.done
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(if $(filter cpu/soft/% tests/%,$<),-isystem $(UNICORN)/include) -MMD -MP -c -o $@ $<

$(O)/libmmu.a: $(call obj,$(MMU_SRC))
$(O)/libferry.a: $(call obj,$(LIB_SRC))
$(O)/lib%.a:
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) qcs $@ $^

# Which library was linked: another patch series is another folder, and its files may be older than ours.
$(O)/.unicorn: $(UNICORN)/.done FORCE
	$(Q)mkdir -p $(@D)
	$(Q)echo $(UNICORN) | cmp -s - $@ || echo $(UNICORN) >$@
.PHONY: FORCE
FORCE:

$(O)/ferry: $(call obj,$(CLI_SRC)) $(O)/libferry.a $(O)/.unicorn
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $(filter-out %/.unicorn,$^) $(UNICORN)/libunicorn.a $(LIBS)

$(O)/tests/unit/%: $(O)/tests/unit/%.o $(O)/libferry.a $(O)/.unicorn
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $(filter-out %/.unicorn,$^) $(UNICORN)/libunicorn.a $(LIBS)

$(UNICORN)/.done:
	$(call say,BUILD,Unicorn $(UNICORN_VARIANT): once$(comma) then kept)
	$(Q)cpu/soft/unicorn/build.sh $(UNICORN_VARIANT)

.PHONY: unit clean
unit: $(patsubst %.c,$(O)/%,$(UNIT_SRC))
clean:
	$(Q)rm -rf $(BUILD)

.PHONY: help man install uninstall
help:
	@sed -n 's/^#?//p' Makefile

# The programme writes its own pages and completion, from the tables that its parser reads. A folder as
# target: the names of the pages are known to the programme only.
MAN := $(O)/man
man: $(MAN)/.done
$(MAN)/.done: $(O)/ferry
	$(call say,MAN,$(MAN))
	$(Q)rm -rf $(MAN) && mkdir -p $(MAN)
	$(Q)for page in $$($(O)/ferry man); do $(O)/ferry man $$page >$(MAN)/$$page.1 || exit; done
	$(Q)touch $@

BASH_COMPLETION := $(PREFIX)/share/bash-completion/completions/ferry
ZSH_COMPLETION := $(PREFIX)/share/zsh/site-functions/_ferry
FISH_COMPLETION := $(PREFIX)/share/fish/vendor_completions.d/ferry.fish

install: $(O)/ferry man
	$(call say,INSTALL,$(DESTDIR)$(PREFIX))
	$(Q)install -D -m 755 $(O)/ferry "$(DESTDIR)$(PREFIX)/bin/ferry"
	$(Q)install -d "$(DESTDIR)$(PREFIX)/share/man/man1"
	$(Q)install -m 644 $(MAN)/*.1 "$(DESTDIR)$(PREFIX)/share/man/man1"
	$(Q)install -d "$(dir $(DESTDIR)$(BASH_COMPLETION))" "$(dir $(DESTDIR)$(ZSH_COMPLETION))" \
		"$(dir $(DESTDIR)$(FISH_COMPLETION))"
	$(Q)$(O)/ferry completion bash >"$(DESTDIR)$(BASH_COMPLETION)"
	$(Q)$(O)/ferry completion zsh >"$(DESTDIR)$(ZSH_COMPLETION)"
	$(Q)$(O)/ferry completion fish >"$(DESTDIR)$(FISH_COMPLETION)"

uninstall:
	$(Q)rm -f "$(DESTDIR)$(PREFIX)/bin/ferry" "$(DESTDIR)$(BASH_COMPLETION)" \
		"$(DESTDIR)$(ZSH_COMPLETION)" "$(DESTDIR)$(FISH_COMPLETION)" \
		"$(DESTDIR)$(PREFIX)"/share/man/man1/ferry.1 "$(DESTDIR)$(PREFIX)"/share/man/man1/ferry-*.1

include mmu/mmu.mk
include tests/tests.mk

-include $(patsubst %.o,%.d,$(call obj,$(LIB_SRC) $(CLI_SRC) $(UNIT_SRC)))
