"""What selectors choose from, by hand."""

from collections.abc import Sequence
from random import Random

from agentrl.core.exploring import Choices
from agentrl.core.graph import Cell, StateGraph
from agentrl.core.types import Task


def among(
    cells: Sequence[Cell],
    rng: Random | None = None,
    graph: StateGraph | None = None,
    here: str = "",
) -> Choices:
    """These cells, of a graph that holds nothing else unless one is given."""
    if graph is None:
        graph = StateGraph("start")
        graph.cells |= {cell.key: cell for cell in cells}
    task = Task(id="t", seed=0)
    return Choices(task=task, cells=cells, graph=graph, here=here, rng=rng or Random(0))
