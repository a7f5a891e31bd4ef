/* The policy of the second stage, specialised for the RISC-V G-stage. */
#include "mmu/format/riscv_gstage.h"
#include "mmu/stage2_ops.h"

STAGE2_DEFINE_OPS(riscv64, stage2_riscv64_ops);
STAGE2_DEFINE_OPS(riscv32, stage2_riscv32_ops);
