"""The files in scripts/launch/ say what the launchers' own parsers understand."""

import re
import shlex
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser

FOLDER = Path(__file__).parents[3] / "scripts/launch"
PLACES = {"1gpu": (1, 1), "2gpu": (1, 2), "8gpu": (1, 8), "2nodes": (2, 8)}
"""Machines, and GPUs of each."""


def command(name: str) -> list[str]:
    """The words that a script executes, with a config and a backend for its arguments."""
    text = (FOLDER / name).read_text().split("set -euo pipefail\n")[1].replace("\\\n", " ")
    text = text.replace('"$@"', "run.yaml parallel=ddp")
    text = re.sub(r"\$\{FIRST:\?[^}]*\}", "first", text)
    text = re.sub(r'"\$\{HOSTFILE:-.*\}"', str(FOLDER / "hostfile"), text)
    assert "$" not in text
    words = shlex.split(text)
    assert words[0] == "exec"
    return words[1:]


def test_every_place_has_a_file_of_every_launcher() -> None:
    expected = {f"torchrun-{p}.sh" for p in PLACES} | {f"deepspeed-{p}.sh" for p in PLACES}
    expected |= {f"accelerate-{place}.yaml" for place in PLACES} | {"hostfile"}
    assert {path.name for path in FOLDER.iterdir()} == expected


@pytest.mark.parametrize("place", PLACES)
def test_accelerate_reads_its_files(place: str) -> None:
    machines, gpus = PLACES[place]
    path = FOLDER / f"accelerate-{place}.yaml"
    config = load_config_from_file(str(path))
    assert isinstance(config, ClusterConfig)
    assert (config.num_machines, config.num_processes) == (machines, machines * gpus)
    assert str(config.distributed_type).endswith("NO" if gpus == 1 else "MULTI_GPU")
    assert (config.mixed_precision, config.use_cpu) == ("no", False)
    said = path.read_text().replace("\\\n#", " ")
    usage = re.search(r"accelerate launch (.*)", said)
    assert usage is not None
    args = launch_command_parser().parse_args(shlex.split(usage[1].replace(" N ", " 1 ")))
    assert (args.config_file, args.module) == (f"scripts/launch/{path.name}", True)
    assert (args.training_script, args.training_script_args[0]) == ("agentrl", "train")


@pytest.mark.parametrize("place", PLACES)
def test_torchrun_reads_its_scripts(place: str) -> None:
    launcher, *words = command(f"torchrun-{place}.sh")
    args = get_args_parser().parse_args(words)
    assert launcher == "torchrun"
    assert (int(args.nnodes.split(":")[0]), int(args.nproc_per_node)) == PLACES[place]
    assert (args.module, args.training_script) == (True, "agentrl")
    assert args.training_script_args == ["train", "run.yaml", "parallel=ddp"]


@pytest.mark.distributed
@pytest.mark.parametrize("place", PLACES)
def test_deepspeeds_launcher_reads_its_scripts(place: str) -> None:
    from deepspeed.launcher.runner import fetch_hostfile, parse_args

    machines, gpus = PLACES[place]
    launcher, *words = command(f"deepspeed-{place}.sh")
    args = parse_args(words)
    assert launcher == "deepspeed"
    assert (args.module, args.no_local_rank, args.user_script) == (True, True, "agentrl")
    assert args.user_args == ["train", "run.yaml", "parallel=ddp"]
    if machines > 1:
        hosts = fetch_hostfile(args.hostfile)
        assert (len(hosts), set(hosts.values())) == (machines, {gpus})
    else:
        assert args.num_gpus == gpus
