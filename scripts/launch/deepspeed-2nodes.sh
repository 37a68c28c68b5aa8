#!/usr/bin/env bash
# Two machines with 8 GPUs each, by DeepSpeed's launcher, which reaches the other by ssh. On the first:
#   scripts/launch/deepspeed-2nodes.sh CONFIG parallel=deepspeed
# Parsed by a test. The same launch was run with 2 processes on one machine's CPU, not on GPUs or two machines.
# The run folder must be on storage that both machines see.
set -euo pipefail
exec deepspeed --hostfile "${HOSTFILE:-$(dirname "$0")/hostfile}" --no_local_rank --module agentrl train "$@"
