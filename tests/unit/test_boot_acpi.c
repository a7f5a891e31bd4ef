/*
 * The ACPI tables: checksums, lengths, pointers and the numbers of the board; and iasl, which must
 * understand the DSDT, and be able to compile again what it read.
 */
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/unit/test_boot_util.h"
#include "vmm/boot/acpi.h"
#include "vmm/boot/aml.h"

static const struct acpi_board board = {
	.vcpus = 2,
	.lapic = 0xfee00000,
	.ioapic = 0xfec00000,
	.ioapic_id = 0,
	.pm_base = 0x600,
	.sci = 9,
	.serial = {{0x3f8, 4}, {0x2f8, 3}, {0x3e8, 4}},
	.serial_count = 3,
	.rtc_irq = 8,
	.pvpanic = 0x505,
	.debug_exit = 0xf4,
	.pci = {.ecam = 0xe0000000,
		.mmio32 = 0xc0000000,
		.mmio32_size = 0x20000000,
		.mmio64 = 0x20000000000,
		.mmio64_size = 0x10000000000,
		.slots = 32,
		.intx_gsi = 16,
		.intx_lines = 8},
};

static uint8_t sum(const uint8_t *p, size_t n)
{
	uint8_t s = 0;

	while (n--)
		s = (uint8_t)(s + *p++);
	return s;
}

/* A table at a guest address: inside, right signature, right checksum. */
static const uint8_t *table(const uint8_t *data, size_t len, uint64_t gpa, const char *signature)
{
	uint64_t off = gpa - BOOT_ACPI;
	const uint8_t *p = data + off;

	CHECK(gpa >= BOOT_ACPI && off + 36 <= len, "%s at %#lx", signature, gpa);
	if (gpa < BOOT_ACPI || off + 36 > len)
		exit(1);
	CHECK(!memcmp(p, signature, 4), "%.4s is no %s", p, signature);
	CHECK(off + get_le32(p + 4) <= len, "%s has %u bytes", signature, get_le32(p + 4));
	if (strcmp(signature, "FACS") != 0)
		CHECK(sum(p, get_le32(p + 4)) == 0, "checksum of %s", signature);
	return p;
}

static unsigned count_madt(const uint8_t *madt, uint8_t type)
{
	size_t i, len = get_le32(madt + 4);
	unsigned n = 0;

	for (i = 44; i + 2 <= len && madt[i + 1]; i += madt[i + 1])
		n += madt[i] == type;
	CHECK(i == len, "MADT entries end at %zu of %zu", i, len);
	return n;
}

static const uint8_t *check_tables(const struct acpi_board *b, const uint8_t *data, size_t len)
{
	const uint8_t *rsdp = data, *xsdt, *rsdt, *fadt, *madt, *facs, *dsdt, *mcfg;
	const unsigned n = b->pci.ecam ? 3 : 2;

	CHECK(!memcmp(rsdp, "RSD PTR ", 8) && !sum(rsdp, 20) && !sum(rsdp, 36), "RSDP");
	rsdt = table(data, len, get_le32(rsdp + 16), "RSDT");
	xsdt = table(data, len, get_le64(rsdp + 24), "XSDT");
	CHECK(get_le32(rsdt + 4) == 36 + n * 4 && get_le32(xsdt + 4) == 36 + n * 8, "lists");
	if (b->pci.ecam) {
		mcfg = table(data, len, get_le64(xsdt + 52), "MCFG");
		CHECK(get_le32(mcfg + 4) == 60 && get_le64(mcfg + 44) == b->pci.ecam &&
			      get_le32(mcfg + 52) == 0,
		      "MCFG");
	}
	fadt = table(data, len, get_le64(xsdt + 36), "FACP");
	madt = table(data, len, get_le64(xsdt + 44), "APIC");
	CHECK(get_le32(rsdt + 36) == get_le64(xsdt + 36), "RSDT and XSDT");
	facs = table(data, len, get_le32(fadt + 36), "FACS");
	CHECK((facs - data) % 64 == 0, "FACS alignment");
	dsdt = table(data, len, get_le32(fadt + 40), "DSDT");
	CHECK(get_le64(fadt + 140) == get_le32(fadt + 40), "X_DSDT");

	CHECK(get_le32(fadt + 4) == 276 && fadt[8] == 6, "FADT revision");
	CHECK(get_le32(fadt + 48) == 0, "SMI_CMD");
	CHECK(get_le16(fadt + 109) == (b->keyboard ? 7 : 5), "boot arch %#x", get_le16(fadt + 109));
	CHECK(get_le32(fadt + 112) & 1 << 10 && get_le32(fadt + 112) & 1 << 8, "FADT flags");
	CHECK(get_le64(fadt + 120) == b->pm_base + 12u && fadt[128] == 1, "reset register");

	CHECK(count_madt(madt, 0) == (b->vcpus < 255 ? b->vcpus : 255), "LAPICs");
	CHECK(count_madt(madt, 9) == (b->vcpus < 255 ? 0 : b->vcpus - 255), "x2APICs");
	CHECK(count_madt(madt, 1) == 1 && count_madt(madt, 2) == 2 && count_madt(madt, 4) == 1,
	      "MADT");
	return dsdt;
}

/* DSDT -> dsl -> aml: what comes back must be byte for byte what ferry wrote. */
static void check_iasl(const uint8_t *dsdt)
{
	char dir[] = "/tmp/ferry-acpi-XXXXXX", cmd[512], path[64];
	size_t len = get_le32(dsdt + 4), n;
	uint8_t *back = calloc(1, len + 1);
	FILE *f;

	if (!back || !mkdtemp(dir)) {
		perror("mkdtemp");
		exit(1);
	}
	snprintf(path, sizeof(path), "%s/a.aml", dir);
	f = fopen(path, "wb");
	CHECK(f && fwrite(dsdt, 1, len, f) == len, "write %s", path);
	if (f)
		fclose(f);
	/* -ve: errors only; iasl returns 0 unless there is one */
	snprintf(cmd, sizeof(cmd),
		 "cd %s && iasl -ve -d a.aml >log 2>&1 && iasl -ve -p b a.dsl >>log 2>&1 || "
		 "{ cat log a.dsl; false; }",
		 dir);
	CHECK(system(cmd) == 0, "iasl");
	snprintf(path, sizeof(path), "%s/b.aml", dir);
	f = fopen(path, "rb");
	n = f ? fread(back, 1, len + 1, f) : 0;
	if (f)
		fclose(f);
	/* The creator's id and revision, and so the checksum, are the compiler's. */
	CHECK(n == len && !memcmp(back + 36, dsdt + 36, len - 36), "%zu bytes came back of %zu", n,
	      len);
	if (getenv("KEEP"))
		printf("kept: %s\n", dir);
	else
		snprintf(cmd, sizeof(cmd), "rm -rf %s", dir), (void)!system(cmd);
	free(back);
}

static void try_board(const struct acpi_board *b, bool iasl)
{
	struct error err = {""};
	uint8_t *data = NULL;
	const uint8_t *dsdt;
	size_t len = 0;
	int ret = acpi_build(b, BOOT_ACPI, BOOT_ACPI_SIZE, &data, &len, &err);

	CHECK(!ret, "%s", err.text);
	if (ret)
		return;
	dsdt = check_tables(b, data, len);
	if (iasl)
		check_iasl(dsdt);
	free(data);
}

static void refusals(void)
{
	struct acpi_board b = board;
	struct error err = {""};
	uint8_t *data;
	size_t len;

	CHECK(acpi_build(&b, BOOT_ACPI, 512, &data, &len, &err) == -E2BIG && !data, "%s", err.text);
	b.vcpus = 0;
	CHECK(acpi_build(&b, BOOT_ACPI, 65536, &data, &len, &err) == -EINVAL, "%s", err.text);
	b.vcpus = 1;
	CHECK(acpi_build(&b, 17, 65536, &data, &len, &err) == -EINVAL, "%s", err.text);
}

static void builder(void)
{
	static const char *const names[] = {"", "TOOLONG", "abc", "1AB", "A-B"};
	struct aml a = {0};
	size_t mark, i, k;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		aml_name(&a, names[i]);
		CHECK(a.bad, "'%s' is taken for a name", names[i]);
		aml_free(&a);
	}
	/* PkgLength at its borders: 1 byte up to 63, 2 up to 4095, then 3; it counts itself. */
	static const struct {
		size_t body, width;
	} lengths[] = {{4, 1}, {62, 1}, {63, 2}, {4093, 2}, {4094, 3}, {70000, 3}};
	for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		mark = aml_scope(&a, "ABCD");
		for (k = 4; k < lengths[i].body; k++)
			aml_int(&a, 0);
		aml_end(&a, mark);
		CHECK(!a.bad && a.len == 1 + lengths[i].width + lengths[i].body, "%zu: %zu",
		      lengths[i].body, a.len);
		aml_free(&a);
	}
	aml_eisaid(&a, "PNP0501");
	CHECK(a.len == 5 && get_le32(a.data + 1) == 0x0105d041, "PNP0501 is %#x",
	      get_le32(a.data + 1));
	aml_free(&a);
}

int main(void)
{
	bool iasl = system("iasl -v >/dev/null 2>&1") == 0;
	struct acpi_board b = board;

	builder();
	refusals();
	try_board(&b, iasl);
	b.keyboard = true;
	b.serial_count = 0;
	b.pvpanic = b.debug_exit = 0;
	b.pci.ecam = 0;
	try_board(&b, iasl);
	b = board;
	b.vcpus = 300;
	try_board(&b, iasl);
	if (!failures && !iasl) {
		printf("no iasl here (package acpica-tools): the DSDT was not disassembled\n");
		return 77;
	}
	return test_end();
}
