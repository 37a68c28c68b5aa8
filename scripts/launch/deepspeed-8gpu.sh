#!/usr/bin/env bash
# 8 GPUs, by DeepSpeed's launcher.
#   scripts/launch/deepspeed-8gpu.sh CONFIG parallel=deepspeed
# Parsed by a test. The same launch was run with 2 processes on a CPU, not on GPUs.
set -euo pipefail
exec deepspeed --num_gpus 8 --no_local_rank --module agentrl train "$@"
