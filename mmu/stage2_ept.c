/* The policy of the second stage, specialised for EPT. */
#include "mmu/format/ept.h"
#include "mmu/stage2_ops.h"

STAGE2_DEFINE_OPS(ept, stage2_ept_ops);
