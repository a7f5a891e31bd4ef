# Guests, tests, benchmarks: included by the Makefile.
#
#   SUITE=bookworm|trixie   the kernel of `make run`
#   ARGS=...                more options for ferry run, or for tests/run.py
#   T=PATTERN               only the tests with this in their name
#   JOBS=$(nproc)           tests at a time
#   N=20                    how often `make boots` boots each kernel
#   MINUTES=5               how long `make stress` runs, and `make mmu-soak` for each sanitizer

SUITE ?= bookworm
T ?=
N ?= 20
MINUTES ?= 5
JOBS ?= $(shell nproc)
export BUILD
G := $(BUILD)/guest
GUEST_CC ?= gcc
GUEST_CFLAGS := -std=gnu17 -O2 -g -Wall -Wextra -Werror -D_GNU_SOURCE
RUN_TESTS := python3 tests/run.py
UNIT_BIN = $(patsubst %.c,$(O)/%,$(UNIT_SRC))
INITRAMFS := tests/guest/initramfs.py
INITRAMFS_DEPS := $(INITRAMFS) tests/guest/init.sh tests/tests.mk
STRESS_SRC := $(wildcard tests/guest/linux/smpstress.c tests/guest/linux/stress_*.c)
GUEST_BIN := $(addprefix $(G)/bin/,smpstress user32 pvpanic ubench)
IO_PROGRAMS := $(addprefix $(G)/bin/,iobench dmacode lastseq blkcheck netcheck) tests/bench/iobench.sh \
	tests/guest/linux/net.sh
# Modules in the order of loading: of every virtio device, of a disk and a network card.
VIRTIO_MODULES := virtio virtio_ring virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci
IO_MODULES := $(VIRTIO_MODULES) virtio_blk failover net_failover virtio_net

$(G)/bin/smpstress: $(STRESS_SRC) tests/guest/linux/stress.h
$(G)/bin/pvpanic: tests/guest/linux/pvpanic.c
$(G)/bin/ubench: tests/bench/ubench.c
$(G)/bin/iobench: tests/bench/iobench.c
$(G)/bin/dmacode: tests/guest/linux/dmacode.c
$(G)/bin/lastseq: tests/guest/linux/lastseq.c tests/guest/linux/disk.h
$(G)/bin/blkcheck: tests/guest/linux/blkcheck.c tests/guest/linux/disk.h
$(G)/bin/netcheck: tests/guest/linux/netcheck.c
$(G)/bin/vsock: tests/guest/linux/vsock.c
$(G)/bin/movecheck: tests/guest/linux/movecheck.c
$(G)/bin/movebench: tests/bench/movebench.c
$(G)/bin/counter: tests/guest/linux/counter.c
$(addprefix $(G)/bin/,smpstress pvpanic ubench iobench dmacode lastseq blkcheck netcheck vsock movebench movecheck counter):
	$(call say,GUEST,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(GUEST_CC) $(GUEST_CFLAGS) -static -pthread -o $@ $(filter %.c,$^)

# Without a C library, so that no 32-bit one has to be installed.
$(G)/bin/user32: tests/guest/linux/user32.c
	$(call say,GUEST,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(GUEST_CC) $(GUEST_CFLAGS) -m32 -fno-pic -ffreestanding -fno-stack-protector -nostdlib -static \
		-o $@ $<

# shell: what `make run` boots; test: our programs; bench: as little as possible; panic: with the kernel's pvpanic driver;
# virtio, vsock: with its virtio drivers; disk: with file systems; stress-ng: Debian's, with the libraries it needs.
$(G)/shell.cpio: tests/guest/linux/bootcheck.sh $(INITRAMFS_DEPS)
	$(call say,CPIO,$@)
	$(Q)$(INITRAMFS) -o $@ --add $<
$(G)/test.cpio: $(GUEST_BIN) tests/guest/linux/bootcheck.sh $(INITRAMFS_DEPS)
	$(call say,CPIO,$@)
	$(Q)$(INITRAMFS) -o $@ $(foreach f,$(GUEST_BIN) tests/guest/linux/bootcheck.sh,--add $(f))
$(G)/bench.cpio: $(G)/bin/ubench $(INITRAMFS_DEPS)
	$(call say,CPIO,$@)
	$(Q)$(INITRAMFS) -o $@ --add $<
$(G)/io.cpio: $(IO_PROGRAMS) $(INITRAMFS_DEPS)
	$(call say,CPIO,$@)
	$(Q)$(INITRAMFS) -o $@ $(foreach f,$(IO_PROGRAMS),--add $(f)) \
		--modules "$$(tests/guest/kernel.sh bookworm modules)" $(addprefix --module ,$(IO_MODULES))
# With the mke2fs, mkfs.xfs and checkers of the host: in /usr, because busybox prefers its own ones.
DISK_ELF := mke2fs e2fsck mkfs.xfs xfs_repair
DISK_TESTS := tests/guest/linux/disk.sh $(G)/bin/lastseq $(G)/bin/blkcheck
$(G)/disk.cpio: $(DISK_TESTS) $(INITRAMFS_DEPS)
	$(call say,CPIO,$@)
	$(Q)PATH=$$PATH:/usr/sbin:/sbin; $(INITRAMFS) -o $@ $(addprefix --add ,$(DISK_TESTS)) \
		$(foreach f,$(DISK_ELF),--elf "$$(command -v $(f)):usr/$(f)") \
		--modules "$$(tests/guest/kernel.sh bookworm modules)" \
		$(addprefix --module ,$(IO_MODULES) libcrc32c xfs)
$(G)/movebench.cpio: $(G)/bin/movebench $(INITRAMFS_DEPS)
	$(call say,CPIO,$@)
	$(Q)$(INITRAMFS) -o $@ --add $<
$(G)/panic.cpio: $(G)/bin/pvpanic tests/guest/linux/panic.sh $(INITRAMFS_DEPS)
	$(call say,CPIO,$@)
	$(Q)$(INITRAMFS) -o $@ --add $(G)/bin/pvpanic --add tests/guest/linux/panic.sh \
		--modules "$$(tests/guest/kernel.sh bookworm modules)" --module pvpanic --module pvpanic-mmio
guest: $(G)/button.cpio
$(G)/button.cpio: tests/guest/linux/button.sh $(INITRAMFS_DEPS)
	$(call say,CPIO,$@)
	$(Q)$(INITRAMFS) -o $@ --add $< --modules "$$(tests/guest/kernel.sh bookworm modules)" --module evdev --module button
$(G)/virtio.cpio: tests/guest/linux/virtio.sh $(INITRAMFS_DEPS)
	$(call say,CPIO,$@)
	$(Q)$(INITRAMFS) -o $@ --add $< --modules "$$(tests/guest/kernel.sh bookworm modules)" \
		$(addprefix --module ,$(VIRTIO_MODULES) virtio-rng virtio_console virtio_balloon)
# What a move must not break: with disk, network, entropy.
$(G)/move.cpio: $(addprefix $(G)/bin/,movecheck counter blkcheck netcheck) tests/guest/linux/net.sh $(INITRAMFS_DEPS)
	$(call say,CPIO,$@)
	$(Q)$(INITRAMFS) -o $@ $(foreach f,$(filter-out $(INITRAMFS_DEPS),$^),--add $(f)) \
		--modules "$$(tests/guest/kernel.sh bookworm modules)" \
		$(addprefix --module ,$(IO_MODULES) virtio-rng virtio_console virtio_balloon)
$(G)/vsock-%.cpio: $(G)/bin/vsock tests/guest/linux/vsock.sh $(INITRAMFS_DEPS)
	$(call say,CPIO,$@)
	$(Q)$(INITRAMFS) -o $@ $(foreach f,$(filter-out $(INITRAMFS_DEPS),$^),--add $(f)) \
		--modules "$$(tests/guest/kernel.sh $* modules)" $(addprefix --module ,$(VIRTIO_MODULES) vsock \
		vmw_vsock_virtio_transport_common vmw_vsock_virtio_transport)
$(G)/stress-ng.cpio: tests/guest/linux/stressng.sh $(INITRAMFS_DEPS)
	$(call say,CPIO,$@)
	$(Q)$(INITRAMFS) -o $@ --add $< --elf "$$(command -v stress-ng)"

# Freestanding guests; always of the plain build, whatever SAN is.
guest-x86:
	$(Q)$(MAKE) --no-print-directory -C tests/guest/x86 O=$(abspath $(BUILD))/release V=$(V)

.PHONY: guest guest-x86 image deps run test check boots stress soak test-sanitizers bench bench-io bench-migration \
	bench-mmu lint

deps:
	$(Q).ci/deps.sh all

guest: guest-x86 $(addprefix $(G)/,shell.cpio test.cpio bench.cpio panic.cpio io.cpio virtio.cpio \
	move.cpio vsock-bookworm.cpio vsock-trixie.cpio disk.cpio stress-ng.cpio)
	$(Q)for suite in bookworm trixie; do tests/guest/kernel.sh $$suite >/dev/null || exit; done

# Debian on a disk. No part of guest: what needs no disk need not wait for it.
image:
	$(Q)tests/images/debian.py >/dev/null

run:
	$(Q).ci/deps.sh run
	$(Q)$(MAKE) --no-print-directory all $(G)/shell.cpio
	$(Q)kernel=$$(tests/guest/kernel.sh $(SUITE)) && exec $(O)/ferry run --initrd $(G)/shell.cpio \
		--append "console=ttyS0 quiet" $(ARGS) "$$kernel"

test check:
	$(Q).ci/deps.sh test
	$(Q)$(MAKE) --no-print-directory all unit guest image decoders $(E)/explore
	$(Q)$(RUN_TESTS) --jobs $(JOBS) $(addprefix --unit ,$(UNIT_BIN)) --system $(ARGS) $(T)

# Every kernel with every number of processors, N times.
boots: all guest
	$(Q)$(RUN_TESTS) --system --repeat $(N) $(ARGS) boot.shell

stress: all guest
	$(Q)STRESS_SECONDS=$$(($(MINUTES) * 60)) $(RUN_TESTS) --system --only-slow $(ARGS) smp.

soak: all guest image
	$(Q)$(MAKE) --no-print-directory boots stress
	$(Q)$(RUN_TESTS) --system --only-slow $(ARGS) distro. disk. hand_over. soak.

# Links and processes that fail at each frame of a migration; goes on where it was ended.
test-migration-faults: all guest-x86
	$(Q)tests/faults.py $(ARGS)
.PHONY: test-migration-faults

# Unit tests with sanitizers: memory and undefined behaviour, then data races. (Address space layout
# randomisation off for the second: older thread sanitizers die of its width.)
test-sanitizers:
	$(Q).ci/deps.sh build
	$(Q)$(MAKE) --no-print-directory SAN=address,undefined sanitized
	$(Q)$(MAKE) --no-print-directory SAN=thread RUN_TESTS="setarch -R $(RUN_TESTS)" sanitized
.PHONY: sanitized
sanitized: unit
	$(Q)TIMEOUT_SCALE=5 $(RUN_TESTS) --jobs $(JOBS) $(addprefix --unit ,$(UNIT_BIN)) $(ARGS) $(T)

# libmmu for other architectures, and of its tests those that say most there. Without a compiler, an emulator or the
# network (liburcu) it says so and goes on.
CROSS_CI := formats walker range dirty missing stress shadow_stress
test-cross:
	$(Q)bad=0; for triple in aarch64-linux-gnu riscv64-linux-gnu; do \
		why=$$(tests/cross/ready.sh $$triple 2>&1) || { echo "SKIPPED: libmmu for $$triple: $$why"; continue; }; \
		$(MAKE) --no-print-directory -k CROSS=$$triple- libmmu mmu-cross T="$(or $(T),$(CROSS_CI))" || bad=1; \
	done; exit $$bad
.PHONY: test-cross

# Random operations on one thread, held against a model: a million of them and more on every configuration of every
# format. A minute of one processor each; -jN takes N at once.
MMU_MODEL := $(addprefix mmu-model-,$(shell seq 0 20))
mmu-model: $(MMU_MODEL)
$(MMU_MODEL): $(O)/tests/unit/test_mmu_range
	$(Q)$< $$(date +%s) 60000 $(@:mmu-model-%=%)
.PHONY: mmu-model $(MMU_MODEL)

# Threads on the MMU core alone, MINUTES for each sanitizer: 8 of them on each of six formats, and an eighth of it each what
# waits for pages and what runs nested guests.
MMU_SOAK := $(addprefix $(O)/soak/test_mmu_,stress postcopy shadow_stress)
MMU_SOAK_MS = $(shell echo $$(($(MINUTES) * $(1))))
mmu-soak:
	$(Q)$(MAKE) --no-print-directory SAN=address,undefined mmu-soaked
	$(Q)$(MAKE) --no-print-directory SAN=thread RUN="setarch -R" mmu-soaked
mmu-soaked: $(MMU_SOAK)
	$(Q)for format in 0 1 2 3 4 5; do \
		$(RUN) $(O)/soak/test_mmu_stress $$(date +%s) $(call MMU_SOAK_MS,7500) $$format 8 || exit; done
	$(Q)$(RUN) $(O)/soak/test_mmu_postcopy $$(date +%s) $(call MMU_SOAK_MS,1250)
	$(Q)$(RUN) $(O)/soak/test_mmu_shadow_stress $$(date +%s) $(call MMU_SOAK_MS,1875)
$(O)/soak/%: $(O)/tests/unit/%.o $(O)/libmmu.a
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)
.PHONY: mmu-soak mmu-soaked

# Fuzz targets with sanitizers, FUZZ_SECONDS each. Their inputs follow from FUZZ_SEED.
FUZZ_SECONDS ?= 20
FUZZ_SEED ?= 1
FUZZ_BIN = $(patsubst %.c,$(O)/%,$(wildcard tests/fuzz/fuzz_*.c))
fuzz:
	$(Q).ci/deps.sh build
	$(Q)$(MAKE) --no-print-directory SAN=address,undefined fuzz-run
.PHONY: fuzz fuzz-run
fuzz-run: $(FUZZ_BIN)
	$(Q)bad=0; for f in $(FUZZ_BIN); do echo "$$f"; \
		$$f -seconds=$(FUZZ_SECONDS) -seed=$(FUZZ_SEED) || bad=1; done; exit $$bad
$(O)/tests/fuzz/fuzz_%: $(O)/tests/fuzz/fuzz_%.o $(O)/tests/fuzz/main.o $(O)/libferry.a
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(UNICORN)/libunicorn.a $(LIBS)
-include $(patsubst %,%.d,$(FUZZ_BIN) $(O)/tests/fuzz/main)

include tests/decoders/decoders.mk
include tests/explore/explore.mk

bench: all guest
	$(Q).ci/deps.sh test
	$(Q)tests/bench/bench.py $(ARGS)

# Three times the same core: as it is, and with other locks in its place. A programme for each; and
# one of all three and the floor, in which nothing of a copy is seen but its side_SCHEME.
BENCH_MMU := $(addprefix $(O)/bench/mmu-,parallel exclusive older pairs)
BENCH_MMU_SRC := $(wildcard tests/bench/mmu/*.c)
BENCH_MMU_LOCKS = -include tests/bench/mmu/locks.h -DBENCH_LOCKS -DBENCH_
BENCH_MMU_PAIRS := $(call obj,$(addprefix tests/bench/mmu/,common.c pairs/pairs.c))
bench-mmu: $(BENCH_MMU) $(O)/ferry
	$(Q)tests/bench/bench_mmu.py --programs $(BENCH_MMU) $(ARGS)
$(O)/bench/mmu-parallel: $(call obj,$(BENCH_MMU_SRC) $(MMU_SRC))
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)
$(O)/bench/side-parallel.o: $(call obj,$(addprefix tests/bench/mmu/pairs/,side.c floor.c) $(MMU_SRC))
$(O)/bench/mmu-pairs: $(BENCH_MMU_PAIRS) $(foreach s,parallel exclusive older,$(O)/bench/side-$(s).o)
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)
$(O)/bench/side-%.o:
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(LD) -r -o $@ $^
	$(Q)objcopy --wildcard --keep-global-symbol='side_*' $@
$(O)/bench/exclusive/%.o: BENCH_SCHEME := EXCLUSIVE
$(O)/bench/older/%.o: BENCH_SCHEME := OLDER
define bench_mmu_scheme
$(O)/bench/mmu-$(1): $(patsubst %.c,$(O)/bench/$(1)/%.o,$(BENCH_MMU_SRC) $(filter-out mmu/brlock.c mmu/rcu.c,$(MMU_SRC)))
	$$(call say,LD,$$@)
	$$(Q)$$(CC) $$(ALL_LDFLAGS) -o $$@ $$^ $$(LIBS)
$(O)/bench/side-$(1).o: $(patsubst %.c,$(O)/bench/$(1)/%.o,tests/bench/mmu/pairs/side.c $(filter-out mmu/brlock.c mmu/rcu.c,$(MMU_SRC)))
$(O)/bench/$(1)/%.o: %.c tests/bench/mmu/locks.h
	$$(call say,CC,$$< $(1))
	$$(Q)mkdir -p $$(@D)
	$$(Q)$$(CC) $$(filter-out -DFERRY_VERSION=%,$$(ALL_CFLAGS)) $$(BENCH_MMU_LOCKS)$$(BENCH_SCHEME) -MMD -MP -c -o $$@ $$<
endef
$(foreach s,exclusive older,$(eval $(call bench_mmu_scheme,$(s))))
-include $(patsubst %.c,$(O)/%.d,$(BENCH_MMU_SRC) $(wildcard tests/bench/mmu/pairs/*.c)) $(foreach s,exclusive older,$(patsubst %.c,$(O)/bench/$(s)/%.d,$(BENCH_MMU_SRC) tests/bench/mmu/pairs/side.c $(MMU_SRC)))

bench-migration: all $(G)/movebench.cpio
	$(Q).ci/deps.sh test
	$(Q)tests/bench/bench_migration.py $(ARGS)

bench-io: all guest
	$(Q).ci/deps.sh test
	$(Q)tests/bench/bench_io.py $(ARGS)

lint:
	$(Q).ci/deps.sh test
	$(Q).ci/lint.sh
