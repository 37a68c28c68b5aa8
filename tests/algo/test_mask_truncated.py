"""Overlong filtering: truncated trajectories count in the statistics and are not trained."""

from dataclasses import replace

from agentrl.algo.advantages.grpo import GroupNormalised
from agentrl.algo.advantages.mask_truncated import MaskTruncated, is_cut
from agentrl.algo.spread import spread
from agentrl.core.types import Finish, Scored, Stop
from agentrl.rollout.fold import fold
from support.credit import rewarded


def test_truncated_trajectories_are_compared_with_and_not_trained() -> None:
    group = rewarded([1.0, 0.0, 0.5, None])
    stops = (Stop.DONE, Stop.MAX_TOKENS, Stop.MAX_TURNS, Stop.ERROR)
    group = replace(
        group,
        trajectories=tuple(
            replace(t, stop=s) for t, s in zip(group.trajectories, stops, strict=True)
        ),
    )
    scored = Scored(groups=(group,))
    plain, masked = GroupNormalised()(scored), MaskTruncated()(scored)
    assert masked.values == plain.values
    rows = fold(group, index=0)
    credit = spread(rows, [group], masked)
    assert [any(c.mask) for c in credit] == [True, False, False]
    assert [any(c.mask) for c in spread(rows, [group], plain)] == [True, True, True]


def test_a_last_reply_that_was_cut_off_is_a_truncation_and_one_that_was_wrong_is_not() -> None:
    cut, wrong = (
        replace(t, stop=Stop.BAD_ACTION, turns=(replace(t.turns[0], finish=finish),))
        for t, finish in zip(
            rewarded([0.0, 1.0]).trajectories, (Finish.LENGTH, Finish.EOS), strict=True
        )
    )
    assert [is_cut(cut), is_cut(wrong), is_cut(replace(cut, stop=Stop.DONE))] == [
        True,
        False,
        False,
    ]
    assert not is_cut(replace(cut, turns=()))


def test_it_needs_what_its_estimator_needs() -> None:
    assert MaskTruncated().needs == GroupNormalised().needs
