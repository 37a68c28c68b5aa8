"""Train language-model agents with reinforcement learning, and look at what they do.

Each command imports what it needs when it runs, so that help is quick.
"""

from __future__ import annotations

import argparse
import inspect
import json
import logging
import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import agentrl
from agentrl.core.errors import AgentRLError, ConfigError, did_you_mean

if TYPE_CHECKING:
    from agentrl.core.explaining import Described
    from agentrl.evaluate.suite import Row
    from agentrl.train.resume import Resume

SPLITS = ("train", "dev", "test")
_OVERRIDE = re.compile(r"[A-Za-z_][\w.-]*=")


class _Parser(argparse.ArgumentParser):
    """Raises `ConfigError` instead of printing usage and leaving."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and how to find out more."""
        raise ConfigError(f"{self.prog}: {message} (see {self.prog} --help)")

    def format_help(self) -> str:
        """The usual help; `train` also lists the keys of a config."""
        return super().format_help() + (_keys() if self.prog.endswith(" train") else "")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit status: 0; 1 when something failed; 2 for a config or command line that cannot be
        used; 130 after Ctrl-C; 143 after SIGTERM, which ends a command in the same way.
    """
    is_debugging = os.environ.get("AGENTRL_DEBUG") == "1"
    logging.basicConfig(
        level=logging.INFO if is_debugging else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
    )
    terminations: list[int] = []
    try:
        _heed_sigterm(terminations)
        args = parse(sys.argv[1:] if argv is None else argv)
        run: Callable[[argparse.Namespace], int] = args.run
        with _losing_no_interrupt(terminations):
            return run(args)
    except AgentRLError as error:
        if is_debugging:
            raise
        _complain(str(error))
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt as stopped:
        words = str(stopped) or "interrupted"
        _complain(words.replace("interrupted", "terminated", 1) if terminations else words)
        return 143 if terminations else 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _heed_sigterm(terminations: list[int]) -> None:
    """Let SIGTERM, which schedulers send before they kill, do what Ctrl-C does."""

    def end(number: int, frame: FrameType | None) -> None:
        terminations.append(number)
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in background jobs of a shell
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, end)


@contextmanager
def _losing_no_interrupt(terminations: Sequence[int]) -> Iterator[None]:
    """Python drops what is raised while an object is finalised. An interrupt that was raised there
    comes again."""
    before = sys.unraisablehook

    def again(lost: sys.UnraisableHookArgs) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            number = signal.SIGTERM if terminations else signal.SIGINT
            threading.Timer(0.01, os.kill, (os.getpid(), number)).start()
        else:
            before(lost)

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read a command line; `a.b=c` may stand anywhere in it.

    Raises:
        ConfigError: an unknown command or flag (the nearest is named), or something is missing.
    """
    parser, commands = _parser()
    named = next((word for word in argv if not word.startswith("-")), None)
    if named is not None and named not in commands:
        near, known = did_you_mean(named, commands), ", ".join(commands)
        raise ConfigError(f"no command is called {named!r}{near} (known: {known})")
    flags = commands[named]._option_string_actions if named else {}
    overrides = _overrides(argv, [flag for flag, action in flags.items() if action.nargs != 0])
    args, unknown = parser.parse_known_args([word for word in argv if word not in overrides])
    for flag in (word.partition("=")[0] for word in unknown if word.startswith("-")):
        names = [name for name in flags if name.startswith("--")]
        near = did_you_mean(flag, names)
        raise ConfigError(f"agentrl {named}: no flag {flag!r}{near} (known: {', '.join(names)})")
    args.overrides = [*unknown, *overrides]
    if args.overrides and not getattr(args, "takes_overrides", False):
        raise ConfigError(f"agentrl {named}: {args.overrides[0]!r} is one word too many")
    return args


def _overrides(argv: Sequence[str], flags: Sequence[str]) -> list[str]:
    """The words `a.b=c`, but for values of flags."""
    before = ["", *argv]
    return [
        word
        for previous, word in zip(before, argv, strict=False)
        if _OVERRIDE.match(word) and previous not in flags
    ]


def _parser() -> tuple[_Parser, dict[str, _Parser]]:
    parser = _Parser(
        prog="agentrl", description=(__doc__ or "").partition("\n")[0], allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"agentrl {agentrl.__version__}")
    parser.set_defaults(run=lambda _: _help(parser))
    below = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    def add(
        name: str, run: Callable[[argparse.Namespace], int], *, takes_overrides: bool = True
    ) -> _Parser:
        text = inspect.getdoc(run) or ""
        command = below.add_parser(
            name,
            help=text.partition("\n")[0],
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            usage=f"%(prog)s [flags]{' [key=value ...]' if takes_overrides else ''}",
        )
        command.set_defaults(run=run, takes_overrides=takes_overrides)
        return command

    train = add("train", _train)
    train.add_argument("config", metavar="CONFIG.yaml", type=Path, help="a YAML file of settings")
    train.add_argument(
        "--preset", help="a method from presets/ beside CONFIG.yaml, such as dr_grpo, or a file"
    )
    train.add_argument(
        "--dry-run", action="store_true", help="play one episode, show its tokens, train nothing"
    )
    train.add_argument(
        "--resume",
        metavar="auto|CHECKPOINT",
        help="go on from the run's newest whole checkpoint if it has one (auto), or from a "
        "checkpoint of it",
    )
    evaluate = add("eval", _eval)
    evaluate.add_argument(
        "checkpoint", metavar="CHECKPOINT", type=Path, help="a run folder, or weights in one"
    )
    evaluate.add_argument("--env", help="another environment than the run's own")
    evaluate.add_argument("--split", choices=SPLITS, default="test", help="which tasks (test)")
    evaluate.add_argument("--tasks", type=int, default=200, help="how many of them (200)")
    evaluate.add_argument("--samples", type=int, default=1, help="episodes of each (1)")
    evaluate.add_argument("--out", type=Path, help="a file for the results: JSON, or .md")
    evaluate.add_argument(
        "--suite", help="several environments instead: text-small, text-full, tools, or a file"
    )
    comparing = add("compare", _compare)
    for name in ("first", "second"):
        comparing.add_argument(
            name, metavar=name.upper(), type=Path, help="a run folder, or weights in one"
        )
    comparing.add_argument("--suite", default="text-small", help="what both play (text-small)")
    comparing.add_argument("--out", type=Path, help="a file for the table: .md")
    play = add("play", _play)
    play.add_argument("env", metavar="ENV", help="the name of an environment")
    play.add_argument("--split", choices=SPLITS, default="train", help="which tasks (train)")
    play.add_argument("--task", type=int, default=0, help="which of them, from 0 (0)")
    _add_servers(add)
    listing = add("list", _list, takes_overrides=False)
    listing.add_argument("slot", metavar="SLOT", nargs="?", help="one slot only")
    listing.add_argument("--markdown", action="store_true", help="as Markdown tables")
    explain = add("explain", _explain, takes_overrides=False)
    explain.add_argument("key", metavar="KEY", nargs="?", help="such as optim.lr or advantage")
    check = add("check-env", _check_env)
    check.add_argument("env", metavar="ENV", help="the name of an environment")
    check.add_argument("--json", metavar="FILE", type=Path, help="write the verdicts there as well")
    new = add("new-env", _new_env, takes_overrides=False)
    new.add_argument("name", metavar="NAME", help="what configs will call it, such as maze")
    return parser, dict(below.choices)


def _suite(checkpoint: Path, args: argparse.Namespace) -> Sequence[Row]:
    """Play a suite, tell its table, and write it."""
    from agentrl.evaluate.suite import HEADER, load_suite, play_suite

    suite = load_suite(args.suite)
    folder = checkpoint / f"suite-{Path(args.suite).stem}"
    rows = play_suite(checkpoint, suite, out=folder, overrides=args.overrides, say=_say)
    table = [HEADER, *(row.markdown() for row in rows)]
    (folder / "table.md").write_text("\n".join([suite.about, "", *table]) + "\n")
    found = json.dumps([row.to_json() for row in rows], indent=1) + "\n"
    (folder / "table.json").write_text(found)
    if args.command == "eval":
        _say(*table, f"kept in {folder}")
        if args.out is not None:
            is_table = args.out.suffix == ".md"
            args.out.write_text("\n".join(table) + "\n" if is_table else found)
    return rows


def _compare(args: argparse.Namespace) -> int:
    """Two checkpoints on the same tasks of a suite, and whether they differ."""
    for checkpoint in (args.first, args.second):
        if not checkpoint.exists():
            raise ConfigError(f"{checkpoint}: there is no such run folder or checkpoint")
    from agentrl.evaluate.compare import HEADER, compare

    rows = [_suite(checkpoint, args) for checkpoint in (args.first, args.second)]
    table = [HEADER, *(found.markdown() for found in compare(*rows))]
    missing = [row for row in rows[0] if row.missing]
    table += ["", *(f"{row.entry}: not played: {row.missing}" for row in missing)]
    _say(f"A: {args.first}, B: {args.second}", "", *table)
    if args.out is not None:
        args.out.write_text("\n".join(table) + "\n")
    return 0


def _add_servers(add: Callable[..., _Parser]) -> None:
    """The commands that listen."""
    server = add("serve-vllm", _serve_vllm)
    server.add_argument(
        "checkpoint", metavar="CHECKPOINT", type=Path, help="a run folder, or weights"
    )
    server.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    server.add_argument("--port", type=int, default=8000, help="port to listen on (8000)")
    server.add_argument("--max-len", type=int, help="longest prompt with its reply (the model's)")
    server.add_argument(
        "--lora-rank", type=int, default=0, help="largest rank of pushed adapters (0: none)"
    )
    desk = add("serve", _serve)
    desk.add_argument(
        "checkpoint", metavar="CHECKPOINT", type=Path, help="a run folder, or weights in one"
    )
    desk.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    desk.add_argument("--port", type=int, default=8001, help="port to listen on (8001)")
    desk.add_argument("--out", type=Path, default=Path("served"), help="folder for the episodes")
    desk.add_argument(
        "--idle", type=float, default=600.0, help="seconds without a call that end a session (600)"
    )
    game = add("serve-env", _serve_env)
    game.add_argument("env", metavar="ENV", help="the name of an environment")
    game.add_argument("--split", choices=SPLITS, default="train", help="which tasks (train)")
    game.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    game.add_argument("--port", type=int, default=8002, help="port to listen on (8002)")
    game.add_argument("--sessions", type=int, default=256, help="how many at once (256)")
    game.add_argument(
        "--idle", type=float, default=600.0, help="seconds without a call that end a session (600)"
    )


def _help(parser: _Parser) -> int:
    _say(parser.format_help().rstrip())
    return 0


def _train(args: argparse.Namespace) -> int:
    """Train as a YAML file says; key=value overrides it, as in optim.lr=1e-4 advantage=rloo."""
    from agentrl.core.config import load_config

    config = load_config(args.config, args.overrides, preset=args.preset)
    if args.dry_run:
        from agentrl.train.dry import dry_run

        _say(*dry_run(config))
        return 0
    from agentrl.train.loop import train

    try:
        folder = train(config, _resume(args.resume))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted: the run so far is in {config.run_folder}; --resume auto goes on from "
            "its newest checkpoint"
        ) from None
    if os.environ.get("RANK", "0") == "0":  # of several processes one speaks
        _say(f"The run is in {folder}")
    return 0


def _resume(word: str | None) -> Resume:
    if word is None:
        return "never"
    if word == "auto":
        return "auto"
    if not Path(word).is_dir():
        raise ConfigError(f"--resume {word}: expected auto, or the folder of a checkpoint")
    return Path(word)


def _eval(args: argparse.Namespace) -> int:
    """Success of a checkpoint on held-out tasks; key=value overrides the config of its run."""
    for flag in ("tasks", "samples"):
        if getattr(args, flag) < 1:
            raise ConfigError(f"--{flag}: must be 1 or more (got {getattr(args, flag)})")
    if not args.checkpoint.exists():
        raise ConfigError(f"{args.checkpoint}: there is no such run folder or checkpoint")
    if args.suite:
        _suite(args.checkpoint, args)
        return 0
    from agentrl.evaluate.runner import evaluate_checkpoint

    results = evaluate_checkpoint(
        args.checkpoint,
        overrides=args.overrides,
        env=args.env,
        split=args.split,
        tasks=args.tasks,
        samples=args.samples,
        out=args.out,
    )
    for result in results:
        _say(*result.lines())
    return 0


def _serve(args: argparse.Namespace) -> int:
    """A checkpoint behind OpenAI's chat API, which keeps every token; key=value as for eval."""
    if not args.checkpoint.exists():
        raise ConfigError(f"{args.checkpoint}: there is no such run folder or checkpoint")
    from agentrl.evaluate.serve import serve

    serve(
        args.checkpoint,
        overrides=args.overrides,
        host=args.host,
        port=args.port,
        out=args.out,
        idle_s=args.idle,
        say=_say,
    )
    return 0


def _serve_env(args: argparse.Namespace) -> int:
    """An environment behind OpenEnv's protocol; key=value are its settings, as in level=GoTo."""
    from agentrl.adapters.serve_env import serve_env
    from agentrl.core.config import load_alone

    serve_env(
        load_alone(args.env, args.overrides),
        name=args.env,
        split=args.split,
        host=args.host,
        port=args.port,
        sessions=args.sessions,
        idle_s=args.idle,
        say=_say,
    )
    return 0


def _serve_vllm(args: argparse.Namespace) -> int:
    """One vLLM server for engine.urls; key=value are settings of the engine, as in gpus=[0,1]."""
    from agentrl.core.loading import load
    from agentrl.engines.vllm.engine import Vllm
    from agentrl.engines.vllm.serve import serve
    from agentrl.evaluate.checkpoints import resolve_checkpoint

    if not args.checkpoint.exists():
        raise ConfigError(f"{args.checkpoint}: there is no such run folder or checkpoint")
    serve(
        resolve_checkpoint(args.checkpoint).absolute(),
        load(Vllm, {}, args.overrides),
        host=args.host,
        port=args.port,
        max_len=args.max_len,
        lora_rank=args.lora_rank,
        say=_say,
    )
    return 0


def _play(args: argparse.Namespace) -> int:
    """Take the model's seat in an environment; key=value are its settings, as in level=GoTo."""
    from agentrl.core.config import load_alone
    from agentrl.evaluate.play import play

    play(load_alone(args.env, args.overrides), split=args.split, number=args.task)
    return 0


def _list(args: argparse.Namespace) -> int:
    """Every slot of a config, the parts that can fill it, and their settings with defaults."""
    from agentrl.core.explaining import describe
    from agentrl.core.registry import FOLDERS

    for slot in [args.slot] if args.slot else FOLDERS:
        _say(*(_markdown if args.markdown else _plain)(slot, describe(slot)))
    return 0


def _explain(args: argparse.Namespace) -> int:
    """What a key of a config means: type, range, default, and the parts that it can name."""
    from agentrl.core.config import Config
    from agentrl.core.explaining import explain, overview, table

    columns = shutil.get_terminal_size((100, 24)).columns
    if args.key:
        _say(*explain(Config, args.key).lines(columns))
    else:
        _say(*table(overview(Config), columns))
    return 0


def _check_env(args: argparse.Namespace) -> int:
    """Check what an environment promises; key=value are its settings, as in level=GoTo."""
    from agentrl.core.config import load_alone
    from agentrl.evaluate.check_env import check_env

    report = check_env(load_alone(args.env, args.overrides).env)
    _say(*report.lines(shutil.get_terminal_size((100, 24)).columns))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report.to_json(), indent=1) + "\n", encoding="utf-8")
    return 0 if report.passed else 1


def _new_env(args: argparse.Namespace) -> int:
    """Write a small environment and its test, both working, as a start for one of your own."""
    from agentrl.evaluate.new_env import new_env

    _say(*new_env(args.name, Path.cwd()).lines())
    return 0


def _plain(slot: str, parts: Sequence[Described]) -> list[str]:
    lines = [slot]
    for part in parts:
        settings = " ".join(f"{name}={text}" for name, text in part.settings)
        lines += [f"  {part.name}: {part.summary}", *([f"    {settings}"] if settings else [])]
    return [*lines, *([] if parts else ["  no parts yet"]), ""]


def _markdown(slot: str, parts: Sequence[Described]) -> list[str]:
    lines = [f"## {slot}", "", "| name | what it does | settings |", "|---|---|---|"]
    for part in parts:
        settings = ", ".join(f"`{name}={text}`" for name, text in part.settings)
        cells = (f"`{part.name}`", part.summary, settings)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*lines, ""]


def _keys() -> str:
    from agentrl.core.config import Config
    from agentrl.core.explaining import overview, table

    columns = shutil.get_terminal_size((100, 24)).columns
    lines = "\n".join(f"  {line}" for line in table(overview(Config), columns - 2))
    return f"\nkeys (agentrl explain KEY says more):\n{lines}\n"


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def _complain(words: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"{words}\n")
