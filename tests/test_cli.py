"""The command line: what it answers, with which exit status, and how quickly."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import agentrl
from agentrl.cli import main, parse
from agentrl.core.config import Config
from agentrl.core.errors import ConfigError
from agentrl.core.registry import FOLDERS
from agentrl.core.shapes import hints_of
from support.interrupts import heed_ctrl_c

ROOT = Path(agentrl.__file__).parents[1]
ENVIRON = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def process(*argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agentrl", *argv],
        capture_output=True,
        text=True,
        env=ENVIRON | environ,
        timeout=50,
    )


# --- reading the command line ---------------------------------------------------------------------


def test_overrides_may_stand_anywhere() -> None:
    args = parse(["train", "optim.lr=1", "a.yaml", "--dry-run", "run.name=x"])
    assert (args.config, args.dry_run) == (Path("a.yaml"), True)
    assert args.overrides == ["optim.lr=1", "run.name=x"]


def test_the_value_of_a_flag_is_no_override() -> None:
    args = parse(["eval", "runs/lr=1", "--out", "a=b", "env.cap=3", "--tasks=5", "--env", "babyai"])
    assert (args.checkpoint, args.out) == (Path("runs/lr=1"), Path("a=b"))
    assert (args.tasks, args.env, args.overrides) == (5, "babyai", ["env.cap=3"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "no command is called 'trian'; did you mean 'train'? (known: train, eval, "),
        (["train", "x.yaml", "--dryrun"], "agentrl train: no flag '--dryrun'; did you mean "
         "'--dry-run'? (known: --help, "),
        (["eval", "x", "--sampels", "3"], "agentrl eval: no flag '--sampels'; did you mean "
         "'--samples'? "),
        (["eval", "x", "--split", "tset"],
         "agentrl eval: argument --split: invalid choice: 'tset'"),
        (["eval", "x", "--tasks", "many"],
         "agentrl eval: argument --tasks: invalid int value: 'many'"),
        (["train"], "agentrl train: the following arguments are required: CONFIG.yaml"),
        (["list", "env", "more"], "agentrl list: 'more' is one word too many"),
        (["explain", "a=b"], "agentrl explain: 'a=b' is one word too many"),
    ],
)  # fmt: skip
def test_a_mistyped_command_line_says_what_was_meant(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(argv)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train", "nowhere.yaml"], "no config file 'nowhere.yaml'"),
        (["train", "{file}", "steps"],
         "steps: an override is written key=value, such as optim.lr=1e-4"),
        (["train", "{file}", "optim.lrr=1"], "optim.lrr: unknown key; did you mean 'lr'?"),
        (["train", "{file}", "--preset", "dr_grpo"], "--preset: no preset in"),
        (["eval", "nowhere"], "nowhere: there is no such run folder or checkpoint"),
        (["eval", "{folder}", "--samples", "0"], "--samples: must be 1 or more (got 0)"),
        (["play", "babyia"], "env: no env is called 'babyia'; did you mean 'babyai'?"),
        (["play", "babyai", "levl=GoTo"], "env.levl: unknown key; did you mean 'level'?"),
        (["play", "babyai", "--task", "99999"], "--task: the train split has tasks 0 to 1999"),
        (["list", "envs"], "no slot is called 'envs'; did you mean 'env'?"),
        (["explain", "optim.lrr"], "optim.lrr: unknown key; did you mean 'lr'?"),
        (["check-env", "babyia"], "env: no env is called 'babyia'; did you mean 'babyai'?"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_message_on_stderr_and_status_2(
    argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.yaml"
    file.touch()
    assert main([word.format(file=file, folder=tmp_path) for word in argv]) == 2
    out, err = capsys.readouterr()
    assert err.startswith(message)
    assert (out, err.count("\n")) == ("", 1)


# --- commands -------------------------------------------------------------------------------------


def test_help_names_every_command_and_the_keys_of_a_config(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"    {name}" in text for name in ("train", "eval", "play", "list", "explain"))
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert all(any(line.startswith(f"  {key} ") for line in lines) for key in hints_of(Config))


def test_list_has_every_slot_with_parts_summaries_and_defaults(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    heads = [line for line in text.splitlines() if line and not line.startswith(" ")]
    assert heads == list(FOLDERS)
    assert "  rloo: `r_i` minus the mean of its siblings' rewards" in text
    assert "level=GoToObj" in text


def test_list_of_one_slot_as_markdown_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "context", "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == ["## context", "", "| name | what it does | settings |", "|---|---|---|"]
    [window] = [line for line in lines if line.startswith("| `window` | ")]
    assert window.endswith(" | `turns=1` |")
    assert all(line.replace("\\|", "").count("|") == 4 for line in lines[2:-1])


def test_explain_says_one_key_or_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "optim.lr"]) == 0
    assert capsys.readouterr().out == (
        "optim.lr: float (at least 0) (default: 1e-05)\n"
        "  Peak learning rate (0 or more; with 0 a run only plays, and may record).\n"
    )
    assert main(["explain"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line[0] != " "] == list(hints_of(Config))


def test_play_reads_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("?\nleft\n" + "!\n" * 20))
    assert main(["play", "babyai", "cap=30", "--split", "dev", "--task", "3"]) == 0
    out = capsys.readouterr().out
    assert "GoToObj/dev/000003" in out
    assert "the end: success, return 0." in out


def test_check_env_passes_a_sound_env(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-env", "countdown", "numbers=3"]) == 0
    assert "FAIL" not in capsys.readouterr().out


# --- as a process ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv", [["--version"], ["--help"], ["train", "--help"], ["list", "env"], ["explain", "sft"]]
)
def test_commands_that_only_tell_something_import_no_torch(argv: list[str]) -> None:
    source = (
        "import sys; from agentrl.cli import main\n"
        f"try: status = main({argv!r})\n"
        "except SystemExit as leaving: status = leaving.code\n"
        "assert status == 0\n"
        "assert not {'torch', 'transformers', 'pydantic'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, env=ENVIRON, timeout=50
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_errors_show_no_traceback_unless_debugging() -> None:
    plain = process("explain", "optim.lrr")
    assert (plain.returncode, plain.stdout) == (2, "")
    assert plain.stderr.startswith("optim.lrr: unknown key; did you mean 'lr'?")
    assert plain.stderr.count("\n") == 1
    debugging = process("explain", "optim.lrr", AGENTRL_DEBUG="1")
    assert debugging.stderr.startswith("Traceback")
    assert "optim.lrr: unknown key; did you mean 'lr'?" in debugging.stderr


def test_a_reader_that_has_enough_is_no_error() -> None:
    command = f"{sys.executable} -m agentrl explain | head -n 1"
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, env=ENVIRON, timeout=50
    )
    assert done.stdout.startswith("run ")
    assert done.stderr == ""


def test_ctrl_c_while_a_person_thinks_ends_at_once() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "agentrl", "play", "babyai"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRON | {"PYTHONUNBUFFERED": "1"},
        preexec_fn=heed_ctrl_c,
    ) as seat:
        assert seat.stdout is not None
        shown = ""
        while "> " not in shown:
            shown += seat.stdout.read(1)
        seat.send_signal(signal.SIGINT)
        _, err = seat.communicate(timeout=20)
    assert (seat.returncode, err) == (130, "interrupted\n")


@pytest.mark.slow
def test_ctrl_c_while_training_says_where_the_run_is(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(
        f"run: {{name: cut, folder: {tmp_path}, steps: 1000}}\n"
        "model: {model_type: qwen3, hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1,\n"
        "  num_attention_heads: 1, num_key_value_heads: 1, head_dim: 16}\n"
        "tokenizer: {vocabulary: 300, texts: 10}\n"
        "env: {name: countdown, numbers: 2, train_tasks: 8, dev_tasks: 8, test_tasks: 8}\n"
        "rollout: {tasks_per_step: 2, group_size: 2, max_turns: 2}\n"
        "sampling: {max_tokens: 2}\n"
        "eval: {every: 0, baselines: false, final_tasks: 0}\n"
    )
    with subprocess.Popen(
        [sys.executable, "-m", "agentrl", "train", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRON,
        preexec_fn=heed_ctrl_c,
    ) as run:
        metrics = tmp_path / "cut" / "metrics.jsonl"
        until = time.monotonic() + 45
        while not (metrics.exists() and metrics.stat().st_size) and run.poll() is None:
            assert time.monotonic() < until, "no step in 45 s"
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=30)
    assert run.returncode == 130, err
    said = f"interrupted: the run so far is in {tmp_path / 'cut'}; --resume auto goes on"
    assert err.splitlines()[-1].startswith(said)
    assert "Traceback" not in err


LOSING = """
import argparse, signal, sys, time, weakref
from agentrl import cli

class Held: ...

def run(_):
    held = Held()
    number = signal.Signals(int(sys.argv[1]))
    told = weakref.ref(held, lambda _: signal.raise_signal(number))
    del held  # what the signal raises here, Python drops
    time.sleep(20)
    return 0

cli.parse = lambda _: argparse.Namespace(run=run)
sys.exit(cli.main())
"""


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")],
)
def test_an_interrupt_that_comes_while_an_object_is_finalised_is_not_lost(
    number: int, status: int, word: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOSING, str(int(number))],
        capture_output=True,
        text=True,
        env=ENVIRON,
        timeout=15,
        check=False,
        preexec_fn=heed_ctrl_c,
    )
    assert (done.returncode, done.stderr) == (status, f"{word}\n")
