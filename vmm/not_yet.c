/* Stands in for constructors of devices that are being written: weak, so that the real ones replace
 * them as they come. Gone when all are there. */
#include <errno.h>

#include "devices/virtio/devices.h"

#define WEAK __attribute__((weak))
