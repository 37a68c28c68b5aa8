"""Fine-tune language-model agents with reinforcement learning.

What a user's own code needs is importable from here; everything else has one home below. Nothing
here imports torch.
"""

from agentrl.core.errors import AgentRLError
from agentrl.core.protocols import Env
from agentrl.core.registry import register
from agentrl.core.types import (
    Action,
    Image,
    Message,
    Observation,
    Score,
    Split,
    Step,
    Stop,
    Task,
    Trajectory,
)

__version__ = "0.1.0"

__all__ = [
    "Action",
    "AgentRLError",
    "Env",
    "Image",
    "Message",
    "Observation",
    "Score",
    "Split",
    "Step",
    "Stop",
    "Task",
    "Trajectory",
    "register",
]
