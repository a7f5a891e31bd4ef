/* ACPI fixed hardware: ACPI 6.5 section 4.8 (PM1 event 4.8.3.1, control 4.8.3.2, PM timer 4.8.3.3).
 */
#include "devices/pc.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "devices/util.h"

#define PM_SIZE	  16
#define PM_TIMER  8
#define PM_RESET  12
#define PM_TMR_HZ 3579545ULL

#define STS_TMR	   (1u << 0)
#define STS_PWRBTN (1u << 8)
#define STS_WAK	   (1u << 15)
#define STS_MASK   (STS_TMR | (1u << 4) | (1u << 5) | STS_PWRBTN | (1u << 9) | (1u << 10) | STS_WAK)
#define EN_MASK	   (STS_TMR | (1u << 5) | STS_PWRBTN | (1u << 9) | (1u << 10))
#define CNT_SCI_EN (1u << 0)
#define CNT_SLP_EN (1u << 13)
#define CNT_MASK                                                                                   \
	0x1c02u /* SLP_TYP and BM_RLD keep their value; GBL_RLS and SLP_EN are write-only */

struct acpi_pm {
	struct device dev;
	pthread_mutex_t lock;
	struct io_space *ports;
	uint16_t base;
	struct irq_line sci;
	struct clock_source clock;
	struct machine_sink sink;

	uint16_t sts, en, cnt;
	uint64_t timer_seen; /* ticks at the last look: bit 31 toggled since then sets TMR_STS */
};

/* Not truncated to the 32 bits of the register. */
static uint64_t pm_ticks(struct acpi_pm *pm)
{
	return muldiv(pm->clock.now(pm->clock.opaque), PM_TMR_HZ, NS_PER_S);
}

/* TMR_STS is found out when the guest looks: nobody enables it as an interrupt in the age of the
 * HPET. */
static void pm_update(struct acpi_pm *pm)
{
	uint64_t ticks = pm_ticks(pm);

	if ((ticks ^ pm->timer_seen) >> 31)
		pm->sts |= STS_TMR;
	pm->timer_seen = ticks;
	irq_set(&pm->sci, pm->sts & pm->en & EN_MASK);
}

static uint8_t pm_read_byte(struct acpi_pm *pm, unsigned off)
{
	uint16_t cnt = pm->cnt | CNT_SCI_EN;

	switch (off) {
	case 0: return (uint8_t)pm->sts;
	case 1: return (uint8_t)(pm->sts >> 8);
	case 2: return (uint8_t)pm->en;
	case 3: return (uint8_t)(pm->en >> 8);
	case 4: return (uint8_t)cnt;
	case 5: return (uint8_t)(cnt >> 8);
	case PM_TIMER:
	case PM_TIMER + 1:
	case PM_TIMER + 2:
	case PM_TIMER + 3: return (uint8_t)(pm->timer_seen >> (8 * (off - PM_TIMER)));
	case PM_RESET: return 0;
	default: return 0xff;
	}
}

static uint64_t pm_read(void *opaque, unsigned vcpu, uint64_t off, unsigned size)
{
	struct acpi_pm *pm = opaque;
	uint64_t value = 0;

	(void)vcpu;
	pthread_mutex_lock(&pm->lock);
	pm_update(pm);
	for (unsigned i = 0; i < size; i++)
		value |= (uint64_t)pm_read_byte(pm, (unsigned)off + i) << (8 * i);
	pthread_mutex_unlock(&pm->lock);
	return value;
}

static void pm_write_byte(struct acpi_pm *pm, unsigned off, uint8_t value)
{
	unsigned shift = 8 * (off & 1);

	switch (off) {
	case 0:
	case 1: pm->sts &= (uint16_t) ~((unsigned)value << shift); break;
	case 2:
	case 3:
		pm->en = (uint16_t)((pm->en & ~(0xffu << shift)) | ((unsigned)value << shift)) &
			 EN_MASK;
		break;
	case 4:
	case 5:
		pm->cnt = (uint16_t)((pm->cnt & ~(0xffu << shift)) | ((unsigned)value << shift)) &
			  CNT_MASK;
		break;
	default: break;
	}
}

static void pm_write(void *opaque, unsigned vcpu, uint64_t off, unsigned size, uint64_t value)
{
	bool sleep = false, reset = false;
	struct acpi_pm *pm = opaque;
	unsigned type;

	(void)vcpu;
	pthread_mutex_lock(&pm->lock);
	pm_update(pm);
	for (unsigned i = 0; i < size; i++) {
		uint8_t byte = (uint8_t)(value >> (8 * i));

		pm_write_byte(pm, (unsigned)off + i, byte);
		sleep |= off + i == 5 && (byte & CNT_SLP_EN >> 8);
		reset |= off + i == PM_RESET && byte == 1;
	}
	type = pm->cnt >> 10 & 7;
	irq_set(&pm->sci, pm->sts & pm->en & EN_MASK);
	pthread_mutex_unlock(&pm->lock);

	if (reset)
		pm->sink.event(pm->sink.opaque, MACHINE_RESET, 0);
	else if (sleep && type == 5)
		pm->sink.event(pm->sink.opaque, MACHINE_POWEROFF, 0);
	else if (sleep)
		dev_log(pm->dev.name, "sleep type %u ignored: only S5 exists", type);
}

void acpi_pm_power_button(struct device *dev)
{
	struct acpi_pm *pm = (struct acpi_pm *)dev;

	pthread_mutex_lock(&pm->lock);
	pm->sts |= STS_PWRBTN;
	pm_update(pm);
	pthread_mutex_unlock(&pm->lock);
}

static void pm_reset(struct device *dev)
{
	struct acpi_pm *pm = (struct acpi_pm *)dev;

	pthread_mutex_lock(&pm->lock);
	pm->sts = pm->en = pm->cnt = 0;
	pm->timer_seen = pm_ticks(pm);
	irq_set(&pm->sci, false);
	pthread_mutex_unlock(&pm->lock);
}

static int pm_post_load(void *object, const char **why)
{
	struct acpi_pm *pm = object;

	if (pm->sts & ~STS_MASK || pm->en & ~EN_MASK || pm->cnt & ~CNT_MASK) {
		*why = "reserved bits are set";
		return -EINVAL;
	}
	pthread_mutex_lock(&pm->lock);
	irq_set(&pm->sci, pm->sts & pm->en & EN_MASK);
	pthread_mutex_unlock(&pm->lock);
	return 0;
}

static void pm_destroy(struct device *dev)
{
	struct acpi_pm *pm = (struct acpi_pm *)dev;

	io_space_remove(pm->ports, pm->base);
	pthread_mutex_destroy(&pm->lock);
	free(pm);
}

static const struct io_region_ops pm_io = {pm_read, pm_write};
static const struct device_ops pm_ops = {.reset = pm_reset, .destroy = pm_destroy};
static const struct field pm_fields[] = {
	FIELD_SCALAR(struct acpi_pm, sts, FIELD_U16, 1),
	FIELD_SCALAR(struct acpi_pm, en, FIELD_U16, 1),
	FIELD_SCALAR(struct acpi_pm, cnt, FIELD_U16, 1),
	FIELD_SCALAR(struct acpi_pm, timer_seen, FIELD_U64, 1),
	FIELD_END,
};
static const struct state_desc pm_state = {
	.name = "acpi-pm", .version = 1, .fields = pm_fields, .post_load = pm_post_load};

int acpi_pm_create(struct device **out, struct io_space *ports, uint16_t base, struct irq_line sci,
		   const struct clock_source *clock, const struct machine_sink *sink)
{
	struct acpi_pm *pm = calloc(1, sizeof(*pm));
	struct io_region region = {
		.base = base, .size = PM_SIZE, .ops = &pm_io, .opaque = pm, .name = "acpi-pm"};
	int ret;

	if (!pm)
		return -ENOMEM;
	pm->dev = (struct device){.name = "acpi-pm", .ops = &pm_ops, .state = &pm_state};
	pm->ports = ports;
	pm->base = base;
	pm->sci = sci;
	pm->clock = *clock;
	pm->sink = *sink;
	pthread_mutex_init(&pm->lock, NULL);
	ret = io_space_add(ports, &region);
	if (ret) {
		pthread_mutex_destroy(&pm->lock);
		free(pm);
		return ret;
	}
	pm->timer_seen = pm_ticks(pm);
	*out = &pm->dev;
	return 0;
}
