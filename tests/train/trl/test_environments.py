"""Our environments as tools under stock `GRPOTrainer`, and the contract that TRL's classes keep."""

import inspect
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers.utils import get_json_schema

from agentrl.core.errors import ConfigError, DataError
from agentrl.core.protocols import Env
from agentrl.core.types import Action, Image, Message, Observation, Step, Task
from agentrl.engines.policy import LoadedPolicy
from agentrl.envs.trl_environment.env import TrlEnvironment
from agentrl.envs.trl_environment.example import Ladder
from agentrl.train.trl import environment_factory, task_dataset
from agentrl.train.trl.dataset import task_of
from support.envs import BadEnv, EchoEnv, ProcessEchoEnv, ThreadEchoEnv
from support.foreign import Shelf
from support.toolcalls import calling_policy, written

pytestmark = pytest.mark.trl

TASKS, SIBLINGS, STEPS = 2, 4, 2


@pytest.fixture(autouse=True)
def _silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")


def row(env: Env, index: int = 0) -> dict[str, Any]:
    return dict(task_dataset(env)[index])


def trainer(policy: LoadedPolicy, env: Env, factory: object, **settings: Any) -> Any:
    """A stock trainer without reward functions: the environments pay."""
    from transformers import PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    arguments: dict[str, Any] = {
        "output_dir": "never-written",
        "per_device_train_batch_size": TASKS * SIBLINGS,
        "num_generations": SIBLINGS,
        "max_completion_length": 200,
        "max_steps": STEPS,
        "learning_rate": 1e-4,
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_steps": 1,
        "activation_checkpointing": False,
    }
    stock = GRPOTrainer(
        model=policy.module,  # type: ignore[arg-type]
        processing_class=policy.tokenizer,
        environment_factory=factory,  # type: ignore[arg-type]
        train_dataset=task_dataset(env, count=TASKS),
        args=GRPOConfig(**arguments | settings),
    )
    stock.remove_callback(PrinterCallback)
    return stock


# --- for real -------------------------------------------------------------------------------------


@pytest.fixture
def echoing() -> Iterator[LoadedPolicy]:
    """Calls `act` with one of four words, twice, and then says bye."""
    pairs = (("ant", "bee"), ("bee", "ant"), ("ant", "ant"), ("cat", "bee"))
    dialogues = [
        [
            ("say ant", written("act", action=first)),
            (f"say {word}", written("act", action=second)),
            ("the end", "bye"),
        ]
        for first, second in pairs
        for word in ("ant", "bee")
    ]
    with environment_factory(EchoEnv()) as factory:
        policy = calling_policy([factory().act], dialogues, steps=90)  # type: ignore[attr-defined]
    yield policy
    vars(policy.module).pop("forward", None)


CALL = re.compile(r'<tool_call>{"name": "act", "arguments": {"action": "(\w+)"}}</tool_call>')
REPLY = re.compile(rf"({CALL.pattern}|[^<]*)<\|im_end\|>")


def replayed(env: EchoEnv, task: Task, sampled: str) -> tuple[list[str], float] | None:
    """What the model must have heard of its calls, and what they are worth; None if a reply is
    broken, or the last was cut off."""
    if not re.fullmatch(rf"(?:{REPLY.pattern})+", sampled):
        return None
    env.reset(task)
    said, total = [], 0.0
    for action in CALL.findall(sampled):
        try:
            step = env.step(action)
        except RuntimeError as error:
            said.append(str({"error": f"{error}: call no more tools"}))
            continue
        said.append(str(step.observation))
        total += step.reward
    return said, total


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_stock_grpo_plays_the_env_and_uses_its_reward_and_mask(echoing: LoadedPolicy) -> None:
    """Sampled by TRL itself; every call is played again, and rewards and masked text agree."""
    env, tokenizer = EchoEnv(), echoing.tokenizer
    before = [p.detach().clone() for p in echoing.module.parameters()]
    batches: list[dict[str, torch.Tensor]] = []
    tasks: list[list[Task]] = []
    with environment_factory(env) as factory:
        stock = trainer(echoing, env, factory)
        generate = stock._generate_and_score_completions

        def generated(inputs: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            tasks.append([task_of(one["prompt"]) for one in inputs])
            batches.append(generate(inputs))
            return batches[-1]

        stock._generate_and_score_completions = generated
        stock.train()
        last = [environment.get_reward() for environment in stock.environments]
    paid = list(stock._logs["rewards"]["EchoEnv"])
    n_compared, n_calls = 0, 0
    for batch, played in zip(batches, tasks, strict=True):
        for i, task in enumerate(played):
            kept = batch["completion_mask"][i].bool()
            ids, mask = batch["completion_ids"][i][kept], batch["tool_mask"][i][kept].bool()
            sampled = str(tokenizer.decode(ids[mask]))
            expected = replayed(env, task, sampled)
            if expected is None:
                continue
            said, reward = expected
            frame = "\n<|im_start|>tool\n{}<|im_end|>\n<|im_start|>assistant\n"
            heard = "".join(frame.format(text) for text in said)
            assert tokenizer.decode(ids[~mask]) == heard, sampled
            if batch is batches[-1]:
                assert paid[i] == reward
            n_calls += len(said)
            n_compared += 1
    assert n_compared >= STEPS * TASKS * SIBLINGS // 2
    assert n_calls > n_compared
    assert any(last)
    assert paid == last
    logged = [line["reward"] for line in stock.state.log_history if "reward" in line]
    assert logged[-1] == pytest.approx(sum(last) / len(last))
    after = list(echoing.module.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


# --- the contract ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [EchoEnv, ThreadEchoEnv, ProcessEchoEnv])
def test_actions_are_played_and_paid_wherever_the_env_runs(kind: type[EchoEnv]) -> None:
    env = kind()
    with environment_factory(env) as factory:
        one: Any = factory()
        first = one.reset(**row(env))
        assert first.startswith("say ")
        words = json.loads(row(env)["prompt"][-1]["task"])["data"]["words"]
        assert one.act(words[0]) == f"say {words[1]}"
        assert one.get_reward() == 0.5
        assert one.act("cow") == f"say {words[1]}"
        assert one.act(words[1]) == "the end"
        assert (one.get_reward(), one.success, one.invalid, one.is_over) == (1.0, True, 1, True)
        with pytest.raises(RuntimeError, match="the episode is over"):
            one.act("ant")
        one.reset(**row(env, 1))
        assert (one.get_reward(), one.success, one.invalid) == (0.0, None, 0)


def test_trl_sees_one_tool_and_its_description() -> None:
    with environment_factory(EchoEnv(), about_action="A word.") as factory:
        one = factory()
        public = [
            name
            for name, _ in inspect.getmembers(type(one), inspect.isfunction)
            if not name.startswith("_")
        ]
        assert public == ["act", "get_reward", "reset"]
        schema = get_json_schema(one.act)["function"]  # type: ignore[attr-defined]
    assert schema["description"].startswith("Act. Say the word that is shown")
    assert schema["parameters"]["properties"] == {
        "action": {"type": "string", "description": "A word."}
    }


@pytest.mark.parametrize(("world", "reward"), [(Ladder, "get_reward"), (Shelf, "reward")])
def test_tools_go_from_trl_to_us_and_back_unchanged(world: type, reward: str) -> None:
    env = TrlEnvironment(factory=f"{world.__module__}:{world.__name__}", reward=reward)
    with environment_factory(env) as factory:
        one = factory()
        schemas = env.tools(env.tasks("train")[0])
        names = [schema["function"]["name"] for schema in schemas]  # type: ignore[index]
        back = [get_json_schema(getattr(one, name)) for name in names]
    for schema in (*schemas, *back):
        schema["function"].pop("return", None)
    assert back == schemas


def test_a_tool_s_arguments_reach_the_env() -> None:
    env = TrlEnvironment(done="done")
    with environment_factory(env) as factory:
        one: Any = factory()
        prompt = [
            {
                "role": "user",
                "content": "",
                "task": json.dumps({"id": "x", "seed": 0, "data": {"row": {"seed": 3}}}),
            }
        ]
        assert one.reset(prompt=prompt) == "You are at 1. Reach 5."
        assert one.add(amount=3) == "You are at 4. Reach 5."
        assert "amount must be integer" in one.add(amount="1")
        one.add(amount=1)
        assert (one.get_reward(), one.success, one.invalid) == (1.0, True, 1)


def test_an_env_that_fails_has_no_reward_and_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    env = BadEnv(after=1)
    with environment_factory(env) as factory:
        one: Any = factory()
        one.reset(**row(env))
        one.act("ant")
        with pytest.raises(Exception, match="the dog ate the world"):
            one.act("ant")
        with pytest.raises(RuntimeError, match="the environment failed"):
            one.act("ant")
        assert one.get_reward() is None
        assert "the dog ate the world" in caplog.text
        assert str(one.reset(**row(env))).startswith("say ")
        assert one.get_reward() == 0.0


def test_an_env_that_cannot_begin_has_no_reward() -> None:
    env = BadEnv(at="reset")
    with environment_factory(env) as factory:
        one: Any = factory()
        assert "the dog ate the world" in one.reset(**row(env))
        assert one.get_reward() is None


def test_pictures_and_several_messages_become_content_blocks() -> None:
    png = Image(picture_png())

    class Painter(EchoEnv):
        def step(self, action: Action) -> Step:
            messages = (
                Message(role="user", text="a"),
                Message(role="tool", text="b", images=(png,)),
            )
            return Step(observation=Observation("", messages=messages))

    env = Painter()
    with environment_factory(env) as factory:
        one: Any = factory()
        one.reset(**row(env))
        blocks = one.act("look")
    assert [block["type"] for block in blocks] == ["image", "text"]
    assert (blocks[0]["image"].size, blocks[1]["text"]) == ((2, 2), "a\nb")


def picture_png() -> bytes:
    import io

    from PIL import Image as Picture

    buffer = io.BytesIO()
    Picture.new("RGB", (2, 2)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_row_of_another_dataset_is_refused() -> None:
    with environment_factory(EchoEnv()) as factory, pytest.raises(DataError, match="task_dataset"):
        factory().reset(prompt=[{"role": "user", "content": "hello"}])


@pytest.mark.parametrize("name", ["reset", "get_reward", "_secret", "two words"])
def test_a_tool_that_trl_would_not_offer_is_refused(name: str) -> None:
    class Strange(EchoEnv):
        def tools(self, task: Task) -> list[dict[str, object]]:
            return [{"type": "function", "function": {"name": name, "parameters": {}}}]

    with pytest.raises(ConfigError, match="a tool cannot be called"):
        environment_factory(Strange())
