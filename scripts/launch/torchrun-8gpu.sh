#!/usr/bin/env bash
# 8 GPUs, by torchrun.
#   scripts/launch/torchrun-8gpu.sh CONFIG parallel=fsdp
# Parsed by a test. The same launch was run with 2 processes on a CPU, not on GPUs.
set -euo pipefail
exec torchrun --standalone --nproc-per-node 8 -m agentrl train "$@"
