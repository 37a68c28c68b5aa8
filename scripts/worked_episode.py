"""Print one training episode of a run, token by token, as Markdown:

    python scripts/worked_episode.py runs/quickstart [STEP]

The shortest solved episode of at least three turns that has a failed sibling
(docs/concepts.md shows one).
"""

import sys
from pathlib import Path

from agentrl.track.trajectories import EpisodeRecord, read_episodes


def choose(episodes: list[EpisodeRecord]) -> EpisodeRecord:
    """The shortest solved episode of three turns or more that has a failed sibling."""
    failed = {episode.group for episode in episodes if not episode.success}
    solved = [e for e in episodes if e.success and e.group in failed and e.n_turns >= 3]
    if not solved:
        raise SystemExit("no group of this step holds both a solved and a failed episode")
    return min(solved, key=lambda episode: (episode.n_turns, episode.group, episode.sibling))


def table(episode: EpisodeRecord) -> list[str]:
    """One line per token: where it came from, its mask, logprob and advantage."""
    lines = [
        "| # | turn | token | id | mask | logprob | advantage |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    position = 0
    for number, turn in enumerate(episode.turns):
        for t, piece in enumerate(turn.pieces):
            shown = piece.replace("\n", "\\n").replace("|", "\\|")
            logprob, advantage = turn.logprobs[t], turn.advantages[t]
            lines.append(
                f"| {position} | {number} | `{shown}` | {turn.ids[t]} | {int(turn.mask[t])} | "
                f"{'' if logprob is None else f'{logprob:.3f}'} | "
                f"{'' if advantage is None else f'{advantage:+.3f}'} |"
            )
            position += 1
    return lines


def main() -> None:
    """Choose and print."""
    folder = Path(sys.argv[1])
    step = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    [path] = (folder / "trajectories").glob(f"train-{step:06d}.*")
    episodes = read_episodes(path)
    episode = choose(episodes)
    siblings = [e.reward for e in episodes if e.group == episode.group]
    print(f"task {episode.task_id}, group {episode.group}, sibling {episode.sibling}")
    print(f"rewards of the group: {siblings}")
    print(f"stop {episode.stop}, reward {episode.reward}")
    print("\n".join(table(episode)))


if __name__ == "__main__":
    main()
