"""Classes written for TRL's `environment_factory` (`env.py`; the other modules are its parts)."""

from agentrl.envs.trl_environment.env import TrlEnvironment

__all__ = ["TrlEnvironment"]
