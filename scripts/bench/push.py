"""How soon a vLLM server samples from new weights: pushed through memory, or read from disk.

    python scripts/bench/push.py --json docs/results/bench/push.json

Timed is from the end of an optimiser step to the first token that the server samples from its new
weights, one request at a time. `push` is `agentrl.engines.vllm.weights.push`. The peer is what one
does with vLLM alone: `save_pretrained` into a folder, pause, vLLM's own `reload_weights` by
`/collective_rpc`, drop the prefix cache, name the version, resume. The file is read back from the
page cache, as it would be on one machine with enough memory. After every exchange the server's
logprobs must be the trainer's within 1e-4.

The models have a head of their own, since `reload_weights` of vLLM 0.32 on a CPU leaves the head of
tied ones as it was (the peer would have to start its server anew, which takes `start_s`).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import measure
import torch
from measure import CONSOLE, Report, Spread, interleaved, ratios, show
from subjects import build
from transformers import PreTrainedModel

from agentrl.core.types import SamplingParams
from agentrl.engines.vllm.client import Client
from agentrl.engines.vllm.server import Server, ServerSettings, installed
from agentrl.engines.vllm.weights import SharedMemory, push

SIZES = {"5M": ("4M", 2048), "100M": ("90M", 8192)}
"""Name -> a size of `subjects`, and rows of the embedding."""
GOAL = "100M"
START_S = 300.0
PATIENCE_S = 120.0
PROMPT = [3 + i * 7 % 250 for i in range(64)]
EXACT = 1e-4


class Bench:
    """A trainer and a server of one model."""

    def __init__(self, size: str, python: Path, folder: Path, threads: int) -> None:
        base, rows = SIZES[size]
        policy = build(base, plain=True, vocabulary=rows)
        self.module = cast("PreTrainedModel", policy.module)
        self.folder = folder
        self.version = 0
        self.memory = SharedMemory()
        policy.save(folder / "start")
        self.server = Server(
            settings=ServerSettings(
                python=python, dtype="float32", is_eager=True, max_model_len=512, threads=threads
            ),
            log=folder / "server.log",
        )
        self.optimiser = torch.optim.SGD(self.module.parameters(), lr=1e-3)
        self.loop = asyncio.Runner()
        self.start_s = measure.seconds(
            lambda: self.loop.run(self.server.start(folder / "start", START_S))
        )

    def close(self) -> None:
        """End the server."""
        self.loop.run(self.server.stop())
        self.loop.close()

    def timed(self, exchange: Callable[[Client], Awaitable[None]]) -> float:
        """Seconds from a step's end to the first token of the new weights."""
        self.optimiser.zero_grad()
        ids_1T = torch.tensor([PROMPT])
        self.module(input_ids=ids_1T, labels=ids_1T).loss.backward()
        self.optimiser.step()
        self.version += 1

        async def run() -> tuple[float, list[float]]:
            client = Client(self.server.url, self.server.api_key)
            await client.get("/health", timeout_s=PATIENCE_S)  # connections are not what is timed
            began = time.perf_counter()
            await exchange(client)
            one = SamplingParams(temperature=1.0, max_tokens=1, seed=self.version)
            reply = await client.generate(PROMPT, one, timeout_s=PATIENCE_S)
            taken = time.perf_counter() - began
            if reply.versions != ((self.version, 1),):
                sys.exit(f"a token of version {self.version} came from {reply.versions}")
            found = await client.probe(PROMPT, timeout_s=PATIENCE_S)
            await client.close()
            return taken, found

        taken, theirs = self.loop.run(run())
        with torch.no_grad():
            logp_TV = self.module(input_ids=ids_1T).logits[0, :-1].log_softmax(-1)
        ours = logp_TV.gather(1, ids_1T[0, 1:, None])[:, 0]
        if (gap := float((torch.tensor(theirs) - ours).abs().max())) > EXACT:
            sys.exit(f"version {self.version}: logprobs differ by {gap:.1e} nats")
        return taken

    async def push(self, client: Client) -> None:
        """Ours."""
        state, version = self.module.state_dict(), self.version
        await push([client], state, version, memory=self.memory, timeout_s=PATIENCE_S)

    async def reload(self, client: Client) -> None:
        """By way of the disk."""
        folder = self.folder / "exported"
        self.module.save_pretrained(folder)

        async def ask(path: str, body: dict[str, object]) -> None:
            await client.post(path, body, timeout_s=PATIENCE_S)

        await ask("/pause?mode=keep", {})
        await ask(
            "/collective_rpc",
            {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}},
        )
        await ask("/reset_prefix_cache?reset_running_requests=true", {})
        await client.name_weights(self.version, timeout_s=PATIENCE_S)
        await ask("/resume", {})


def compare(size: str, arguments: argparse.Namespace, report: Report) -> list[str]:
    """One size: a row of the table."""
    with tempfile.TemporaryDirectory(dir=arguments.folder) as made:
        bench = Bench(size, arguments.python, Path(made), arguments.threads)
        try:
            arms = {
                "push": lambda: bench.timed(bench.push),
                "reload": lambda: bench.timed(bench.reload),
            }
            for arm in arms.values():  # first requests and first files are slower
                arm()
            found = interleaved(arms, arguments.repeats)
        finally:
            bench.close()
    ratio = ratios(found["reload"], found["push"])
    ours, theirs = Spread.of(found["push"]), Spread.of(found["reload"])
    parameters = sum(p.numel() for p in bench.module.parameters())
    report.case(
        size=size,
        parameters=parameters,
        ratio=ratio,
        push_s=ours,
        reload_s=theirs,
        start_s=bench.start_s,
    )
    report.figure("ratio" if size == GOAL else f"ratio_{size}", ratio.median, "above 1")
    return [
        size,
        f"{parameters / 1e6:.1f}M",
        ratio.text(),
        ours.text(".3f"),
        theirs.text(".3f"),
        f"{bench.start_s:.0f}",
    ]


def main() -> None:
    """Both sizes."""
    options = measure.parser(__doc__ or "", repeats=7)
    venv = Path(os.environ.get("AGENTRL_VLLM_VENV", ".venv-vllm"))
    options.add_argument(
        "--python",
        type=Path,
        default=venv.absolute() / "bin" / "python",
        help="interpreter of vLLM (.ci/install-vllm); default %(default)s",
    )
    options.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    options.add_argument("--folder", type=Path, help="on which disk the peer writes")
    arguments = options.parse_args()
    version = asyncio.run(installed(arguments.python))
    CONSOLE.print(f"vllm {version}")
    torch.set_num_threads(arguments.threads)
    report = Report(bench="push", arguments=arguments)
    rows = [compare(size, arguments, report) for size in arguments.sizes]
    heads = ["model", "parameters", "reload / push", "push s", "reload s", "server start s"]
    show("From a step to the first token of its weights", heads, rows)
    report.case(vllm=version)
    del arguments.python, arguments.folder  # places on this machine say nothing elsewhere
    report.finish()


if __name__ == "__main__":
    main()
