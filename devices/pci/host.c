/* The host: configuration mechanism 1 (PCI 3.0, 3.2.2.3.2), ECAM, the windows, the INTx lines. */
#include "devices/pci/pci_internal.h"

#include <errno.h>
#include <stdlib.h>

#include "devices/util.h"

#define CONFIG_PORT   0xcf8
#define CONFIG_ENABLE 0x80000000u

void pci_host_intx(struct pci_host *host, unsigned slot, bool level)
{
	const unsigned n = pci_intx_line(slot);
	uint32_t was;

	pthread_mutex_lock(&host->intx_lock);
	was = host->asserted[n];
	host->asserted[n] = level ? was | 1u << slot : was & ~(1u << slot);
	if (!was != !host->asserted[n])
		irq_set(&host->config.line[n], level);
	pthread_mutex_unlock(&host->intx_lock);
}

/* ---- configuration space ---- */

/* bus, device, function as in CONFIG_ADDRESS and in ECAM: 8, 5 and 3 bits. */
static struct pci_function *find(struct pci_host *host, uint32_t bdf)
{
	return bdf >> 8 || (bdf & 7) ? NULL : host->slot[bdf >> 3];
}

static uint64_t ecam_read(void *opaque, unsigned vcpu, uint64_t off, unsigned size)
{
	struct pci_function *fn = find(opaque, (uint32_t)(off >> 12));
	const unsigned reg = off & 0xfff;

	if (!fn || reg + size > 0x1000)
		return all_ones(size);
	if (size == 8)
		return pci_config_read(fn, vcpu, reg, 4) |
		       (uint64_t)pci_config_read(fn, vcpu, reg + 4, 4) << 32;
	return pci_config_read(fn, vcpu, reg, size);
}

static void ecam_write(void *opaque, unsigned vcpu, uint64_t off, unsigned size, uint64_t value)
{
	struct pci_function *fn = find(opaque, (uint32_t)(off >> 12));
	const unsigned reg = off & 0xfff;

	if (!fn || reg + size > 0x1000)
		return;
	pci_config_write(fn, vcpu, reg, size == 8 ? 4 : size, (uint32_t)value);
	if (size == 8)
		pci_config_write(fn, vcpu, reg + 4, 4, (uint32_t)(value >> 32));
}

/* Ports CFCh-CFFh: which function and register CONFIG_ADDRESS selects. */
static struct pci_function *selected(struct pci_host *host, uint64_t off, unsigned *reg)
{
	const uint32_t address = __atomic_load_n(&host->address, __ATOMIC_RELAXED);

	*reg = (address & 0xfc) + (off & 3);
	return address & CONFIG_ENABLE ? find(host, address >> 8 & 0xffff) : NULL;
}

/* CONFIG_ADDRESS takes and gives whole dwords only; smaller accesses are not its (CF9h...). */
static uint64_t port_read(void *opaque, unsigned vcpu, uint64_t off, unsigned size)
{
	struct pci_host *host = opaque;
	struct pci_function *fn;
	unsigned reg;

	if (off == 0 && size == 4)
		return __atomic_load_n(&host->address, __ATOMIC_RELAXED);
	if (off < 4 || (off & 3) + size > 4)
		return all_ones(size);
	fn = selected(host, off, &reg);
	return fn ? pci_config_read(fn, vcpu, reg, size) : all_ones(size);
}

static void port_write(void *opaque, unsigned vcpu, uint64_t off, unsigned size, uint64_t value)
{
	struct pci_host *host = opaque;
	struct pci_function *fn;
	unsigned reg;

	if (off == 0 && size == 4)
		__atomic_store_n(&host->address, (uint32_t)value & (CONFIG_ENABLE | 0xfffffc),
				 __ATOMIC_RELAXED);
	if (off < 4 || (off & 3) + size > 4)
		return;
	fn = selected(host, off, &reg);
	if (fn)
		pci_config_write(fn, vcpu, reg, size, (uint32_t)value);
}

/* ---- the windows ---- */

/* Who answers at addr: functions come and go only while no vCPU runs, and where a BAR stands is one
 * atomic word. An access that races with its move goes to either place. */
static struct pci_function *find_bar(struct pci_host *host, uint64_t addr, unsigned *bar,
				     uint64_t *off)
{
	for (unsigned s = 0; s < PCI_SLOTS; s++) {
		struct pci_function *fn = host->slot[s];

		for (unsigned n = 0; fn && n < PCI_BARS; n++) {
			uint64_t at =
				atomic_load_explicit(&fn->bar[n].mapped, memory_order_relaxed);

			if (at == PCI_UNMAPPED || addr < at || addr - at >= fn->bar[n].size)
				continue;
			*bar = n;
			*off = addr - at;
			return fn;
		}
	}
	return NULL;
}

static uint64_t window_read(struct pci_host *host, unsigned vcpu, uint64_t addr, unsigned size)
{
	struct pci_function *fn;
	uint64_t off, value = 0;
	unsigned bar;

	/* Only an access off its natural alignment can leave a BAR. */
	if (addr % size)
		for (unsigned i = 0; i < size; i++)
			value |= (window_read(host, vcpu, addr + i, 1) & 0xff) << (8 * i);
	if (addr % size)
		return value;
	fn = find_bar(host, addr, &bar, &off);
	return fn ? pci_bar_read(fn, vcpu, bar, off, size) : all_ones(size);
}

static void window_write(struct pci_host *host, unsigned vcpu, uint64_t addr, unsigned size,
			 uint64_t value)
{
	struct pci_function *fn;
	uint64_t off;
	unsigned bar;

	if (addr % size) {
		for (unsigned i = 0; i < size; i++)
			window_write(host, vcpu, addr + i, 1, value >> (8 * i) & 0xff);
		return;
	}
	fn = find_bar(host, addr, &bar, &off);
	if (fn)
		pci_bar_write(fn, vcpu, bar, off, size, value);
}

static uint64_t mmio32_read(void *opaque, unsigned vcpu, uint64_t off, unsigned size)
{
	struct pci_host *host = opaque;

	return window_read(host, vcpu, host->config.mmio32.base + off, size);
}

static void mmio32_write(void *opaque, unsigned vcpu, uint64_t off, unsigned size, uint64_t value)
{
	struct pci_host *host = opaque;

	window_write(host, vcpu, host->config.mmio32.base + off, size, value);
}

static uint64_t mmio64_read(void *opaque, unsigned vcpu, uint64_t off, unsigned size)
{
	struct pci_host *host = opaque;

	return window_read(host, vcpu, host->config.mmio64.base + off, size);
}

static void mmio64_write(void *opaque, unsigned vcpu, uint64_t off, unsigned size, uint64_t value)
{
	struct pci_host *host = opaque;

	window_write(host, vcpu, host->config.mmio64.base + off, size, value);
}

/* ---- life --------------------------------------------------------------------------------------
 */

static const struct io_region_ops port_ops = {port_read, port_write};
static const struct io_region_ops ecam_ops = {ecam_read, ecam_write};
static const struct io_region_ops mmio32_ops = {mmio32_read, mmio32_write};
static const struct io_region_ops mmio64_ops = {mmio64_read, mmio64_write};

static int add_regions(struct pci_host *h)
{
	const struct pci_host_config *c = &h->config;
	const struct io_region ports = {CONFIG_PORT, 8, &port_ops, h, "pci-config"};
	const struct io_region mmio[] = {
		{c->ecam, PCI_ECAM_SIZE, &ecam_ops, h, "pci-ecam"},
		{c->mmio32.base, c->mmio32.size, &mmio32_ops, h, "pci-mmio32"},
		{c->mmio64.base, c->mmio64.size, &mmio64_ops, h, "pci-mmio64"},
	};
	unsigned n = 0;
	int ret = c->ports ? io_space_add(c->ports, &ports) : 0;

	if (ret)
		return ret;
	for (; n < sizeof(mmio) / sizeof(mmio[0]) && !ret; n++)
		ret = io_space_add(c->mmio, &mmio[n]);
	if (!ret)
		return 0;
	for (n--; n; n--)
		io_space_remove(c->mmio, mmio[n - 1].base);
	if (c->ports)
		io_space_remove(c->ports, CONFIG_PORT);
	return ret;
}

static void host_reset(struct device *dev)
{
	struct pci_host *h = (struct pci_host *)dev;

	__atomic_store_n(&h->address, 0, __ATOMIC_RELAXED);
	pci_function_reset(&h->bridge);
}

static void host_destroy(struct device *dev)
{
	struct pci_host *h = (struct pci_host *)dev;

	io_space_remove(h->config.mmio, h->config.ecam);
	io_space_remove(h->config.mmio, h->config.mmio32.base);
	io_space_remove(h->config.mmio, h->config.mmio64.base);
	if (h->config.ports)
		io_space_remove(h->config.ports, CONFIG_PORT);
	pci_function_exit(&h->bridge);
	pthread_mutex_destroy(&h->intx_lock);
	free(h);
}

static int host_post_load(void *object, const char **why)
{
	struct pci_host *h = object;

	if (!(h->address & ~(CONFIG_ENABLE | 0xfffffc)))
		return 0;
	*why = "reserved bits of CONFIG_ADDRESS are set";
	return -EINVAL;
}

static const struct device_ops host_ops = {.reset = host_reset, .destroy = host_destroy};
static const struct field host_fields[] = {
	FIELD_SCALAR(struct pci_host, address, FIELD_U32, 1),
	FIELD_SUB(struct pci_host, bridge, &pci_function_state, 1),
	FIELD_END,
};
static const struct state_desc host_state = {
	.name = "pci-host", .version = 1, .fields = host_fields, .post_load = host_post_load};

static bool good_window(const struct pci_window *w)
{
	return w->size >= 1 << 20 && !(w->size & (w->size - 1)) && !(w->base & (w->size - 1));
}

int pci_host_create(struct device **out, const struct pci_host_config *config)
{
	/* The generic host bridge of QEMU's virtual machines: nothing binds to it, no quirk is for
	 * it. The subsystem says whose it is here. */
	static const struct pci_ids ids = {.vendor = 0x1b36,
					   .device = 0x0008,
					   .subvendor = 0x1af4,
					   .subsystem = 0xfe21,
					   .class_code = 0x060000};
	struct pci_host *h;
	int ret;

	if (!good_window(&config->mmio32) || !good_window(&config->mmio64))
		return -EINVAL;
	h = calloc(1, sizeof(*h));
	if (!h)
		return -ENOMEM;
	h->dev = (struct device){.name = "pci0", .ops = &host_ops, .state = &host_state};
	h->config = *config;
	pthread_mutex_init(&h->intx_lock, NULL);
	ret = pci_function_init(&h->bridge, &h->dev, 0, "pci0", &ids);
	if (!ret)
		ret = add_regions(h);
	if (ret) {
		pci_function_exit(&h->bridge);
		pthread_mutex_destroy(&h->intx_lock);
		free(h);
		return ret;
	}
	host_reset(&h->dev);
	*out = &h->dev;
	return 0;
}
