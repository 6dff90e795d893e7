"""The hosts that `meshhost service run` has started are found while they run."""

import subprocess
import sys
from pathlib import Path

import pytest

from meshhost.app.running_hosts import announced, running_hosts


def test_a_host_is_found_while_it_runs(tmp_path: Path) -> None:
    assert running_hosts(tmp_path) == {}
    with announced(tmp_path, "http://127.0.0.1:1234", room="office"):
        assert running_hosts(tmp_path) == {"http://127.0.0.1:1234": "office"}
    assert running_hosts(tmp_path) == {}


def test_what_a_killed_run_left_counts_for_nothing(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    (tmp_path / "hosts").mkdir()
    for name in (str(ended.pid), "not-a-number"):
        (tmp_path / "hosts" / f"{name}.json").write_text('{"url": "http://127.0.0.1:1", "room": "r"}')

    assert running_hosts(tmp_path) == {}
    assert list((tmp_path / "hosts").iterdir()) == []


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_a_damaged_file_is_ignored(tmp_path: Path, content: str) -> None:
    (tmp_path / "hosts").mkdir()
    (tmp_path / "hosts" / "1.json").write_text(content)

    assert running_hosts(tmp_path) == {}


def test_a_directory_that_cannot_be_written_is_no_reason_not_to_run(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("a file")

    with announced(tmp_path, "http://127.0.0.1:1234", room="office"):
        assert running_hosts(tmp_path) == {}
