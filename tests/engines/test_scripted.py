"""The engine that replays."""

import asyncio

import pytest

from agentrl.core.errors import EngineError
from agentrl.core.protocols import Completion, Engine, SamplingParams
from agentrl.core.types import Finish
from agentrl.engines.scripted import Scripted

ONE = Completion(ids=(5, 1), logprobs=(-0.1, -0.2), finish=Finish.EOS, versions=((0, 2),))
TWO = Completion(ids=(6,), logprobs=(-0.3,), finish=Finish.LENGTH, versions=((0, 1),))


def ask(engine: Engine, episode: int) -> Completion:
    return asyncio.run(engine.generate((1, 2), SamplingParams(), episode=episode, group=0))


def test_it_is_an_engine() -> None:
    assert isinstance(Scripted(), Engine)


def test_each_episode_reads_its_own_script_from_the_start() -> None:
    engine = Scripted(script={3: (ONE, TWO), -1: (TWO,)})
    assert [ask(engine, 3), ask(engine, 8), ask(engine, 3)] == [ONE, TWO, TWO]


def test_a_script_that_is_over_is_an_engine_error() -> None:
    engine = Scripted(script={0: (ONE,)})
    ask(engine, 0)
    with pytest.raises(EngineError, match="episode 0 ends after 1 completions"):
        ask(engine, 0)
    with pytest.raises(EngineError, match="episode 4 ends after 0 completions"):
        ask(engine, 4)


def test_an_episode_that_ended_starts_over() -> None:
    engine = Scripted(script={0: (ONE, TWO)})
    ask(engine, 0)
    asyncio.run(engine.end(0))
    assert ask(engine, 0) == ONE


def test_it_cannot_be_probed() -> None:
    with pytest.raises(EngineError, match="no model to probe"):
        asyncio.run(Scripted().probe((1, 2)))
