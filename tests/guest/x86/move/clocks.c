/*
 * Time and interrupts. The TSC never goes back, whichever processor reads it, and runs as fast as
 * the ACPI timer; a timer comes, never early and not too often; a message between processors is
 * heard once.
 */
#include "move.h"

enum { VECTOR_TIMER = 0x61, VECTOR_ASK = 0x71 };

#define PM_TIMER 0x608
#define PM_HZ	 3579545ull

static volatile u32 tsc_lock;
static u64 newest, patience, period;
static bool has_deadline;
static u32 lapic_count;

/* PM timer and TSC at the same moment; the first ones, and of now. */
static u64 pm_tsc_first, pm_sum;
static u32 pm_last;

static u64 tsc_in_order(void)
{
	u64 now;

	while (__atomic_exchange_n(&tsc_lock, 1, __ATOMIC_ACQUIRE))
		cpu_relax();
	now = rdtsc();
	if (now < newest)
		wrong("the TSC went back from %lu to %lu", newest, now);
	newest = now;
	__atomic_store_n(&tsc_lock, 0, __ATOMIC_RELEASE);
	return now;
}

static u32 read_pm(void)
{
	return inl(PM_TIMER);
}

static void arm(struct worker *w)
{
	w->deadline = rdtsc() + period;
	wrmsr(MSR_TSC_DEADLINE, w->deadline);
}

/* Those with an odd index have the deadline, the others the counter. */
static bool by_deadline(const struct worker *w)
{
	return has_deadline && w->index % 2;
}

static void on_timer(struct frame *f)
{
	struct worker *w = &workers[this_cpu()->index];

	(void)f;
	w->ticks++;
	if (by_deadline(w)) {
		const u64 now = rdtsc();

		if (now < w->deadline)
			wrong("the timer of %lu came at %lu", w->deadline, now);
		arm(w);
	}
	lapic_eoi();
}

static void on_ask(struct frame *f)
{
	struct worker *w = &workers[this_cpu()->index];

	(void)f;
	w->answered++;
	lapic_eoi();
}

static u32 read_counter(void)
{
	return lapic_read(LAPIC_TMCCT);
}

void clocks_init(void)
{
	u32 a = 0, b = 0;
	u64 t0, t1;

	has_deadline = cpuid(1, 0).c & BIT(24);
	period = tsc_hz() / 200;
	patience = tsc_hz() * 30;
	irq_handler(VECTOR_TIMER, on_timer);
	irq_handler(VECTOR_ASK, on_ask);
	/* How fast the counter goes. */
	lapic_write(LAPIC_TDCR, 0xb);
	lapic_write(LAPIC_TMICT, ~0u);
	t0 = sample(read_counter, &a);
	delay_us(5000);
	t1 = sample(read_counter, &b);
	lapic_write(LAPIC_TMICT, 0);
	lapic_count = (u32)((u64)(a - b) * period / (t1 - t0));
	pm_tsc_first = sample(read_pm, &pm_last);
}

void clocks_start(struct worker *w)
{
	w->heard = rdtsc();
	lapic_write(LAPIC_TDCR, 0xb);
	if (by_deadline(w)) {
		lapic_write(LAPIC_LVTT, VECTOR_TIMER | 2u << 17);
		arm(w);
	} else {
		lapic_write(LAPIC_LVTT, VECTOR_TIMER | 1u << 17);
		lapic_write(LAPIC_TMICT, lapic_count);
	}
}

static void check_timer(struct worker *w, u64 now)
{
	const u32 ticks = w->ticks;
	const u64 most = (now - pm_tsc_first) / period;

	if (ticks != w->heard_ticks) {
		w->heard_ticks = ticks;
		w->heard = now;
	} else if (now - w->heard > patience) {
		wrong("no timer for %lu s after %u of them", (now - w->heard) / tsc_hz(), ticks);
	}
	if (ticks > most + most / 10 + 10)
		wrong("%u timers where %lu could have come", ticks, most);
}

/* As long as the last one was not heard there is no other. */
static void check_messages(struct worker *w, u64 now)
{
	struct worker *o = &workers[(w->index + 1) % cpu_count];

	if (o->answered > w->asked)
		wrong("%u messages were heard, %u were sent", o->answered, w->asked);
	if (o->answered == w->asked) {
		w->asked_at = now;
		w->asked++;
		lapic_ipi(cpu_get(o->index)->apic_id, VECTOR_ASK | ICR_ASSERT);
	} else if (now - w->asked_at > patience) {
		wrong("message %u was not heard", w->asked);
	}
}

/* As the TSC goes, within 1 % and a tenth of a second. */
static void check_pm(void)
{
	u32 pm;
	const u64 now = sample(read_pm, &pm) - pm_tsc_first, slack = now / 100 + tsc_hz() / 10;
	u64 same;

	pm_sum += pm - pm_last;
	pm_last = pm;
	same = pm_sum / PM_HZ * tsc_hz() + pm_sum % PM_HZ * tsc_hz() / PM_HZ;
	if (now > same + slack || same > now + slack)
		wrong("%lu ms have passed, by the ACPI timer %lu ms", now / (tsc_hz() / 1000),
		      same / (tsc_hz() / 1000));
}

void clocks_check(struct worker *w)
{
	const u64 now = tsc_in_order();

	check_timer(w, now);
	if (cpu_count > 1 && workers[(w->index + 1) % cpu_count].pass)
		check_messages(w, now);
	if (!w->index)
		check_pm();
}
