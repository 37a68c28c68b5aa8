"""flex_attention over trees, as far as a CPU goes: its forward pass, and a refusal to train."""

from random import Random

import pytest
import torch
from torch.nn.attention import flex_attention as torch_flex

from agentrl.core.errors import ConfigError
from agentrl.core.types import Row
from agentrl.train.score import Padded
from agentrl.train.trie.attention import apart, gathered
from agentrl.train.trie.flex import Ancestors, Flex
from agentrl.train.trie.forest import Forest, Wanted
from agentrl.train.trie.scorer import Trie
from support.trees import KINDS, bushy, model, rows_of, true_double

CPU = torch.device("cpu")
ROWS = rows_of(Random(3), 14)


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch compiles the mask of each call even where it has no kernel: seconds."""
    monkeypatch.setattr(torch_flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)


def flexed(module: torch.nn.Module, rows: list[Row]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logprobs by `flex` and by `padded`, of the sampled tokens in row order."""
    forest = Forest.of(rows)
    wanted = Wanted.of(rows, forest)
    with torch.no_grad():
        logp_N, _ = Flex().score(module, forest, wanted, chunk=64, entropy_grad=False)
        expected = Padded().score(module, rows).logp_BT
    width = expected.shape[1]
    mask = torch.tensor([[*row.mask, *(False,) * (width - len(row.mask))] for row in rows])
    return logp_N[torch.from_numpy(wanted.place_M)], expected[mask]


@pytest.mark.parametrize(
    "rows", [ROWS, bushy(Random(1), depth=4, length=14)], ids=["small", "large"]
)
def test_a_node_sees_its_ancestors_and_itself(rows: list[Row]) -> None:
    forest = Forest.of(rows)
    seen = set()
    for node in range(forest.unique):
        above = node
        while above >= 0:
            seen.add((node, above))
            above = int(forest.parent_T[above])
    ancestors = Ancestors(forest, CPU)
    index = torch.arange(forest.unique)
    is_seen = ancestors.blocks(None).mask_mod(CPU, CPU, index[:, None], index[None])  # type: ignore[arg-type]
    assert {(int(q), int(k)) for q, k in is_seen.nonzero()} == seen


@pytest.mark.parametrize("kind", KINDS)
def test_logprobs_are_those_of_padded_rows(kind: str) -> None:
    found, expected = flexed(model(kind), ROWS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_in_float64_they_are_equal_to_rounding() -> None:
    with true_double(model()) as module:
        found, expected = flexed(module, ROWS)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["mistral", "gemma3_text"])
def test_windows_count_along_the_path(kind: str) -> None:
    found, expected = flexed(model(kind, sliding_window=4), ROWS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_training_on_a_cpu_is_refused_and_says_why() -> None:
    with pytest.raises(ConfigError, match=r"'flex' cannot .* no backward pass on a CPU"):
        Trie(executor="flex").check(model())
    scorer, module = Trie(), model()
    scorer.check(module)
    assert scorer._chosen[module] == "segment", "auto goes on without it"


def test_a_wrong_gradient_of_attention_is_seen() -> None:
    def half(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, tree: Forest, scale: float
    ) -> torch.Tensor:
        out = gathered(q, k, v, tree, scale)
        return 0.5 * out + 0.5 * out.detach()

    gap, limit = apart(half, torch.float32, CPU)
    assert gap > limit
    gap, limit = apart(gathered, torch.float32, CPU)
    assert gap == 0 < limit
