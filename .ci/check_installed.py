"""Checks an installed agentrl against the repository: `check_installed.py REPO VENV`.

Every file below the package (the linked folders included) must be there as a plain file, every part
must load, and nothing may come from the repository itself.
"""

import sys
from pathlib import Path

import agentrl
from agentrl.core.registry import FOLDERS, names


def package_files(root: Path) -> set[Path]:
    """Files below `root`, through links, without compiled ones, relative to it."""
    found: set[Path] = set()
    for path in root.iterdir():
        if path.is_dir() and path.name != "__pycache__":
            found |= {Path(path.name) / below for below in package_files(path)}
        elif path.is_file() and path.suffix != ".pyc":
            found.add(Path(path.name))
    return found


def main(repo: Path, venv: Path) -> None:
    """Exit with a message on the first fault."""
    installed = Path(agentrl.__file__).parent
    if venv not in installed.parents:
        sys.exit(f"agentrl was imported from {installed}, not from {venv}")
    missing = package_files(repo / "agentrl") - package_files(installed)
    if missing:
        sys.exit(f"not in the wheel: {', '.join(sorted(map(str, missing)))}")
    links = [path for path in installed.rglob("*") if path.is_symlink()]
    if links:
        sys.exit(f"links in the wheel: {links}")
    parts = {slot: names(slot) for slot in FOLDERS}
    strays = [
        name
        for name, module in sys.modules.items()
        if name.partition(".")[0] == "agentrl" and str(repo) in str(getattr(module, "__file__", ""))
    ]
    if strays:
        sys.exit(f"imported from the repository: {', '.join(strays)}")
    for folder in ("envs", "rewards"):
        held = sorted(path.name for path in (installed / folder).iterdir() if "__" not in path.name)
        sys.stdout.write(f"agentrl.{folder}: {' '.join(held)}\n")
    sys.stdout.write(f"{sum(map(len, parts.values()))} parts load from {installed}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
