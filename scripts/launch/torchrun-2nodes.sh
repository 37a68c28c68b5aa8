#!/usr/bin/env bash
# Two machines with 8 GPUs each, by torchrun. On both:
#   FIRST=name-of-the-first-machine scripts/launch/torchrun-2nodes.sh CONFIG parallel=fsdp
# Parsed by a test. The same launch was run with 2 processes on one machine's CPU, not on GPUs or two machines.
# The run folder must be on storage that both machines see.
set -euo pipefail
exec torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint "${FIRST:?the first machine}:29500" \
    --rdzv-id agentrl -m agentrl train "$@"
