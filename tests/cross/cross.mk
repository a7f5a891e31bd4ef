# CROSS=aarch64-linux-gnu- or riscv64-linux-gnu-: libmmu, and its unit tests under qemu-user, for another
# architecture; included by the Makefile when CROSS is given. The compilers are Debian's, liburcu comes from urcu.sh.
#
#   make CROSS=aarch64-linux-gnu- libmmu
#   make CROSS=riscv64-linux-gnu- mmu-cross T="formats walker"    (default: all of test_mmu_*)
CROSS_TRIPLE := $(patsubst %-,%,$(CROSS))
CROSS_URCU := $(shell tests/cross/urcu.sh $(CROSS_TRIPLE))
ifeq ($(CROSS_URCU),)
$(error no liburcu for $(CROSS_TRIPLE))
endif
# liburcu refuses gcc before 13.3 for RISC-V (its atomics are too weak there); Debian 12 has 12.2, and clang.
CC := $(if $(filter riscv64%,$(CROSS)),clang --target=$(CROSS_TRIPLE),$(CROSS)gcc)
AR := $(CROSS)ar
O := $(BUILD)/$(CROSS_TRIPLE)
PKGS :=
CROSS_CFLAGS := -isystem $(CROSS_URCU)/usr/include -isystem $(CROSS_URCU)/usr/include/$(CROSS_TRIPLE) \
	-isystem /usr/$(CROSS_TRIPLE)/include $(if $(filter riscv64%,$(CROSS)),-Wno-error)
CROSS_RUN ?= qemu-$(firstword $(subst -, ,$(CROSS_TRIPLE)))-static
CROSS_TESTS := $(patsubst tests/unit/test_mmu_%.c,%,$(wildcard tests/unit/test_mmu_*.c))

.PHONY: mmu-cross
mmu-cross: $(addprefix $(O)/tests/unit/test_mmu_,$(or $(T),$(CROSS_TESTS)))
	$(Q)command -v $(CROSS_RUN) >/dev/null || { echo "SKIPPED: no $(CROSS_RUN) here"; exit 0; }; \
		bad=0; for t in $^; do echo "$${t##*/} for $(CROSS_TRIPLE)"; $(CROSS_RUN) $$t || bad=1; done; exit $$bad
$(O)/tests/unit/test_mmu_%: tests/unit/test_mmu_%.c $(O)/libmmu.a
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -c -o $@.o $<
	$(Q)$(CROSS)gcc -static -pthread -o $@ $@.o $(filter %.a,$^) $(CROSS_URCU)/usr/lib/$(CROSS_TRIPLE)/liburcu-memb.a \
		$(CROSS_URCU)/usr/lib/$(CROSS_TRIPLE)/liburcu-common.a \
		$(if $(filter riscv64%,$(CROSS)),-Wl$(comma)--defsym=__isoc23_strtol=strtol$(comma)--defsym=__isoc23_strtoul=strtoul) # built with a newer libc
