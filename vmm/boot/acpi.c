#include "vmm/boot/acpi.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/boot/aml.h"
#include "vmm/boot/bytes.h"

enum { HEADER = 36, RSDP_SIZE = 36, FACS_SIZE = 64, FADT_SIZE = 276 };

/* FADT: offsets (table 5-33), flags (table 5-34), IAPC_BOOT_ARCH (5.2.9.3). */
enum {
	FADT_FACS = 36,
	FADT_DSDT = 40,
	FADT_SCI = 46,
	FADT_PM1_EVT = 56,
	FADT_PM1_CNT = 64,
	FADT_PM_TMR = 76,
	FADT_PM1_EVT_LEN = 88,
	FADT_PM1_CNT_LEN = 89,
	FADT_PM_TMR_LEN = 91,
	FADT_C2_LATENCY = 96,
	FADT_C3_LATENCY = 98,
	FADT_CENTURY = 108,
	FADT_BOOT_ARCH = 109,
	FADT_FLAGS = 112,
	FADT_RESET_REG = 116,
	FADT_RESET_VALUE = 128,
	FADT_MINOR = 131,
	FADT_X_DSDT = 140,
	FADT_X_PM1_EVT = 148,
	FADT_X_PM1_CNT = 172,
	FADT_X_PM_TMR = 208,
	FADT_HYPERVISOR = 268,
};
enum {
	F_WBINVD = 1 << 0,
	F_PROC_C1 = 1 << 2,
	F_SLEEP_BUTTON =
		1 << 5,	    /* there is no fixed one; bit 4 clear: there is a fixed power button */
	F_FIX_RTC = 1 << 6, /* the RTC's alarm is not among the fixed events */
	F_TMR_VAL_EXT = 1 << 8, /* 32 bits */
	F_RESET_REG = 1 << 10,
};
enum { ARCH_LEGACY = 1, ARCH_8042 = 2, ARCH_NO_VGA = 4 };
enum { MADT_PCAT_COMPAT = 1, MADT_LEVEL_HIGH = 0x0d, CMOS_CENTURY = 0x32 };

struct tables {
	uint8_t *data;
	uint32_t base;
	size_t len, cap;
	const struct acpi_board *board;
};

static uint8_t checksum(const uint8_t *p, size_t n)
{
	uint8_t sum = 0;

	while (n--)
		sum = (uint8_t)(sum + *p++);
	return (uint8_t)-sum;
}

/* n zero bytes at the next multiple of 64 (what FACS asks for), or NULL. */
static uint8_t *take(struct tables *t, size_t n)
{
	size_t at = (t->len + 63) & ~63ul;

	if (at > t->cap || n > t->cap - at)
		return NULL;
	t->len = at + n;
	return t->data + at;
}

static uint32_t address(const struct tables *t, const uint8_t *table)
{
	return t->base + (uint32_t)(table - t->data);
}

static uint8_t *begin(struct tables *t, const char *signature, uint8_t revision, size_t len)
{
	uint8_t *p = take(t, len);

	if (!p)
		return NULL;
	put_chars(p, signature, 4);
	put_le32(p + 4, (uint32_t)len);
	p[8] = revision;
	put_chars(p + 10, "FERRY PC-1.0  ", 14); /* OEM id, OEM table id */
	put_le32(p + 24, 1);
	put_chars(p + 28, "FERY", 4);
	put_le32(p + 32, 1);
	return p;
}

static void end(uint8_t *p)
{
	p[9] = 0;
	p[9] = checksum(p, get_le32(p + 4));
}

/* Generic Address Structure (5.2.3.2), system I/O. */
static void put_gas(uint8_t *p, uint16_t port, uint8_t bytes)
{
	p[0] = 1;
	p[1] = (uint8_t)(bytes * 8);
	p[3] = bytes == 1 ? 1 : bytes == 2 ? 2 : 3;
	put_le64(p + 4, port);
}

static uint8_t *put_dsdt(struct tables *t)
{
	struct aml a = {0};
	uint8_t *p = NULL;

	acpi_dsdt(&a, t->board);
	if (!a.bad)
		p = begin(t, "DSDT", 2, HEADER + a.len);
	if (p) {
		memcpy(p + HEADER, a.data, a.len);
		end(p);
	}
	aml_free(&a);
	return p;
}

static uint8_t *put_facs(struct tables *t)
{
	uint8_t *p = take(t, FACS_SIZE);

	if (!p)
		return NULL;
	put_chars(p, "FACS", 4); /* no checksum (5.2.10) */
	put_le32(p + 4, FACS_SIZE);
	p[32] = 2;
	return p;
}

static uint8_t *put_fadt(struct tables *t, uint32_t facs, uint32_t dsdt)
{
	uint8_t *p = begin(t, "FACP", 6, FADT_SIZE);
	const uint16_t pm = t->board->pm_base;

	if (!p)
		return NULL;
	/* X_FIRMWARE_CTRL stays 0: it is for a FACS above 4 GiB, and one of the two must be. */
	put_le32(p + FADT_FACS, facs);
	put_le32(p + FADT_DSDT, dsdt);
	put_le64(p + FADT_X_DSDT, dsdt);
	put_le16(p + FADT_SCI, t->board->sci);
	/* SMI_CMD 0: the hardware is in ACPI mode from the start (SCI_EN reads 1). */
	put_le32(p + FADT_PM1_EVT, pm);
	put_le32(p + FADT_PM1_CNT, pm + 4u);
	put_le32(p + FADT_PM_TMR, pm + 8u);
	p[FADT_PM1_EVT_LEN] = 4;
	p[FADT_PM1_CNT_LEN] = 2;
	p[FADT_PM_TMR_LEN] = 4;
	put_gas(p + FADT_X_PM1_EVT, pm, 4);
	p[FADT_X_PM1_EVT + 3] = 2; /* two 16-bit registers */
	put_gas(p + FADT_X_PM1_CNT, (uint16_t)(pm + 4), 2);
	put_gas(p + FADT_X_PM_TMR, (uint16_t)(pm + 8), 4);
	put_gas(p + FADT_RESET_REG, (uint16_t)(pm + 12), 1);
	p[FADT_RESET_VALUE] = 1;
	put_le16(p + FADT_C2_LATENCY, 0xfff); /* above 100 and 1000: there is no C2, no C3 */
	put_le16(p + FADT_C3_LATENCY, 0xfff);
	p[FADT_CENTURY] = CMOS_CENTURY;
	put_le16(p + FADT_BOOT_ARCH,
		 (uint16_t)(ARCH_LEGACY | ARCH_NO_VGA | (t->board->keyboard ? ARCH_8042 : 0)));
	put_le32(p + FADT_FLAGS,
		 F_WBINVD | F_PROC_C1 | F_SLEEP_BUTTON | F_FIX_RTC | F_TMR_VAL_EXT | F_RESET_REG);
	p[FADT_MINOR] = 3;
	put_chars(p + FADT_HYPERVISOR, "ferry\0\0", 8);
	end(p);
	return p;
}

/* MADT entries (5.2.12); each returns where the next one goes. */
static uint8_t *put_cpu(uint8_t *p, uint32_t id)
{
	if (id > 254) {
		p[0] = 9;
		p[1] = 16;
		put_le32(p + 4, id);
		put_le32(p + 8, 1);
		put_le32(p + 12, id);
		return p + 16;
	}
	p[0] = 0;
	p[1] = 8;
	p[2] = p[3] = (uint8_t)id;
	put_le32(p + 4, 1);
	return p + 8;
}

static uint8_t *put_override(uint8_t *p, uint8_t irq, uint32_t gsi, uint16_t flags)
{
	p[0] = 2;
	p[1] = 10;
	p[3] = irq;
	put_le32(p + 4, gsi);
	put_le16(p + 8, flags);
	return p + 10;
}

static uint8_t *put_madt(struct tables *t)
{
	const unsigned vcpus = t->board->vcpus, x2 = vcpus > 255 ? vcpus - 255 : 0;
	const size_t len =
		HEADER + 8 + (vcpus - x2) * 8 + x2 * 16 + 12 + 2 * 10 + 6 + (x2 ? 12 : 0);
	uint8_t *table = begin(t, "APIC", 5, len), *p = table;
	unsigned i;

	if (!table)
		return NULL;
	put_le32(p + HEADER, t->board->lapic);
	put_le32(p + HEADER + 4, MADT_PCAT_COMPAT); /* two 8259A */
	p += HEADER + 8;
	for (i = 0; i < vcpus; i++)
		p = put_cpu(p, i);
	p[0] = 1; /* IOAPIC, GSIs from 0 */
	p[1] = 12;
	p[2] = t->board->ioapic_id;
	put_le32(p + 4, t->board->ioapic);
	p += 12;
	p = put_override(p, 0, 2, 0); /* the PIT's line, as on every PC */
	p = put_override(p, t->board->sci, t->board->sci, MADT_LEVEL_HIGH);
	p[0] = 4; /* NMI at LINT1 of every processor */
	p[1] = 6;
	p[2] = 0xff;
	p[5] = 1;
	p += 6;
	if (x2) {
		p[0] = 10;
		p[1] = 12;
		put_le32(p + 4, UINT32_MAX);
		p[8] = 1;
	}
	end(table);
	return table;
}

/* PCI Firmware Specification 3.0, 4.1.2: one segment, one bus. */
static uint8_t *put_mcfg(struct tables *t)
{
	uint8_t *p = begin(t, "MCFG", 1, HEADER + 8 + 16);

	if (!p)
		return NULL;
	put_le64(p + HEADER + 8, t->board->pci.ecam);
	end(p);
	return p;
}

/* RSDT and XSDT: the same list, with 4 and 8 bytes each. */
static uint8_t *put_list(struct tables *t, const char *signature, size_t width,
			 const uint32_t *list, size_t n)
{
	uint8_t *p = begin(t, signature, 1, HEADER + n * width);
	size_t i;

	if (!p)
		return NULL;
	for (i = 0; i < n; i++)
		put_le32(p + HEADER + i * width, list[i]);
	end(p);
	return p;
}

static int put_all(struct tables *t)
{
	uint8_t *rsdp = take(t, RSDP_SIZE), *dsdt, *facs, *fadt, *madt, *mcfg, *rsdt, *xsdt;
	uint32_t list[3];
	size_t n = 2;

	facs = put_facs(t);
	dsdt = put_dsdt(t);
	if (!rsdp || !facs || !dsdt)
		return -E2BIG;
	fadt = put_fadt(t, address(t, facs), address(t, dsdt));
	madt = put_madt(t);
	if (!fadt || !madt)
		return -E2BIG;
	list[0] = address(t, fadt);
	list[1] = address(t, madt);
	if (t->board->pci.ecam) {
		mcfg = put_mcfg(t);
		if (!mcfg)
			return -E2BIG;
		list[n++] = address(t, mcfg);
	}
	rsdt = put_list(t, "RSDT", 4, list, n);
	xsdt = put_list(t, "XSDT", 8, list, n);
	if (!rsdt || !xsdt)
		return -E2BIG;

	put_chars(rsdp, "RSD PTR ", 8);
	put_chars(rsdp + 9, "FERRY ", 6);
	rsdp[15] = 2;
	put_le32(rsdp + 16, address(t, rsdt));
	put_le32(rsdp + 20, RSDP_SIZE);
	put_le64(rsdp + 24, address(t, xsdt));
	rsdp[8] = checksum(rsdp, 20); /* that of ACPI 1.0, then that of everything (5.2.5.3) */
	rsdp[32] = checksum(rsdp, RSDP_SIZE);
	return 0;
}

int acpi_build(const struct acpi_board *board, uint32_t base, size_t max, uint8_t **data,
	       size_t *len, struct error *err)
{
	struct tables t = {.base = base, .cap = max, .board = board};
	int ret;

	*data = NULL;
	if (board->vcpus < 1 || board->vcpus > 4096 || board->serial_count > ACPI_MAX_SERIAL ||
	    board->sci > 15 || base % 64 || max > (4ull << 30) - base)
		return error_set(err, -EINVAL, "ACPI: impossible board");
	t.data = calloc(1, max);
	if (!t.data)
		return error_set(err, -ENOMEM, "ACPI: no memory");
	ret = put_all(&t);
	if (ret) {
		free(t.data);
		return error_set(err, ret,
				 "ACPI: the tables for %u processors do not fit into %zu KiB",
				 board->vcpus, max >> 10);
	}
	*data = t.data;
	*len = t.len;
	return 0;
}
