/*
 * What a request costs in a virtqueue and on the way to its memory, without any device:
 *	make && cc -O2 -D_GNU_SOURCE -I. -o bench_virtq tests/bench/bench_virtq.c \
 *		build/release/libferry.a $(pkg-config --libs liburcu-memb) -pthread
 * A request is a block driver's: 16 bytes to read, data to write, a byte to write; 32 of them in a
 * turn of the loop. Not part of any check: numbers depend on the host. Processor time, the best of
 * seven rounds.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "devices/virtio/queue.h"
#include "vmm/memory.h"

enum { ROUNDS = 7, TURNS = 4000, BATCH = 32, SIZE = 256 };
enum { DESC = 0x100000, AVAIL = 0x102000, USED = 0x103000, TABLES = 0x110000, DATA = 0x400000 };

static struct guest_memory memory;
static struct dma_ops dma;
static struct virtq queue;
static struct virtq_env env = {.dma = &dma, .indirect = true, .event_idx = true};
static struct virtq_chain chain;
static uint16_t avail;

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static void put(uint64_t gpa, const void *data, size_t len)
{
	if (memory_write(&memory, NULL, gpa, data, len))
		printf("no memory at %#llx\n", (unsigned long long)gpa);
}

static void desc(uint64_t table, unsigned n, uint64_t addr, uint32_t len, uint16_t flags)
{
	const struct {
		uint64_t addr;
		uint32_t len;
		uint16_t flags, next;
	} d = {addr, len, flags, (uint16_t)(n + 1)};

	put(table + 16 * n, &d, sizeof(d));
}

static void chain_at(uint64_t table, unsigned first, unsigned i, uint32_t data)
{
	const uint64_t at = DATA + (uint64_t)i * 0x40000;

	desc(table, first, at, 16, 1);
	desc(table, first + 1, at + 4096, data, 3);
	desc(table, first + 2, at + 16, 1, 2);
}

static void driver(bool indirect, uint32_t data)
{
	for (unsigned i = 0; i < SIZE; i++) {
		uint16_t head = (uint16_t)(indirect ? i % BATCH : i % BATCH * 3);

		put(AVAIL + 4 + 2 * i, &head, 2);
	}
	for (unsigned i = 0; i < BATCH; i++) {
		if (!indirect) {
			chain_at(DESC, 3 * i, i, data);
			continue;
		}
		desc(DESC, i, TABLES + 64 * i, 48, 4);
		chain_at(TABLES + 64 * i, 0, i, data);
	}
}

static void turn(void)
{
	struct iovec iov[64];
	const char *why;
	uint8_t header[16], status = 0;

	avail += BATCH;
	*(uint16_t *)(memory.host + AVAIL + 2) = avail;
	env.turn++;
	while (virtq_pop(&queue, &env, &chain, &why) > 0) {
		const uint64_t len = chain.writable_len - 1;

		virtq_read(&env, &chain, 0, header, sizeof(header));
		virtq_iov(&env, &chain, true, 0, len, iov, 64);
		virtq_written(&env, &chain, 0, len);
		virtq_write(&env, &chain, len, &status, 1);
		virtq_push(&queue, &env,
			   &(struct virtq_used){chain.head, (uint32_t)chain.writable_len}, 1);
	}
	virtq_arm(&queue, &env);
	virtq_must_signal(&queue, &env);
	virtq_turn_done(&queue, &env);
}

static void measure(const char *what, bool indirect, uint32_t data)
{
	double best = 1e18;

	driver(indirect, data);
	for (unsigned round = 0; round < ROUNDS; round++) {
		double start = now();

		for (unsigned i = 0; i < TURNS; i++)
			turn();
		start = (now() - start) / (TURNS * BATCH);
		if (start < best)
			best = start;
	}
	printf("%-50s %7.1f ns\n", what, best);
}

int main(void)
{
	struct error err = {0};

	if (memory_create(&memory, 64 << 20, 0, &err)) {
		printf("%s\n", err.text);
		return 1;
	}
	dma = memory_dma(&memory);
	queue = (struct virtq){
		.size = SIZE, .enabled = true, .desc = DESC, .driver = AVAIL, .device = USED};
	measure("request, direct, 4 KiB", false, 4096);
	measure("request, indirect, 4 KiB", true, 4096);
	measure("request, indirect, 128 KiB", true, 128 << 10);
	s2_dirty_start(memory.vmm);
	measure("request, indirect, 4 KiB, dirty tracking", true, 4096);
	measure("request, indirect, 128 KiB, dirty tracking", true, 128 << 10);
	printf("(used index %u)\n", *(uint16_t *)(memory.host + USED + 2));
	memory_destroy(&memory);
	return 0;
}
