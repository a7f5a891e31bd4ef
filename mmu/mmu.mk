# The MMU core alone: included by the Makefile. It needs liburcu and nothing else of this tree, no
# Unicorn either.
.PHONY: libmmu mmu-share mmu-headers
libmmu: mmu-headers $(O)/libmmu.a

# A header of another folder would tie it to the rest.
mmu-headers:
	$(Q)! grep -nE '^#include "' $$(find mmu -name '*.[ch]') /dev/null | grep -v '"mmu/' || \
		{ echo "mmu/ includes nothing of other folders" >&2; exit 1; }

$(O)/mmu/%.o: mmu/%.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(filter-out -DFERRY_VERSION=%,$(ALL_CFLAGS)) -MMD -MP -c -o $@ $<

mmu-share:
	$(Q)python3 mmu/share.py
