"""Calls of tools from the template's list to the env and back."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from agentrl.core.errors import EnvError
from agentrl.core.protocols import ActionFormat, Completion, Env, Play, Renderer
from agentrl.core.types import Finish, Fork, Group, Json, Score, Stop, Task, Trajectory
from agentrl.engines.scripted import Scripted
from agentrl.rollout.agents import EngineAgent, ExpertAgent
from agentrl.rollout.episode import Rules, Table
from agentrl.rollout.fold import fold
from agentrl.text.actions.hermes import HermesCalls
from agentrl.text.actions.llama_json import LlamaCalls
from agentrl.text.actions.mistral import MistralCalls
from agentrl.text.actions.qwen_xml import QwenXmlCalls
from agentrl.text.calls import call
from agentrl.text.context import Full
from agentrl.text.renderer import Append, Plain, Template
from support.models import CHATML, bpe
from support.play import collect, worker
from support.tools import Box

LISTING = (
    "{% if tools %}<|im_start|>system\nTools: {{ tools | tojson }}<|im_end|>\n{% endif %}" + CHATML
)
NO_TOOL_ROLE = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
    "{% endfor %}" + CHATML
)
TASK = Box().tasks("train")[2]


def table(renderer: Renderer, actions: ActionFormat) -> Table:
    rules = Rules(max_turns=4, max_tokens=200, max_context=4000)
    return Table(renderer=renderer, context=Full(), actions=actions, rules=rules)


def expert_episode(renderer: Renderer, actions: ActionFormat, env: Env | None = None) -> Trajectory:
    agent = ExpertAgent(renderer=renderer, actions=actions)
    by = worker(env or Box(), at=table(renderer, actions))
    [group] = collect(by, agent, [TASK], group_size=1)
    return group.trajectories[0]


def says(renderer: Renderer, texts: Sequence[str]) -> EngineAgent:
    replies = [
        Completion(ids=ids, logprobs=(-0.5,) * len(ids), finish=Finish.EOS)
        for ids in map(renderer.reply, texts)
    ]
    return EngineAgent(
        engine=Scripted(script={-1: replies}), renderer=renderer, temperature=1.0, timeout_s=5.0
    )


@pytest.mark.parametrize(
    "actions", [HermesCalls(), QwenXmlCalls(), LlamaCalls(), MistralCalls()], ids=repr
)
@pytest.mark.parametrize("template", [None, CHATML, LISTING, NO_TOOL_ROLE])
def test_an_expert_solves_a_task_by_calls_in_every_format(
    template: str | None, actions: ActionFormat
) -> None:
    renderer = Template(bpe(template)) if template else Plain(bpe())
    trajectory = expert_episode(renderer, actions)
    assert trajectory.failure is None
    assert (trajectory.stop, trajectory.success) == (Stop.DONE, True)
    assert [turn.action for turn in trajectory.turns] == [call("look"), call("open", number=3)]
    assert {turn.row for turn in trajectory.turns} == {0}


def test_a_template_that_lists_tools_gets_them_as_schemas() -> None:
    renderer = Template(bpe(LISTING))
    first, second = expert_episode(renderer, HermesCalls()).turns
    shown = str(renderer.tokenizer.decode(list(first.prompt_ids)))
    assert shown.startswith("<|im_start|>system\nTools: [{")
    assert '"type": "function", "function": {"name": "look"' in shown
    assert "<tools>" not in shown
    added = renderer.tokenizer.decode(list(second.prompt_ids[len(first.prompt_ids) :]))
    assert "<|im_start|>tool\nThe key says 3.<|im_end|>" in str(added)


@pytest.mark.parametrize("template", [None, CHATML])
def test_where_the_template_lists_none_the_system_message_does(template: str | None) -> None:
    renderer = Template(bpe(template)) if template else Plain(bpe())
    assert not renderer.takes_tools
    first, _ = expert_episode(renderer, HermesCalls(system="Be brief.")).turns
    shown = str(renderer.tokenizer.decode(list(first.prompt_ids)))
    assert "Be brief.\n\nYou may call functions" in shown
    assert '"name": "open"' in shown


def test_the_system_message_lists_tools_on_request() -> None:
    renderer = Template(bpe(LISTING))
    first, _ = expert_episode(renderer, HermesCalls(tools_in="system")).turns
    shown = str(renderer.tokenizer.decode(list(first.prompt_ids)))
    assert "Tools: [" not in shown
    assert "<tools>" in shown


def test_where_there_is_no_tool_role_the_user_says_what_tools_answer() -> None:
    renderer = Template(bpe(NO_TOOL_ROLE))
    _, second = expert_episode(renderer, HermesCalls()).turns
    shown = str(renderer.tokenizer.decode(list(second.prompt_ids)))
    assert "<|im_start|>user\nThe key says 3.<|im_end|>" in shown


def test_several_calls_of_one_message_reach_the_env_as_a_list() -> None:
    renderer, actions = Plain(bpe()), HermesCalls()
    texts = [
        actions.write([call("look"), call("look")]),
        "hm",
        actions.write(call("open", number=3)),
    ]
    by = worker(Box(), at=table(renderer, actions))
    [group] = collect(by, says(renderer, texts), [TASK], group_size=1)
    first, second, third = group.trajectories[0].turns
    assert first.action == [call("look"), call("look")]
    assert second.invalid
    assert second.action is None
    shown = str(renderer.tokenizer.decode(list(third.prompt_ids)))
    assert "<|tool|>The key says 3.\nThe key says 3.<|assistant|>" in shown
    assert "<|user|>Your reply held no readable tool call." in shown


@dataclass(frozen=True, kw_only=True)
class Branching:
    """One episode, and a branch off it after its first turn."""

    by_group: ClassVar[bool] = False

    async def collect(self, tasks: Sequence[Task], play: Play) -> list[Group]:
        [task] = tasks
        start = play.start(task)
        parent = await play(task, start, group=0, sibling=0)
        fork = (parent, Fork(trajectory=0, turn=1))
        branch = await play(task, start, group=0, sibling=1, fork=fork)
        return [await play.score(Group(task=task, start=start, trajectories=(parent, branch)))]


def test_a_branch_hears_the_tools_in_the_same_roles() -> None:
    renderer, actions = Template(bpe(LISTING)), HermesCalls()
    agent = ExpertAgent(renderer=renderer, actions=actions)
    by = worker(Box(), at=table(renderer, actions), strategy=Branching())
    [group] = collect(by, agent, [TASK])
    parent, branch = group.trajectories
    assert branch.failure is None
    assert branch.success
    assert branch.turns == parent.turns


class Nameless(Box):
    """Offers a tool without a name."""

    def tools(self, task: Task) -> list[Json]:
        return [{"description": "?"}]


def test_tools_that_are_no_schemas_fail_the_episode_and_say_so() -> None:
    trajectory = expert_episode(Plain(bpe()), HermesCalls(), Nameless())
    assert trajectory.stop is Stop.ERROR
    assert trajectory.failure is not None
    assert "from tools(), got" in trajectory.failure.error
    assert issubclass(EnvError, RuntimeError)


def test_an_appending_renderer_keeps_calls_in_one_row_too() -> None:
    renderer = Append(bpe(LISTING))
    trajectory = replace(expert_episode(renderer, HermesCalls()), score=Score(value=1.0))
    [row] = fold(Group(task=TASK, trajectories=(trajectory,)), index=0)
    assert sum(row.mask) == trajectory.n_tokens
