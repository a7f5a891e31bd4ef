/* The test "missing" of vmm/testing.h: guest memory comes in page by page while the guest runs. */
#ifndef VMM_TESTING_MISSING_H
#define VMM_TESTING_MISSING_H

struct vm;

/* The image is loaded and vCPUs are parked. All memory is put aside and filled with rubbish; a
 * thread brings it back within `ms`, or at once when the guest has ended sooner. When all of it is
 * here a message says what happened. 0 or -errno. */
int testing_missing_start(struct vm *vm, long ms);
/* Whether it was started or not. */
void testing_missing_end(struct vm *vm);

#endif
