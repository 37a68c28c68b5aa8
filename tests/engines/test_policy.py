"""Models from configs and folders, and what is said of those that cannot be loaded."""

import json
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from agentrl.core.config import Lora
from agentrl.core.errors import ConfigError
from agentrl.core.types import Json
from agentrl.engines.policy import LoadedPolicy, load_policy
from agentrl.text.renderer import Template
from agentrl.train.lora import add_lora
from support.models import CHATML, bpe, logprobs, row_of, save_model, settings, tiny_policy

TOKENIZER = bpe()


def load(model: str | dict[str, Json], seed: int = 0) -> LoadedPolicy:
    return load_policy(model, seed=seed, device="cpu", tokenizer=TOKENIZER)


def refused(model: str | dict[str, Json]) -> str:
    with pytest.raises(ConfigError) as caught:
        load(model)
    return str(caught.value)


# --- built from a config -------------------------------------------------------------------------


def test_the_seed_decides_the_weights_and_leaves_the_global_generator_alone() -> None:
    config: dict[str, Json] = {"model_type": "qwen3", **settings()}
    state = torch.get_rng_state()
    first, again, other = (load(config, seed).module.state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_built_model_fits_its_tokenizer() -> None:
    policy = tiny_policy()
    assert policy.module.get_input_embeddings().num_embeddings == len(TOKENIZER)  # type: ignore[operator]
    assert policy.stop_ids == {TOKENIZER.eos_token_id}
    assert policy.context_length == 256
    assert policy.folder is None


def test_tied_weights_are_counted_once() -> None:
    head = len(TOKENIZER) * 32
    untied = tiny_policy(tie_word_embeddings=False).parameter_count()
    assert untied - tiny_policy().parameter_count() == head


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hiden_size": 64}, "model.hiden_size: a 'qwen3' model has no such setting; did you mean"),
        (
            {"vocab_size": 99},
            "model.vocab_size: comes from the tokenizer; set tokenizer.vocabulary",
        ),
        ({"model_type": "qwen9"}, "model.model_type: transformers knows no 'qwen9'; did you mean"),
        ({"model_type": None}, "model: an inline config needs its model_type"),
        ({"hidden_size": "wide"}, "cannot build a 'qwen3' model: .*'hidden_size' expected int"),
        ({"num_attention_heads": 0}, "cannot build a 'qwen3' model: .*zero"),
    ],
)
def test_a_config_that_builds_no_model_is_a_config_error(
    change: dict[str, Json], message: str
) -> None:
    assert re.search(message, refused({"model_type": "qwen3", **settings(), **change}))


def test_a_built_model_needs_a_tokenizer() -> None:
    with pytest.raises(ConfigError, match="needs a tokenizer"):
        load_policy({"model_type": "qwen3", **settings()}, seed=0, device="cpu")


def test_gpt2_names_and_legacy_settings_are_known() -> None:
    load({"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "num_attention_heads": 2})
    load({"model_type": "llama", **settings(), "rope_theta": 5000.0})


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2},
        {"model_type": "llama", **settings(), "attention_dropout": 0.5},
    ],
)
def test_nothing_is_dropped_at_random_in_training(config: dict[str, Json]) -> None:
    policy = load(config)
    ids = list(range(6, 40))
    before = logprobs(policy.module, ids)
    policy.module.train()
    torch.testing.assert_close(logprobs(policy.module, ids), before, rtol=0, atol=0)


# --- from a folder -------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["qwen3", "llama"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_policy_loads_with_equal_logits(
    tmp_path: Path, architecture: str, tied: bool
) -> None:
    folder = save_model(tmp_path / "a", architecture, CHATML, tied=tied)  # type: ignore[arg-type]
    policy = load(str(folder))
    policy.save(tmp_path / "b")
    again = load(str(tmp_path / "b"))
    ids = list(range(6, 60))
    torch.testing.assert_close(
        logprobs(again.module, ids), logprobs(policy.module, ids), rtol=0, atol=0
    )
    assert again.folder == tmp_path / "b"
    assert again.stop_ids == policy.stop_ids
    assert Template(again.tokenizer).stop_ids == Template(policy.tokenizer).stop_ids
    assert again.tokenizer.chat_template == CHATML


@pytest.mark.parametrize("tied", [True, False])
def test_a_policy_with_adapters_saves_itself_merged_and_stays_as_it_was(
    tmp_path: Path, tied: bool
) -> None:
    policy = tiny_policy(tie_word_embeddings=tied)
    ids = row_of(policy, "you see a wall", "turn left").ids
    plain = logprobs(policy.module, ids)
    policy.module = add_lora(policy.module, Lora(rank=4), seed=1)
    with torch.no_grad():
        for name, weight in policy.module.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.3)
    adapted = logprobs(policy.module, ids)
    assert (adapted - plain).abs().max() > 0.01
    before = {name: tensor.clone() for name, tensor in policy.module.state_dict().items()}
    policy.save(tmp_path)
    after = policy.module.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    torch.testing.assert_close(logprobs(policy.module, ids), adapted, rtol=0, atol=0)
    loaded = load(str(tmp_path))
    torch.testing.assert_close(logprobs(loaded.module, ids), adapted, rtol=0, atol=1e-4)
    assert not any("lora" in name or "base_layer" in name for name in loaded.module.state_dict())


def test_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save_model(tmp_path / "small")
    assert load("~/small").folder == tmp_path / "small"


def test_a_tokenizer_without_padding_pads_with_its_end(tmp_path: Path) -> None:
    folder = save_model(tmp_path)
    written = json.loads((folder / "tokenizer_config.json").read_text())
    del written["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(written))
    tokenizer = load(str(folder)).tokenizer
    assert tokenizer.pad_token_id == tokenizer.eos_token_id


def test_a_missing_folder_is_named_with_its_nearest_neighbour(tmp_path: Path) -> None:
    save_model(tmp_path / "llama-tiny")
    message = refused(str(tmp_path / "lama-tiny"))
    assert message == f"model: no folder {tmp_path}/lama-tiny; did you mean 'llama-tiny'?"


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_text("x")
    assert "no folder" in refused(str(tmp_path / "model.bin"))


def test_a_folder_without_a_model_is_a_config_error(tmp_path: Path) -> None:
    assert "the folder does not hold a causal language model" in refused(str(tmp_path))


def test_a_hub_name_without_a_network_is_a_config_error() -> None:
    message = refused("nobody/nothing-at-all")
    assert "cannot load 'nobody/nothing-at-all': a local folder of that name, or the hub" in message


def test_torn_weights_are_a_config_error(tmp_path: Path) -> None:
    folder = save_model(tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "cannot load" in refused(str(folder))


def test_weights_of_another_shape_are_a_config_error(tmp_path: Path) -> None:
    folder = save_model(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))
    assert "cannot load" in refused(str(folder))


def test_missing_weights_are_refused_rather_than_made_up(tmp_path: Path) -> None:
    save_model(tmp_path)
    wider = AutoConfig.from_pretrained(tmp_path)
    wider.num_hidden_layers = 3
    small = AutoModelForCausalLM.from_pretrained(tmp_path)
    small.save_pretrained(tmp_path)
    wider.save_pretrained(tmp_path)
    assert re.search(r"lacks \d+ weights of a LlamaForCausalLM.*layers\.2", refused(str(tmp_path)))


def test_a_gpu_that_is_absent_is_never_replaced_in_silence() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match=r"run\.device: 'cuda' .* no GPU"):
        load_policy({"model_type": "qwen3", **settings()}, seed=0, device="cuda", tokenizer=bpe())
