"""The three runners give one env the same episode, and survive envs that break."""

import asyncio
import math
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from agentrl.core.errors import ConfigError, DeadlineError, EnvError
from agentrl.core.protocols import Env, EnvHandle, Runner
from agentrl.core.types import Step, Task
from agentrl.rollout.runners import (
    EnvPool,
    EnvRaisedError,
    InlineRunner,
    ProcessRunner,
    ThreadRunner,
    runner_for,
)
from support import WAKE, AsyncEchoEnv, BadEnv, EchoEnv, PlainEnv, ProcessEchoEnv, ThreadEchoEnv

RUNNERS = (InlineRunner, ThreadRunner, ProcessRunner)
CUTTING = (ThreadRunner, ProcessRunner)
TASK = EchoEnv().tasks("train")[10]

SLEEPER = Task(id="sleeper", seed=0, answer="sleep")


def with_runners(kinds: Sequence[type[Runner]]) -> pytest.MarkDecorator:
    """Run a test once for each kind of runner."""
    return pytest.mark.parametrize("runner", [pytest.param(k(), id=k.__name__) for k in kinds])


every_runner = with_runners(RUNNERS)
cutting_runner = with_runners(CUTTING)


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    """No test may leave a process, a thread or a pipe behind."""
    files_before = len(os.listdir("/proc/self/fd"))
    yield
    WAKE.set()
    until = time.monotonic() + 5
    while env_threads() and time.monotonic() < until:
        time.sleep(0.005)
    WAKE.clear()
    assert env_threads() == []
    assert multiprocessing.active_children() == []
    # The first spawn starts multiprocessing's resource tracker, which keeps one pipe for good.
    assert len(os.listdir("/proc/self/fd")) <= files_before + 1


def env_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("env ")]


def play(runner: Runner, env: Env, use: Callable[[EnvHandle], Awaitable[object]]) -> object:
    """Open, use, close."""

    async def whole() -> object:
        handle = await runner.open(env)
        try:
            return await use(handle)
        finally:
            await runner.close(handle, is_broken=True)

    return asyncio.run(whole())


def episode(runner: Runner, env: Env) -> list[object]:
    """All answers of one episode of the expert, and what close says."""

    async def whole() -> list[object]:
        handle = await runner.open(env)
        answers = [await runner.call(handle, "reset", TASK)]
        for _ in range(2):
            action = await runner.call(handle, "expert_action")
            answers.append(await runner.call(handle, "step", action))
        await runner.close(handle)
        await runner.close(handle)
        return answers

    return asyncio.run(whole())


@every_runner
@pytest.mark.parametrize("kind", [EchoEnv, AsyncEchoEnv])
def test_an_episode_is_the_same_wherever_it_runs(runner: Runner, kind: type[EchoEnv]) -> None:
    answers = episode(runner, kind())
    assert answers[0] == "say dog"
    assert [(s.reward, s.terminated) for s in answers[1:] if isinstance(s, Step)] == [
        (0.5, False),
        (0.5, True),
    ]


@every_runner
def test_an_opened_env_has_the_settings_but_not_the_state_of_its_template(runner: Runner) -> None:
    template = EchoEnv(length=1)
    template.reset(template.tasks("train")[0])

    async def step(handle: EnvHandle) -> object:
        tasks = await runner.call(handle, "tasks", "train")
        assert isinstance(tasks, list)
        assert len(tasks[0].data["words"]) == 1
        return await runner.call(handle, "step", "ant")

    with pytest.raises(EnvRaisedError, match="step raised RuntimeError: the episode is over"):
        play(runner, template, step)


@every_runner
def test_an_env_that_is_no_dataclass_runs_too(runner: Runner) -> None:
    async def use(handle: EnvHandle) -> object:
        await runner.call(handle, "reset", PlainEnv("yes").tasks("dev")[0])
        return await runner.call(handle, "step", "yes")

    step = play(runner, PlainEnv("yes"), use)
    assert isinstance(step, Step)
    assert step.info == {"success": True}


@every_runner
@pytest.mark.parametrize("at", ["reset", "step"])
def test_an_env_that_raises_is_told_with_kind_text_and_line(runner: Runner, at: str) -> None:
    async def use(handle: EnvHandle) -> object:
        await runner.call(handle, "reset", TASK)
        return await runner.call(handle, "step", "ant")

    with pytest.raises(EnvRaisedError) as caught:
        play(runner, BadEnv(fault="raise", at=at), use)
    assert caught.value.kind == "ValueError"
    assert f"env BadEnv: {at} raised ValueError: the dog ate the world (" in str(caught.value)
    assert "support/envs.py:" in str(caught.value)


@every_runner
def test_an_env_that_raised_can_be_called_again(runner: Runner) -> None:
    async def use(handle: EnvHandle) -> object:
        await runner.call(handle, "reset", TASK)
        with pytest.raises(EnvError):
            await runner.call(handle, "expert_action", "one argument too many")
        return await runner.call(handle, "expert_action")

    assert play(runner, EchoEnv(), use) == "dog"


@every_runner
@pytest.mark.parametrize("at", ["reset", "step"])
def test_garbage_is_refused_and_named(runner: Runner, at: str) -> None:
    async def use(handle: EnvHandle) -> object:
        await runner.call(handle, "reset", TASK)
        return await runner.call(handle, "step", "ant")

    with pytest.raises(EnvError, match=rf"env BadEnv: expected .*{at}.*, got int 42"):
        play(runner, BadEnv(fault="garbage", at=at), use)


@dataclass(kw_only=True)
class OddStep(EchoEnv):
    """Returns a given Step whatever happens."""

    answer: object = None

    def step(self, action: object) -> Step:
        return self.answer  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("step", "complaint"),
    [
        (Step(observation=None), "Step.observation to be an Observation or a str, got NoneType"),  # type: ignore[arg-type]
        (Step(observation="x", reward="1"), "Step.reward to be a number, got str '1'"),  # type: ignore[arg-type]
        (Step(observation="x", reward=True), "Step.reward to be a number, got bool True"),
        (Step(observation="x", info=[]), "Step.info to be a mapping"),  # type: ignore[arg-type]
        (("x", 0.0, False, False, {}), "step to return a Step, got tuple"),
    ],
)
def test_a_step_with_a_wrong_part_is_refused(step: object, complaint: str) -> None:
    runner = InlineRunner()

    async def use(handle: EnvHandle) -> object:
        return await runner.call(handle, "step", "ant")

    with pytest.raises(EnvError, match=complaint):
        play(runner, OddStep(answer=step), use)


@every_runner
def test_a_reward_of_nan_passes_because_the_trajectory_will_count_it(runner: Runner) -> None:
    async def use(handle: EnvHandle) -> object:
        await runner.call(handle, "reset", TASK)
        return await runner.call(handle, "step", "ant")

    step = play(runner, BadEnv(fault="nan"), use)
    assert isinstance(step, Step)
    assert math.isnan(step.reward)


@cutting_runner
@pytest.mark.parametrize("at", ["reset", "step"])
def test_a_hanging_env_is_cut_at_its_deadline(runner: Runner, at: str) -> None:
    seconds: list[float] = []

    async def use(handle: EnvHandle) -> object:
        began = time.monotonic()
        try:
            await runner.call(handle, "reset", TASK, timeout_s=0.2)
            return await runner.call(handle, "step", "ant", timeout_s=0.2)
        finally:
            seconds.append(time.monotonic() - began)

    with pytest.raises(DeadlineError, match=rf"env BadEnv: {at} did not answer within 0\.2 s"):
        play(runner, BadEnv(fault="hang", at=at), use)
    assert 0.19 < seconds[0] < 2


@every_runner
def test_a_hanging_coroutine_is_cut_at_its_deadline(runner: Runner) -> None:
    async def use(handle: EnvHandle) -> object:
        return await runner.call(handle, "reset", SLEEPER, timeout_s=0.2)

    with pytest.raises(DeadlineError, match=r"did not answer within 0\.2 s"):
        play(runner, AsyncEchoEnv(), use)


def test_an_inline_call_that_was_late_is_refused_when_it_returns() -> None:
    runner = InlineRunner()
    timer = threading.Timer(0.3, WAKE.set)
    timer.start()

    async def use(handle: EnvHandle) -> object:
        await runner.call(handle, "reset", TASK)
        return await runner.call(handle, "step", "ant", timeout_s=0.1)

    with pytest.raises(DeadlineError, match=r"its deadline was 0.1 s; inline it could not be cut"):
        play(runner, BadEnv(fault="hang"), use)
    timer.join()


@pytest.mark.parametrize("at", ["reset", "step"])
def test_an_env_that_exits_its_process_is_an_env_error(at: str) -> None:
    runner = ProcessRunner()

    async def use(handle: EnvHandle) -> object:
        await runner.call(handle, "reset", TASK)
        return await runner.call(handle, "step", "ant")

    with pytest.raises(EnvError, match=f"env BadEnv: its process exited with 3 during {at}"):
        play(runner, BadEnv(fault="exit", at=at), use)


@every_runner
def test_a_cancelled_call_breaks_the_env(runner: Runner) -> None:
    async def use(handle: EnvHandle) -> object:
        call = asyncio.ensure_future(runner.call(handle, "reset", SLEEPER, timeout_s=0.5))
        await asyncio.sleep(0.1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        return await runner.call(handle, "expert_action")

    with pytest.raises(EnvError, match="AsyncEchoEnv is broken by a call"):
        play(runner, AsyncEchoEnv(), use)


@every_runner
def test_an_unknown_verb_names_the_nearest(runner: Runner) -> None:
    async def use(handle: EnvHandle) -> object:
        return await runner.call(handle, "expert_actoin")

    with pytest.raises(EnvError, match="no method 'expert_actoin'; did you mean 'expert_action'"):
        play(runner, EchoEnv(), use)


@every_runner
def test_private_methods_are_out_of_reach(runner: Runner) -> None:
    async def use(handle: EnvHandle) -> object:
        return await runner.call(handle, "_observe")

    with pytest.raises(EnvError, match="has no method '_observe'"):
        play(runner, EchoEnv(), use)


@every_runner
def test_a_closed_env_cannot_be_called(runner: Runner) -> None:
    async def use(handle: EnvHandle) -> object:
        await runner.close(handle)
        return await runner.call(handle, "reset", TASK)

    with pytest.raises(EnvError, match="env EchoEnv is closed: open another one"):
        play(runner, EchoEnv(), use)


@every_runner
def test_a_close_that_raises_is_told_once(runner: Runner) -> None:
    async def use(handle: EnvHandle) -> object:
        with pytest.raises(EnvRaisedError, match="close raised ValueError"):
            await runner.close(handle)
        await runner.close(handle)
        return "closed"

    assert play(runner, BadEnv(fault="raise", at="close"), use) == "closed"


def test_an_env_that_cannot_be_pickled_says_so_before_a_process_starts() -> None:
    class Local(EchoEnv):
        """Not importable from anywhere."""

    with pytest.raises(EnvError, match="env Local cannot be sent to a process"):
        asyncio.run(ProcessRunner().open(Local()))


def test_an_answer_that_cannot_be_pickled_says_so() -> None:
    runner = ProcessRunner()

    async def use(handle: EnvHandle) -> object:
        return await runner.call(handle, "make_lambda")

    with pytest.raises(EnvError, match="its function cannot leave the process"):
        play(runner, Unsendable(), use)


class Unsendable(ProcessEchoEnv):
    """Has an answer that stays at home."""

    def make_lambda(self) -> object:
        return lambda: None


@pytest.mark.parametrize(
    ("env", "kind"),
    [(EchoEnv(), InlineRunner), (ThreadEchoEnv(), ThreadRunner), (ProcessEchoEnv(), ProcessRunner)],
)
def test_auto_takes_the_runner_that_the_env_asks_for(env: Env, kind: type) -> None:
    assert type(runner_for(env)) is kind
    assert type(runner_for(env, "thread")) is ThreadRunner


def test_an_unknown_runner_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="no runner is called 'proces'; did you mean 'process'"):
        runner_for(EchoEnv(), "proces")  # type: ignore[arg-type]


def test_sixteen_threads_wait_side_by_side() -> None:
    async def whole() -> float:
        runner = ThreadRunner()
        handles = [await runner.open(SlowEnv()) for _ in range(16)]
        began = time.monotonic()
        await asyncio.gather(*(runner.call(handle, "reset", TASK) for handle in handles))
        seconds = time.monotonic() - began
        for handle in handles:
            await runner.close(handle)
        return seconds

    assert asyncio.run(whole()) < 16 * 0.1 / 2


class SlowEnv(EchoEnv):
    """Takes a tenth of a second to reset."""

    def reset(self, task: Task) -> str:
        time.sleep(0.1)
        return "slow"


@every_runner
def test_a_pool_lends_the_same_env_again_and_a_broken_one_never(runner: Runner) -> None:
    async def whole() -> None:
        pool = EnvPool(runner, EchoEnv())
        first = await pool.acquire()
        second = await pool.acquire()
        assert first is not second
        await pool.release(first)
        assert await pool.acquire() is first
        await pool.discard(first)
        await pool.release(second)
        assert await pool.acquire() is second
        assert pool.size == 1
        await pool.close()
        assert pool.size == 0
        with pytest.raises(EnvError, match="is closed"):
            await runner.call(second, "reset", TASK)

    asyncio.run(whole())


@cutting_runner
def test_a_pool_drops_an_env_whose_call_was_late_even_if_nobody_says_so(runner: Runner) -> None:
    async def whole() -> None:
        pool = EnvPool(runner, BadEnv(fault="hang", at="reset"))
        env = await pool.acquire()
        with pytest.raises(DeadlineError):
            await runner.call(env, "reset", TASK, timeout_s=0.05)
        await pool.release(env)
        assert pool.size == 0

    asyncio.run(whole())


def test_a_handle_of_another_runner_is_a_type_error() -> None:
    async def whole() -> None:
        handle = await InlineRunner().open(EchoEnv())
        await ThreadRunner().call(handle, "reset", TASK)

    with pytest.raises(TypeError, match="expected a ThreadHandle of this runner, got"):
        asyncio.run(whole())


def test_a_script_without_a_main_guard_is_told_what_is_missing(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(
        "import asyncio\nfrom support import EchoEnv\n"
        "from agentrl.rollout.runners import ProcessRunner\n"
        "asyncio.run(ProcessRunner().open(EchoEnv()))\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "env EchoEnv: its process exited with 1 during building it" in done.stderr
    assert "needs `if __name__ == '__main__':`" in done.stderr
