/*
 * The MC146818's registers as a calendar: pure functions, UTC.
 *
 * regs: the 128 bytes of CMOS; b: register B, whose DM (bit 2: binary) and 24/12 (bit 1) choose the
 * encoding. Values that are no date (the guest writes what it likes) decode to some time, never to
 * an error.
 */
#ifndef DEVICES_RTC_TIME_H
#define DEVICES_RTC_TIME_H

#include <stdint.h>

/* Writes seconds, minutes, hours, weekday, day, month, year and century. */
void rtc_time_encode(int64_t t, uint8_t *regs, uint8_t b);

/* Seconds since 1970 of the registers; the weekday is ignored. */
int64_t rtc_time_decode(const uint8_t *regs, uint8_t b);

/* The first second after `after` (s since 1970) that the alarm registers match, within a day; -1:
 * none. An alarm register of C0h-FFh matches every value. */
int64_t rtc_alarm_next(int64_t after, const uint8_t *regs, uint8_t b);

#endif
