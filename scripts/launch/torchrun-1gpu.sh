#!/usr/bin/env bash
# 1 GPU, by torchrun.
#   scripts/launch/torchrun-1gpu.sh CONFIG parallel=ddp
# Parsed by a test. The same launch was run with 2 processes on a CPU, not on GPUs.
set -euo pipefail
exec torchrun --standalone --nproc-per-node 1 -m agentrl train "$@"
