/* CRC32C: known values, and that the instruction and the table agree. */
#include "migration/crc32c.h"
#include "tests/unit/dev_util.h"

int main(void)
{
	uint8_t buf[4096 + 16];
	uint64_t seed = 1;

	CHECK_EQ(crc32c(0, "123456789", 9), 0xe3069283);
	CHECK_EQ(crc32c_table(0, "123456789", 9), 0xe3069283);
	CHECK_EQ(crc32c(0, "", 0), 0);
	/* RFC 3720, B.4: 32 bytes of 0, of 0xff, ascending. */
	memset(buf, 0, 32);
	CHECK_EQ(crc32c(0, buf, 32), 0x8a9136aa);
	memset(buf, 0xff, 32);
	CHECK_EQ(crc32c(0, buf, 32), 0x62a8ab43);
	for (unsigned i = 0; i < 32; i++)
		buf[i] = (uint8_t)i;
	CHECK_EQ(crc32c(0, buf, 32), 0x46dd794e);

	for (unsigned i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t)dev_random(&seed);
	for (unsigned i = 0; i < 2000; i++) {
		size_t at = dev_random(&seed) % 16, len = dev_random(&seed) % 4097;
		size_t cut = len ? dev_random(&seed) % len : 0;
		uint32_t whole = crc32c(0, buf + at, len);

		CHECK_EQ(crc32c_table(0, buf + at, len), whole);
		CHECK_EQ(crc32c(crc32c(0, buf + at, cut), buf + at + cut, len - cut), whole);
	}
	return dev_result("stream crc");
}
