import logging
from pathlib import Path

import pytest

from agentrl.core.errors import TrackError
from agentrl.track.appender import Appender
from support.disks import full_disk


def test_entries_that_a_full_disk_refuses_are_written_later_in_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log"
    file = Appender(path)
    file.write(b"first\n")
    with full_disk(path, spare=4):
        for entry in (b"second\n", b"third\n", b"fourth\n"):
            file.write(entry)
        assert path.read_bytes() == b"first\n"
        assert file.waiting == 3
    file.write(b"fifth\n")
    file.close()
    assert path.read_bytes() == b"first\nsecond\nthird\nfourth\nfifth\n"
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == 2
    assert "cannot be written" in said[0]
    assert "what waited is written" in said[1]


def test_closing_tries_once_more(tmp_path: Path) -> None:
    path = tmp_path / "log"
    file = Appender(path)
    with full_disk(path, spare=0):
        file.write(b"first\n")
    file.close()
    assert path.read_bytes() == b"first\n"


def test_what_is_lost_at_the_end_is_an_error_that_counts_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    file = Appender(path)
    file.write(b"first\n")
    with full_disk(path, spare=2):
        file.write(b"second\n")
        file.write(b"third\n")
        with pytest.raises(TrackError, match="last 2 entries could not be written and are lost"):
            file.close()
        file.close()
    assert path.read_bytes() == b"first\n"


def test_a_device_without_room_is_like_a_full_disk() -> None:
    file = Appender(Path("/dev/full"))
    file.write(b"first\n")
    assert file.waiting == 1
    with pytest.raises(TrackError, match="No space left"):
        file.close()


def test_a_closed_file_takes_nothing(tmp_path: Path) -> None:
    file = Appender(tmp_path / "log")
    file.close()
    with pytest.raises(TrackError, match="is closed"):
        file.write(b"late\n")
