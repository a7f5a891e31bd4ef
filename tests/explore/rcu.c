/* Read-copy-update (instrument.h has it instead of mmu/rcu.h). */
#include <string.h>

#include "tests/explore/explore_internal.h"

static struct {
	unsigned section; /* odd inside */
	unsigned nesting;
} readers[EXPLORE_THREADS + 1];

void rcu_begins(void)
{
	memset(readers, 0, sizeof(readers));
}

bool rcu_in_section(void)
{
	return readers[current.self].nesting;
}

int rcu_init(void)
{
	return 0;
}

/* Who is not waited for begins after the grace period has, and sees all that was before it. */
void rcu_enter(void)
{
	if (readers[current.self].nesting++)
		return;
	readers[current.self].section++;
	memory_takes_grace();
}

void rcu_exit(void)
{
	if (!--readers[current.self].nesting)
		readers[current.self].section++;
}

void rcu_synchronize(void)
{
	unsigned seen[EXPLORE_THREADS];

	if (readers[current.self].nesting)
		explore_fail("waits for a grace period inside a read section");
	explore_point("grace period");
	memory_gives_grace();
	for (unsigned i = 0; i < current.threads; i++)
		seen[i] = readers[i].section;
	for (unsigned i = 0; i < current.threads; i++) {
		while (i != current.self && seen[i] & 1 && readers[i].section == seen[i] &&
		       !current.done[i])
			explore_yield();
		memory_sees(i);
	}
}
