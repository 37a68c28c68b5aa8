"""Serves a fake vLLM as a process of its own, told by the command line that vLLM gets:

    python serve_fake.py -m vllm.entrypoints.cli.main serve FOLDER --port N ...

and by FAKE_VLLM, a mapping as JSON: `sleep_s` before it listens, `faults`, and a file `claim`,
which only the first process can make: only there do these things happen.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from transformers import AutoModelForCausalLM

from support.fake_vllm import FakeVllm


def main() -> None:
    """Serve until somebody ends the process."""
    told = json.loads(os.environ.get("FAKE_VLLM", "{}"))
    folder, port = (sys.argv[sys.argv.index(word) + 1] for word in ("serve", "--port"))
    server = FakeVllm(
        module=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(),
        folder=folder,
        port=int(port),
        api_key=os.environ.get("VLLM_API_KEY", ""),
        schedules="--scheduling-policy" in sys.argv,
        scale_out="--enable-scale-out" in sys.argv,
    )
    with contextlib.suppress(FileExistsError):
        if "claim" in told:
            os.close(os.open(told["claim"], os.O_CREAT | os.O_EXCL))
        time.sleep(told.get("sleep_s", 0.0))
        for fault in told.get("faults", ()):
            server.hit(fault)
    with server:
        threading.Event().wait()


if __name__ == "__main__":
    main()
