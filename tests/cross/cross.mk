# CROSS=aarch64-linux-gnu- or riscv64-linux-gnu-: libmmu, and its unit tests under qemu-user, for another
# architecture; included by the Makefile when CROSS is given. The compilers are Debian's, liburcu comes from urcu.sh.
#
#   make CROSS=aarch64-linux-gnu- libmmu
#   make CROSS=riscv64-linux-gnu- mmu-cross T="formats walker"    (default: all of test_mmu_*)
#
#   CROSS_SHARE=10   tests of one thread do a tenth: emulation costs about what sanitizers do
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
CROSS_SHARE ?= 10
CROSS_RUN ?= qemu-$(firstword $(subst -, ,$(CROSS_TRIPLE)))-static
CROSS_TESTS := $(patsubst tests/unit/test_mmu_%.c,%,$(wildcard tests/unit/test_mmu_*.c))
CROSS_BIN := $(addprefix $(O)/tests/unit/test_mmu_,$(or $(T),$(CROSS_TESTS)))

.PHONY: mmu-cross $(CROSS_BIN:%=%.run)
mmu-cross: $(CROSS_BIN:%=%.run)
# What a test printed is of interest when it failed.
$(CROSS_BIN:%=%.run): %.run: %
	$(Q)out=$$(timeout 300 $(CROSS_RUN) $< 2>&1) && echo "pass $(<F) for $(CROSS_TRIPLE)" || \
		{ echo "$$out" | tail -n 30; echo "FAILED: $(<F) for $(CROSS_TRIPLE)"; exit 1; }
# -O1: at -O2 a decoder of every format takes half a minute, and only the library's code is on trial.
$(O)/tests/unit/test_mmu_%: tests/unit/test_mmu_%.c $(O)/libmmu.a
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -O1 -DTEST_SHARE=$(CROSS_SHARE) -MMD -MP -MT $@ -MF $@.d -c -o $@.o $<
	$(Q)$(CROSS)gcc -static -pthread -o $@ $@.o $(filter %.a,$^) $(CROSS_URCU)/usr/lib/$(CROSS_TRIPLE)/liburcu-memb.a \
		$(CROSS_URCU)/usr/lib/$(CROSS_TRIPLE)/liburcu-common.a \
		$(if $(filter riscv64%,$(CROSS)),-Wl$(comma)--defsym=__isoc23_strtol=strtol$(comma)--defsym=__isoc23_strtoul=strtoul) # built with a newer libc
-include $(CROSS_BIN:%=%.d)
