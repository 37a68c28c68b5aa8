#!/usr/bin/env bash
# 2 GPUs, by torchrun.
#   scripts/launch/torchrun-2gpu.sh CONFIG parallel=fsdp
# Parsed by a test. The same launch was run with 2 processes on a CPU, not on GPUs.
set -euo pipefail
exec torchrun --standalone --nproc-per-node 2 -m agentrl train "$@"
