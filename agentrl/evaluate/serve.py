"""`agentrl serve`: a checkpoint behind OpenAI's chat API, which keeps every token that it sampled.

A session is an episode: its calls are turns, its score comes from whoever posts one. What is
written is what training would have learned from: exact ids, logprobs and rows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from agentrl.core.config import Config, load_config
from agentrl.core.errors import ConfigError
from agentrl.core.types import Group, Split, Step, Task
from agentrl.envs.program.endpoint import Broken, Endpoint, Session
from agentrl.envs.program.env import Conversation
from agentrl.evaluate.checkpoints import resolve_checkpoint
from agentrl.evaluate.runner import Stage, build_stage
from agentrl.rewards.env import EnvReward
from agentrl.rollout.ahead import PlayGroup
from agentrl.rollout.strategies.flat import Flat
from agentrl.track.trajectories import EpisodeRecord, record, write_episodes

LONGEST_S = 7 * 86_400.0
"""How long a session may last."""
MOST_TURNS = 100_000
CLOSING_S = 30.0
"""How long sessions may take to end when the server is stopped."""


@dataclass(kw_only=True)
class Served(Conversation):
    """A session that somebody opened, named by its task."""

    endpoint: Endpoint

    def tasks(self, split: Split) -> list[Task]:
        """None that are known before."""
        return []

    def begin(self, task: Task) -> Session:
        """The session has begun by itself."""
        return self.endpoint.sessions[task.id]

    def broke(self, error: str) -> Step:
        """A session that nobody ended is cut off, and its replies are kept."""
        self.close_session()
        return Step(observation="", truncated=True)

    def end(self, session: Session) -> None:
        """Its further calls are told so."""
        self.endpoint.drop(session)


@dataclass(kw_only=True)
class Desk:
    """Plays each session that is opened, and writes it when it is over."""

    stage: Stage
    endpoint: Endpoint
    play: PlayGroup
    folder: Path
    say: Callable[[str], None]
    count: int = 0
    running: set[asyncio.Task[None]] = field(default_factory=set)

    def begin(self, session: Session) -> None:
        """Play the session in the background."""
        task = asyncio.create_task(self._serve(session, self.count), name=session.name)
        self.count += 1
        self.running.add(task)
        task.add_done_callback(self.running.discard)

    async def close(self) -> None:
        """Cut off the sessions that are open, and write all of them."""
        for session in list(self.endpoint.sessions.values()):
            session.events.put(Broken("the server was stopped"))
        if self.running:
            await asyncio.wait(list(self.running), timeout=CLOSING_S)
        for task in list(self.running):
            task.cancel()

    async def _serve(self, session: Session, number: int) -> None:
        group = await self.play(Task(id=session.name, seed=number), number)
        path = self.folder / f"session-{number + 1:06d}.parquet"
        write_episodes(path, [self._record(group, number)])
        episode = group.trajectories[0]
        end = episode.failure.error if episode.failure else f"reward {episode.env_return:g}"
        self.say(
            f"session {session.name}: {len(episode.turns)} turns, {episode.n_tokens} tokens, "
            f"{end}; {path}"
        )

    def _record(self, group: Group, number: int) -> EpisodeRecord:
        tokenizer = self.stage.policy.tokenizer

        @lru_cache(maxsize=65536)
        def piece(token: int) -> str:
            return str(tokenizer.decode([token]))

        return record(
            group.trajectories[0],
            phase="eval",
            label="serve",
            step=0,
            group=number,
            sibling=0,
            piece=piece,
        )


def serve(
    checkpoint: Path,
    *,
    overrides: Sequence[str],
    host: str,
    port: int,
    out: Path,
    idle_s: float,
    say: Callable[[str], None],
    until: Callable[[Endpoint], bool] = lambda _: False,
) -> None:
    """Serve until Ctrl-C, or until `until` says so.

    Args:
        idle_s: seconds without a call after which a session is taken to be over.
        out: a folder for the sessions' episodes.

    Raises:
        ConfigError: there is no checkpoint, or its config cannot be used.
    """
    folder = resolve_checkpoint(checkpoint).resolve()
    run = folder.parent.parent if folder.parent.name == "checkpoints" else folder
    written = run / "config.yaml"
    config = load_config(written if written.exists() else None, overrides)
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise ConfigError(f"--out {out} holds files already; name a new folder")
    asyncio.run(_serve(config, folder, host, port, out, idle_s, say, until))


def _as_served(config: Config, folder: Path, endpoint: Endpoint, idle_s: float) -> Config:
    return replace(
        config,
        model=str(folder),
        lora=None,
        env=Served(endpoint=endpoint, patience_s=idle_s),
        reward=EnvReward(),
        strategy=Flat(),
        run=replace(config.run, deterministic=False),
        rollout=replace(
            config.rollout,
            mode="sync",
            max_staleness=0,
            replay=None,
            on_invalid="pass",
            runner="thread",
            max_turns=MOST_TURNS,
            deadline_s=LONGEST_S,
            env_timeout_s=idle_s + CLOSING_S,
        ),
    )


async def _serve(
    config: Config,
    folder: Path,
    host: str,
    port: int,
    out: Path,
    idle_s: float,
    say: Callable[[str], None],
    until: Callable[[Endpoint], bool],
) -> None:
    loop, waiting = asyncio.get_running_loop(), list[Session]()
    endpoint = Endpoint(host, port, on_new=waiting.append, timeout_s=LONGEST_S)
    config = _as_served(config, folder, endpoint, idle_s)
    try:
        stage = await build_stage(config)
        await config.engine.start(stage.policy)
        agent = stage.engine_agent(in_step=False)
        play = stage.worker.one_by_one(agent=agent, group_size=1, label=f"serve/{time.time_ns()}")
        desk = Desk(stage=stage, endpoint=endpoint, play=play, folder=out, say=say)
        url = endpoint.url
        say(
            f"OPENAI_BASE_URL={url}/s/NAME/v1 (each NAME a session), or {url}/v1 and a key for each"
        )
        say(f'POST .../v1/score {{"reward": 1.0, "success": true}} ends a session; {out} keeps it')
        try:
            while not until(endpoint):
                while waiting:
                    desk.begin(waiting.pop(0))
                await asyncio.sleep(0.005)
        finally:
            await desk.close()
            await stage.worker.close()
            await config.engine.close()
    finally:
        await loop.run_in_executor(None, endpoint.close)
