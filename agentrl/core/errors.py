"""Errors that users meet: each says what was expected, what came, where, and what to do next."""

from collections.abc import Iterable
from difflib import get_close_matches


class AgentRLError(Exception):
    """Root of every error that agentrl raises on purpose."""


class ConfigError(AgentRLError, ValueError):
    """A config, a command line or a part's settings cannot be used."""


class UnknownNameError(ConfigError, KeyError):
    """A part was asked for by a name that nobody registered."""

    __str__ = Exception.__str__  # KeyError would print the message in quotes


class MissingExtraError(AgentRLError, ImportError):
    """An optional package is needed and absent."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'agentrl[{extra}]'")


class MissingDataError(ConfigError):
    """Data or a program that an environment needs is not on this machine; the message says how to
    get it."""


class EnvError(AgentRLError, RuntimeError):
    """An environment raised, died or answered with something that is not an observation."""


class DeadlineError(AgentRLError, TimeoutError):
    """Something did not answer before its deadline."""


class EngineError(AgentRLError, RuntimeError):
    """The sampling engine failed or answered nonsense (NaN logprobs, say)."""


class RewardError(AgentRLError, RuntimeError):
    """A reward raised or answered with something that is not a score."""


class ProposerError(AgentRLError, RuntimeError):
    """Whoever was asked for a choice, a goal or a judgement gave no answer."""


class BudgetError(ProposerError):
    """What may be spent on a proposer is spent."""


class DataError(AgentRLError, ValueError):
    """Trajectories, rows or scores that contradict each other."""


class CheckpointError(AgentRLError, OSError):
    """A checkpoint cannot be written, or is not what was written."""

    __str__ = Exception.__str__  # OSError would look for an errno in the arguments


class TrackError(AgentRLError, OSError):
    """A sink cannot begin, or could not write all that it was given."""


class TrainingError(AgentRLError, RuntimeError):
    """Training cannot go on: non-finite loss, failed parity, nothing to learn from."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'lr'?"` for the nearest of `known`, or an empty string. Of names that are
    equally near, one with the same letters: a slip of the fingers swaps two."""
    close = get_close_matches(name, list(known), n=3, cutoff=0.5)
    swapped = [other for other in close if sorted(other) == sorted(name)]
    return f"; did you mean {[*swapped, *close][0]!r}?" if close else ""
