/*
 * CRC32C (Castagnoli; RFC 3720, B.4): reflected polynomial 0x82f63b78, all ones before and after.
 * The checksum of "123456789" is 0xe3069283. By the processor's own instruction where it has one.
 */
#ifndef MIGRATION_CRC32C_H
#define MIGRATION_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Continues `crc` (0 at the start) over the data: crc32c(crc32c(0, a), b) is that of a and b. */
uint32_t crc32c(uint32_t crc, const void *data, size_t len);
/* By table, on any processor; for tests. */
uint32_t crc32c_table(uint32_t crc, const void *data, size_t len);

#endif
