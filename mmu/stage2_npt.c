/* The policy of the second stage, specialised for AMD nested paging. */
#include "mmu/format/npt.h"
#include "mmu/stage2_ops.h"

STAGE2_DEFINE_OPS(npt, stage2_npt_ops);
