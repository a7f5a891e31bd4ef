# ferry: `make help` lists the targets.
#
#   BUILD=DIR   build somewhere else than ./build
#   V=1         show the commands
#   SAN=LIST    address,undefined or thread: build with sanitizers, in a folder of their own
#   WERROR=0    do not stop at warnings

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
say = @printf '  %-8s%s\n' $(1) $(2);
else
say = $(if $(1),)
endif

# Unicorn is built once per patch series and kept outside the tree (cpu/soft/unicorn/README.md).
UNICORN_VARIANT := $(if $(findstring address,$(SAN)),asan,release)
UNICORN := $(shell cpu/soft/unicorn/build.sh --dir $(UNICORN_VARIANT))

PKGS := liburcu-memb liblz4 libzstd zlib liblzma
WARN := -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes \
	-Wmissing-prototypes -Wundef -Wvla -Wwrite-strings -Wformat=2 $(if $(filter 0,$(WERROR)),,-Werror)
CFLAGS ?= -O2 -g
ALL_CFLAGS = -std=gnu17 $(CFLAGS) $(WARN) -I. -D_GNU_SOURCE -DFERRY_VERSION='"$(VERSION)"' \
	-pthread $(shell pkg-config --cflags $(PKGS) 2>/dev/null) \
	$(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer)
ALL_LDFLAGS = -pthread $(LDFLAGS) $(if $(SAN),-fsanitize=$(SAN))
LIBS = $(shell pkg-config --libs $(PKGS)) -lm

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
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(O)/ferry: $(call obj,$(CLI_SRC)) $(O)/libferry.a
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(UNICORN)/libunicorn.a $(LIBS)

$(O)/tests/unit/%: $(O)/tests/unit/%.o $(O)/libferry.a
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(UNICORN)/libunicorn.a $(LIBS)

$(UNICORN)/.done:
	$(call say,BUILD,Unicorn ($(UNICORN_VARIANT): once, then kept))
	$(Q)cpu/soft/unicorn/build.sh $(UNICORN_VARIANT)

.PHONY: libmmu unit clean
libmmu: $(O)/libmmu.a
unit: $(patsubst %.c,$(O)/%,$(UNIT_SRC))
clean:
	$(Q)rm -rf $(BUILD)

include tests/tests.mk

-include $(patsubst %.o,%.d,$(call obj,$(LIB_SRC) $(CLI_SRC) $(UNIT_SRC)))
