/* MC146818A data sheet, "Time, Calendar and Alarm Locations". */
#include "devices/rtc_time.h"

#include <stdbool.h>

#define B_BINARY 0x04
#define B_24H	 0x02
#define HOUR_PM	 0x80
#define DAY	 86400

enum {
	SECONDS,
	SECONDS_ALARM,
	MINUTES,
	MINUTES_ALARM,
	HOURS,
	HOURS_ALARM,
	WEEKDAY,
	DAY_OF_MONTH,
	MONTH,
	YEAR,
	CENTURY = 0x32
};

static uint8_t enc(unsigned v, uint8_t b)
{
	return (uint8_t)(b & B_BINARY ? v : v / 10 % 10 << 4 | v % 10);
}

static unsigned dec(uint8_t v, uint8_t b)
{
	return b & B_BINARY ? v : (v >> 4) * 10u + (v & 15);
}

static uint8_t enc_hour(unsigned h, uint8_t b)
{
	if (b & B_24H)
		return enc(h, b);
	return (uint8_t)(enc(h % 12 ? h % 12 : 12, b) | (h >= 12 ? HOUR_PM : 0));
}

static unsigned dec_hour(uint8_t v, uint8_t b)
{
	if (b & B_24H)
		return dec(v, b);
	return dec(v & (uint8_t)~HOUR_PM, b) % 12 + (v & HOUR_PM ? 12 : 0);
}

static bool leap(int64_t y)
{
	return (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
}

static unsigned month_days(int64_t y, unsigned m)
{
	static const uint8_t days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

	return days[m] + (m == 1 && leap(y));
}

/* Days from 1970-01-01 to January 1st of year y, 0 <= y. */
static int64_t year_days(int64_t y)
{
	int64_t leaps = y ? (y - 1) / 4 - (y - 1) / 100 + (y - 1) / 400 + 1 : 0; /* year 0 is one */

	return y * 365 + leaps - 719528;
}

void rtc_time_encode(int64_t t, uint8_t *regs, uint8_t b)
{
	int64_t days = t / DAY, sod = t % DAY, y;
	unsigned m = 0;

	if (sod < 0) {
		sod += DAY;
		days--;
	}
	regs[WEEKDAY] = enc((unsigned)(((days + 4) % 7 + 7) % 7 + 1), b); /* 1 is Sunday */
	y = 1970 + days / 366;
	if (days < 0)
		y = 1970 + days / 365 - 1;
	y = y < 0 ? 0 : y > 9999 ? 9999 : y;
	while (y < 9999 && year_days(y + 1) <= days)
		y++;
	days -= year_days(y);
	if (days < 0 || days > 365)
		days = 0; /* outside of 0000-9999: two digits can't say it anyway */
	while (m < 11 && days >= month_days(y, m))
		days -= month_days(y, m++);
	regs[SECONDS] = enc((unsigned)(sod % 60), b);
	regs[MINUTES] = enc((unsigned)(sod / 60 % 60), b);
	regs[HOURS] = enc_hour((unsigned)(sod / 3600), b);
	regs[DAY_OF_MONTH] = enc((unsigned)days + 1, b);
	regs[MONTH] = enc(m + 1, b);
	regs[YEAR] = enc((unsigned)(y % 100), b);
	regs[CENTURY] = enc((unsigned)(y / 100), b);
}

int64_t rtc_time_decode(const uint8_t *regs, uint8_t b)
{
	int64_t y = dec(regs[CENTURY], b) % 100 * 100 + dec(regs[YEAR], b) % 100;
	unsigned month = (dec(regs[MONTH], b) + 11) % 12; /* 0-11 */
	int64_t days = year_days(y) + dec(regs[DAY_OF_MONTH], b) - 1;

	for (unsigned m = 0; m < month; m++)
		days += month_days(y, m);
	return days * DAY + dec_hour(regs[HOURS], b) * 3600 + dec(regs[MINUTES], b) * 60 +
	       dec(regs[SECONDS], b);
}

static bool matches(uint8_t alarm, uint8_t encoded)
{
	return alarm >= 0xc0 || alarm == encoded;
}

int64_t rtc_alarm_next(int64_t after, const uint8_t *regs, uint8_t b)
{
	int64_t t = after + 1, end = t + DAY;

	while (t < end) {
		unsigned sod = (unsigned)((t % DAY + DAY) % DAY);
		unsigned h = sod / 3600, m = sod / 60 % 60, s = sod % 60;

		if (!matches(regs[HOURS_ALARM], enc_hour(h, b)))
			t += 3600 - sod % 3600;
		else if (!matches(regs[MINUTES_ALARM], enc(m, b)))
			t += 60 - s;
		else if (!matches(regs[SECONDS_ALARM], enc(s, b)))
			t++;
		else
			return t;
	}
	return -1;
}
