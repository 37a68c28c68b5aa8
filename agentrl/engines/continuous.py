"""Continuous batching: requests join and leave a batch at any step; what was computed is kept.

A step is one forward pass (`packed.py`) over one token of each row that samples and over the
pending pieces of prompts. A row goes on from what its episode left in its slot, from the longest
prefix that the tokens share; a new one copies such a prefix from a row of its group, waiting for
one that is still to be computed. Everything here runs in one thread (`sampler.py`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

import numpy as np
import torch

from agentrl.core.errors import EngineError
from agentrl.core.protocols import Completion, Policy
from agentrl.core.types import Finish
from agentrl.engines.draw import draw, uniforms
from agentrl.engines.packed import LONGEST, SHORT, Packed, Piece
from agentrl.engines.rows import Request, Row, Stats, common_prefix
from agentrl.engines.slots import Move, Pool, Shape, fit, place
from agentrl.engines.threads import Passes

Answer = tuple[Request, Completion | EngineError]


class Batch:
    """The rows of a model's slots, and who waits for one."""

    def __init__(
        self,
        policy: Policy,
        shape: Shape,
        stats: Stats,
        *,
        kv_mib: int,
        max_rows: int,
        step_tokens: int,
    ) -> None:
        self.policy, self.shape, self.stats = policy, shape, stats
        self.kv_mib, self.max_rows, self.step_tokens = kv_mib, max_rows, step_tokens
        self.capacity = kv_mib * 2**20 // shape.token_bytes
        self.passes = Passes(policy.module)
        self.version = 0
        self.queue: deque[Request] = deque()
        self.active: list[Row] = []
        self.idle: list[Row] = []
        self.pool: Pool | None = None

    @property
    def has_work(self) -> bool:
        """Somebody waits for tokens."""
        return bool(self.active or self.queue)

    # --- between steps -----------------------------------------------------------------------

    def arrive(self, requests: Iterable[Request], ended: frozenset[int]) -> None:
        """Forget the episodes that ended before these requests were asked, and queue them. Of those
        who came together, who finds a row of the last turn is first, before others take its slot.
        """
        self.idle = [row for row in self.idle if row.episode not in ended]
        kept = {row.episode for row in self.idle}
        self.queue.extend(sorted(requests, key=lambda request: request.episode not in kept))

    def forget(self) -> None:
        """The weights are others: nothing that was computed holds."""
        self.idle.clear()
        for row in self.active:
            row.filled, row.leader = 0, None

    def release(self) -> None:
        """Give the memory of the slots back, if nobody is being sampled."""
        if not self.active:
            self.idle.clear()
            self.pool = None

    def sweep(self) -> None:
        """Free the rows of those who do not wait any more."""
        self.queue = deque(request for request in self.queue if not request.is_given_up)
        for row in [row for row in self.active if row.request and row.request.is_given_up]:
            self._rest(row)

    # --- a step ------------------------------------------------------------------------------

    def step(self) -> list[Answer]:
        """Compute what is pending, sample, and return the answers that this completed."""
        answers = self._admit()
        try:
            return answers + self._sample() if self.active else answers
        except Exception as error:  # noqa: BLE001 - the boundary to models
            return [*answers, *self.fail(error)]

    def fail(self, error: Exception, *, everybody: bool = False) -> list[Answer]:
        """Those who are being sampled cannot go on, and nothing that was computed is trusted."""
        requests = [row.request for row in self.active if row.request]
        requests += self.queue if everybody else ()
        if everybody:
            self.queue.clear()
        self.active.clear()
        self.release()
        return [(request, _engine_error(error)) for request in requests]

    def _rest(self, row: Row) -> None:
        """The row waits for its episode's next turn, with what it has."""
        self.active.remove(row)
        del row.ids[row.filled :]
        row.request = row.leader = None
        if row.filled and not any(other.episode == row.episode for other in self.idle):
            self.idle.append(row)

    def _admit(self) -> list[Answer]:
        """Rows for those who wait, in order, as long as all active rows have room to the end."""
        refused: list[Answer] = []
        homes = {row.episode: row for row in self.idle} if self.queue else {}
        groups: dict[int, list[Row]] = {}
        for row in (*self.active, *self.idle) if self.queue else ():
            groups.setdefault(row.group, []).append(row)
        reach = max((row.request.reach for row in self.active if row.request), default=0)
        while self.queue:
            request = self.queue[0]
            if request.reach > self.capacity:
                refused.append((self.queue.popleft(), self._too_long(request)))
                continue
            reach = max(reach, request.reach)
            count = len(self.active) + 1
            if count > self.max_rows or count * reach > self.capacity:
                break
            self.queue.popleft()
            row = self._row(request, homes.pop(request.episode, None))
            siblings = groups.setdefault(request.group, [])
            if row not in siblings:
                self._find_leader(row, siblings)
                siblings.append(row)
            row.used = self.stats.steps
            self.active.append(row)
        return refused

    def _too_long(self, request: Request) -> EngineError:
        return EngineError(
            f"a request of {len(request.prompt)} prompt tokens and up to "
            f"{request.params.max_tokens} sampled ones does not fit in the {self.capacity} tokens "
            f"that engine.kv_mib={self.kv_mib} holds: raise it, or lower rollout.max_context"
        )

    def _row(self, request: Request, home: Row | None) -> Row:
        """The row of the episode's last turn, cut to what the prompt shares; or a new one."""
        ids = request.prompt.copy()
        if home is None:
            return Row(request, request.episode, request.group, ids)
        self.idle.remove(home)
        home.filled = min(home.filled, common_prefix(home.ids, ids), len(ids) - 1)
        home.request, home.ids = request, ids
        self.stats.reused += home.filled
        return home

    def _find_leader(self, row: Row, siblings: Iterable[Row]) -> None:
        """The row of the group that shares the longest prefix."""
        shared = {other: common_prefix(other.ids, row.ids) for other in siblings}
        if any(shared.values()):
            row.leader, row.shared = max(shared.items(), key=lambda item: item[1])
            row.leader.used = self.stats.steps

    def _follow(self) -> list[tuple[Row, Row]]:
        """Rows whose leader has what they share, each with its leader; it is to be copied now.

        A leader's history may have been rewritten since: what is shared is looked up again.
        """
        ready = []
        for row in self.active:
            leader = row.leader
            if leader is None:
                continue
            has_slot = leader.request is not None or leader in self.idle
            found = common_prefix(leader.ids[: leader.filled], row.ids) if has_slot else 0
            will_share = leader.ids[: row.shared] == row.ids[: row.shared]
            if found < row.shared and leader.pending and will_share:
                continue
            row.leader = None
            row.filled = min(found, len(row.ids) - 1)
            if row.filled:
                self.stats.copied += row.filled
                ready.append((leader, row))
        return ready

    def _sample(self) -> list[Answer]:
        count = len(self.idle)
        self.pool = pool = fit(self.pool, self.shape, self.capacity, self.active, self.idle)
        self.stats.evicted += count - len(self.idle)
        following = self._follow()
        budget = self.step_tokens
        for row in self.active:
            row.count = 1 if row.pending == 1 and row.leader is None else 0
        for row in self.active:
            if row.pending > 1 and row.leader is None:
                row.count = min(row.pending, budget, LONGEST)
                budget -= row.count
        kinds: list[list[Row]] = [[], [], [], []]  # one token, a few, many; waiting
        for row in self.active:
            kinds[(row.count > 1) + (row.count > SHORT) if row.count else 3].append(row)
        place(pool, kinds, self.idle, following)
        rows = [row for kind in kinds[:3] for row in sorted(kind, key=lambda row: row.slot)]
        packed = Packed(pool, [Piece(row.slot, row.filled, row.count) for row in rows])
        complete = [i for i, row in enumerate(rows) if row.count == row.pending]
        logits_RV = self._forward(rows, packed, complete)
        drawing = [rows[i] for i in complete]
        for row in rows:
            row.filled += row.count
            row.used = self.stats.steps
        picks = list(range(len(drawing)))
        twins = self._twins(drawing, picks, pool)
        if not drawing:
            return []
        return self._draw(logits_RV[picks] if twins else logits_RV, drawing)

    def _twins(self, drawing: list[Row], picks: list[int], pool: Pool) -> int:
        """Rows with the very prompt that was computed now draw from the same logits."""
        places = {id(row): i for i, row in enumerate(drawing)}
        moves = []
        for row in self.active:
            at = places.get(id(row.leader))
            if at is None or row.leader is None or row.ids != row.leader.ids:
                continue
            row.filled, row.leader = len(row.ids), None
            self.stats.copied += row.filled
            moves.append(Move(drawing[at].slot, row.slot, row.filled))
            drawing.append(row)
            picks.append(at)
        pool.move(moves)
        return len(moves)

    def _forward(self, rows: list[Row], packed: Packed, complete: list[int]) -> torch.Tensor:
        """`[R,V]` logits behind the rows whose ids are complete."""
        ids = [token for row in rows for token in row.ids[row.filled : row.filled + row.count]]
        device = self.shape.device
        index_R = torch.from_numpy(packed.last[complete]).to(device)
        ids_1T = torch.tensor([ids], device=device)

        def logits() -> torch.Tensor:
            out = self.policy.module(
                input_ids=ids_1T,
                position_ids=packed.position_ids,
                use_cache=False,
                logits_to_keep=index_R,
                packed=packed,
            )
            found: torch.Tensor = out.logits[0]
            return found

        logits_RV = self.passes.run(len(ids), logits)
        decoded = sum(row.count for row in rows if row.request and row.request.logprobs)
        self.stats.steps += 1
        self.stats.decoded += decoded
        self.stats.prefilled += len(ids) - decoded
        return logits_RV

    def _draw(self, logits_RV: torch.Tensor, rows: list[Row]) -> list[Answer]:
        requests = [row.request for row in rows if row.request is not None]
        params = [request.params for request in requests]
        temperatures = [0.0 if p.greedy else p.temperature for p in params]
        seeds_R = np.array([p.seed for p in params], dtype=np.uint64)
        positions_R = np.array([len(request.logprobs) for request in requests])
        ids_R, logprobs_R = draw(
            logits_RV,
            torch.tensor(temperatures, device=logits_RV.device),
            uniforms(seeds_R, positions_R),
        )
        drawn_2R = torch.stack((ids_R.double(), logprobs_R.double())).tolist()
        answers: list[Answer] = []
        for row, request, token, logprob in zip(rows, requests, *drawn_2R, strict=True):
            row.ids.append(int(token))
            request.add(logprob, self.version)
            answer = self._answer(row, request, int(token), logprob)
            if answer is not None:
                answers.append((request, answer))
        self.stats.sampled += len(rows)
        return answers

    def _answer(
        self, row: Row, request: Request, token: int, logprob: float
    ) -> Completion | EngineError | None:
        """None if the row goes on."""
        if not math.isfinite(logprob):
            if self.pool is not None:
                self.pool.clear(row.slot)
            row.filled = 0
            self._rest(row)
            return EngineError(
                "the model answered logits that are not finite; the weights have diverged (lower "
                "optim.lr) or the checkpoint is broken"
            )
        is_stop = token in request.params.stop_ids
        if not is_stop and len(request.logprobs) < request.params.max_tokens:
            return None
        ids = tuple(row.ids[len(request.prompt) :])
        self._rest(row)
        return Completion(
            ids=ids,
            logprobs=tuple(request.logprobs),
            finish=Finish.EOS if is_stop else Finish.LENGTH,
            versions=tuple(request.versions),
        )


def _engine_error(error: BaseException) -> EngineError:
    if isinstance(error, EngineError):
        return error
    return EngineError(f"engine 'transformers' failed: {type(error).__name__}: {error}")
