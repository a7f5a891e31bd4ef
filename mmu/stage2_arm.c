/* The policy of the second stage, specialised for each granule of arm64's stage 2. */
#include "mmu/format/arm_s2.h"
#include "mmu/stage2_ops.h"

ARM_FORMAT(arm4k, 12);
ARM_FORMAT(arm16k, 14);
ARM_FORMAT(arm64k, 16);

STAGE2_DEFINE_OPS(arm4k, stage2_arm4k_ops);
STAGE2_DEFINE_OPS(arm16k, stage2_arm16k_ops);
STAGE2_DEFINE_OPS(arm64k, stage2_arm64k_ops);
