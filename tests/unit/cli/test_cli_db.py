"""`meshhost db`: what it prints, asks and exits with, over real files."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from meshhost.cli.main import run
from meshhost.stores.sqlite import file as sqlite_file

VERSION = len(list((Path(sqlite_file.__file__).parent / "migrations" / "queues").glob("*.sql")))


@pytest.fixture
def data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The databases of a room server that never had anything to keep."""
    assert run(["db", "migrate"]) == 0
    capsys.readouterr()
    return tmp_path / "data"


def test_a_check_of_nothing_fails_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["db", "check"]) == 1
    shown = capsys.readouterr()
    assert "not made yet" in shown.out
    assert "no databases at" in shown.err
    assert shown.err.count("\n") == 1


def test_a_check_shows_versions_sizes_and_whether_a_server_runs(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["db", "check"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert f"sqlite at {data}" in shown.out
    assert "no room server uses it" in shown.out
    assert f"queues\t{VERSION}\tof this release\t" in shown.out
    assert run(["db", "check", "--json", "--data-dir", str(data)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["in_use"], report["engine"]) == (True, False, "sqlite")
    assert report["stores"][-1] | {"bytes": 0} == {
        "name": "queues", "version": VERSION, "newest": VERSION, "state": "current", "bytes": 0, "problem": None,
    }  # fmt: skip


def test_a_problem_is_in_the_json_and_the_exit_code(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "usage.db").write_text("no database" * 1000)
    assert run(["db", "check", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert "usage" in report["problem"]


def test_an_earlier_schema_is_no_problem_but_is_mentioned(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(sqlite3.connect(data / "queues.db")) as db:
        db.execute("PRAGMA user_version = 5")
    assert run(["db", "check"]) == 0
    assert "meshhost db migrate" in capsys.readouterr().out


def test_a_migration_says_from_which_to_which_version(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "queues.db").unlink()
    assert run(["db", "migrate"]) == 0
    assert capsys.readouterr().out == f"queues: from version 0 to {VERSION}\n"
    assert run(["db", "migrate"]) == 0
    assert capsys.readouterr().out == "up to date: nothing was changed\n"
    assert run(["db", "migrate", "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"


def test_a_backup_says_what_is_not_in_it(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["db", "backup", str(tmp_path / "a.tar")]) == 0
    shown = capsys.readouterr().out
    assert "identity.db, documents.db, usage.db, triggers.db, configuration.db, queues.db" in shown
    assert "not in it: files of rooms" in shown
    assert run(["db", "backup", str(tmp_path / "a.tar")]) == 1
    assert "exists: choose another file" in capsys.readouterr().err
    assert run(["db", "backup", str(tmp_path / "b.tar"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["databases"]) == 6


def test_a_restore_into_databases_needs_force_and_a_typed_name(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = str(tmp_path / "a.tar")
    assert run(["db", "backup", archive]) == 0
    assert run(["db", "restore", archive]) == 1
    assert "give --force" in capsys.readouterr().err
    assert run(["db", "restore", archive, "--force"]) == 2  # nobody can be asked
    assert "--yes" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for answer, code in (("yes", 1), ("data", 0)):
        monkeypatch.setattr("typer.prompt", lambda *_, answer=answer, **__: answer)
        assert run(["db", "restore", archive, "--force"]) == code
    assert "the databases of before are in" in capsys.readouterr().out
    assert run(["db", "restore", archive, "--force", "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["replaced"].startswith(str(data))


def test_a_restore_into_an_empty_folder_asks_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = str(tmp_path / "a.tar")
    assert run(["db", "backup", archive]) == 0
    assert run(["db", "restore", archive, "--data-dir", str(tmp_path / "new"), "--force"]) == 0
    assert "copy storage/ too" in capsys.readouterr().out
    assert run(["db", "check", "--data-dir", str(tmp_path / "new")]) == 0


def test_a_backup_can_be_checked_alone(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = str(tmp_path / "a.tar")
    assert run(["db", "backup", archive]) == 0
    capsys.readouterr()
    assert run(["db", "restore", archive, "--check"]) == 0
    assert capsys.readouterr().out.startswith("whole: identity.db, ")
    assert run(["db", "restore", archive, "--check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["restored"] is False
    assert not list(data.glob("replaced-*"))


def test_a_file_that_is_missing_or_no_backup_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["db", "restore", str(tmp_path / "none.tar")]) == 1
    (tmp_path / "other.tar").write_text("something else")
    assert run(["db", "restore", str(tmp_path / "other.tar")]) == 1
    assert capsys.readouterr().err.count("\n") == 2
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("url", ["oracle://db", "sqlite:x"])
def test_a_url_of_no_engine_is_refused(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["db", "check", "--database-url", url]) == 1
    assert "MESHHOST_DATABASE_URL: expected" in capsys.readouterr().err
