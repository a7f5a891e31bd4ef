# Bare programs that let an emulated processor walk the tables that libmmu built; included by tests.mk.
#
#   PROBES=4000   accesses for each format
#   SEED=N        of the tables and the accesses (default: the time)
D := $(BUILD)/decoders
DECODER_CC ?= clang
DECODER_CFLAGS := -std=gnu17 -O2 -g -ffreestanding -nostdlib -static -fno-pic -fno-stack-protector -Wall -Wextra \
	-Werror -I. -fuse-ld=lld
PROBES ?= 4000
SEED ?= $(shell date +%s)

$(D)/make_image: tests/decoders/make_image.c $(O)/libmmu.a
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -o $@ $(filter %.c %.a,$^) $(ALL_LDFLAGS) $(LIBS)
-include $(D)/make_image.d

# Each program: its triple and options, where the list of probes lies, and its files.
define DECODER
$(D)/$(1): $(addprefix tests/decoders/,bare.c $(4)) $(wildcard tests/decoders/*.h)
	$$(call say,BARE,$$@)
	$$(Q)mkdir -p $$(@D)
	$$(Q)$(DECODER_CC) --target=$(2) $(DECODER_CFLAGS) -DIMAGE_AT=$(3) \
		-Wl,-T,$$(filter %.lds,$$^) -o $$@ $$(filter %.c %.S,$$^)
endef
$(eval $(call DECODER,arm64,aarch64-none-elf -mgeneral-regs-only -mstrict-align,0x48000000,arm64.S arm64.c arm64.lds))
$(eval $(call DECODER,riscv64,riscv64-none-elf -march=rv64ima -mabi=lp64 -mcmodel=medany -mno-relax,0x88000000,\
	riscv.S riscv.c riscv.lds))
$(eval $(call DECODER,riscv32,riscv32-none-elf -march=rv32ima -mabi=ilp32 -mcmodel=medany -mno-relax,0x83000000,\
	riscv.S riscv.c riscv.lds))
$(eval $(call DECODER,svm.elf64,x86_64-none-elf -mno-red-zone -mgeneral-regs-only,0x06000000,\
	x86.S x86.c svm.c x86.lds))
$(eval $(call DECODER,vmx.elf64,x86_64-none-elf -mno-red-zone -mgeneral-regs-only,0x06000000,\
	x86.S x86.c ata.c vmx.c x86.lds))

# A 32-bit ELF file for multiboot; a flat one, and a firmware that jumps to it, for Bochs.
$(D)/svm: $(D)/svm.elf64
	$(Q)objcopy -O elf32-i386 $< $@
$(D)/vmx: $(D)/vmx.elf64
	$(Q)objcopy -O binary $< $@
$(D)/rom: tests/decoders/rom.S
	$(call say,BARE,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(DECODER_CC) --target=x86_64-none-elf -c -o $@.o $<
	$(Q)ld.lld --oformat binary -Ttext 0 -o $@ $@.o

.PHONY: decoders mmu-decoders
decoders: $(addprefix $(D)/,make_image arm64 riscv64 riscv32 svm vmx rom)
mmu-decoders: decoders
	$(Q)tests/decoders/decoders.py --seed $(SEED) --probes $(PROBES) $(T)
