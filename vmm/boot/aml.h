/*
 * Writing AML, the byte code of ACPI's DSDT (ACPI 6.3, chapter 20): just what a small board needs.
 *
 * A builder never fails in the middle: when memory is short, or a name is malformed, it remembers
 * that (bad) and ignores what follows. Zero-initialised is empty; aml_free frees.
 */
#ifndef VMM_BOOT_AML_H
#define VMM_BOOT_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct aml {
	uint8_t *data;
	size_t len, cap;
	bool bad;
};
void aml_free(struct aml *a);

/* Terms with a body return where it begins; aml_end closes it, innermost first. Names: up to four
 * characters of A-Z, 0-9, _ with an optional leading backslash; shorter ones are padded with '_'.
 */
size_t aml_scope(struct aml *a, const char *name);
size_t aml_device(struct aml *a, const char *name);
size_t aml_package(struct aml *a, uint8_t elements);
/* Method(name, args) { Return (Arg<arg>) } */
void aml_method_echo(struct aml *a, const char *name, uint8_t args, uint8_t arg);
void aml_end(struct aml *a, size_t mark);

/* Name(name, ...): the object that is written next becomes its value. */
void aml_name(struct aml *a, const char *name);
/* Objects. */
void aml_int(struct aml *a, uint64_t value);
void aml_string(struct aml *a, const char *text);
/* "PNP0501": three letters and four hex digits, packed into an integer (20.3.4, EISAID). */
void aml_eisaid(struct aml *a, const char *id);

/* A ResourceTemplate (6.4): a buffer of descriptors, closed by aml_resources_end. */
size_t aml_resources(struct aml *a);
void aml_io(struct aml *a, uint16_t base, uint8_t len);	       /* ports, 16 bits decoded */
void aml_irq(struct aml *a, uint8_t irq, bool shared);	       /* edge, active high */
void aml_memory32(struct aml *a, uint32_t base, uint32_t len); /* read-write, fixed */
/* What a bridge passes on (6.4.3.5): bus numbers, ports, memory (uncached, read-write). */
void aml_bus_range(struct aml *a, uint16_t first, uint16_t last);
void aml_io_range(struct aml *a, uint16_t first, uint16_t last);
void aml_memory32_range(struct aml *a, uint32_t base, uint32_t len);
void aml_memory64_range(struct aml *a, uint64_t base, uint64_t len);
void aml_resources_end(struct aml *a, size_t mark);

#endif
