# Systematic exploration of interleavings over the real code of mmu/; included by tests.mk.
#
#   PREEMPTIONS=2 STALE=1   its bounds (make test: 2 and 0, 1 and 1; with 3 it takes hours)
E := $(BUILD)/explore
PREEMPTIONS ?= 2
STALE ?= 1
EXPLORE_CFLAGS := -std=gnu17 -O2 -g -Wall -Wextra -Werror -Wno-unused-value -Wno-maybe-uninitialized -I. -D_GNU_SOURCE
EXPLORE_OBJ := $(patsubst mmu/%.c,$(E)/%.o,$(filter-out mmu/rcu.c,$(MMU_SRC)))

$(E)/%.o: mmu/%.c tests/explore/instrument.h tests/explore/calls.h
	$(call say,CC,$< for the exploration)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(EXPLORE_CFLAGS) -include tests/explore/instrument.h -MMD -MP -c -o $@ $<
EXPLORE_SRC := $(wildcard tests/explore/*.c)
$(E)/explore: $(EXPLORE_SRC) $(EXPLORE_OBJ) $(wildcard tests/explore/*.h tests/unit/*decoder.h)
	$(call say,LD,$@)
	$(Q)$(CC) $(EXPLORE_CFLAGS) -Wconversion -Wno-sign-conversion -o $@ $(filter %.c %.o,$^)
-include $(EXPLORE_OBJ:.o=.d)

.PHONY: mmu-explore mmu-mutants
mmu-explore: $(E)/explore
	$(Q)$(E)/explore -p $(PREEMPTIONS) -s $(STALE)
mmu-mutants: $(E)/explore
	$(Q)tests/explore/mutants.py $(T)
