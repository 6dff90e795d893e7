"""Options of processes, the program that they run, and what a pool refuses before it starts any."""

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from meshhost.errors import SettingsError
from meshhost.hosting.processes import pool as process_pool
from meshhost.hosting.processes.linux import memory_of
from meshhost.hosting.processes.options import ProcessOptions, Program
from meshhost.hosting.processes.pool import ProcessPool


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": -1},
        {"concurrency": 0},
        {"memory_mb": 0},
        {"stuck_seconds": 0.0},
        {"boot_seconds": -1.0},
        {"look_seconds": 0.0},
        {"fork_seconds": 0.0},
        {"abort_seconds": -1.0},
        {"start": "spawn"},
    ],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="process"):
        ProcessOptions(**wrong)


def main_module(monkeypatch: pytest.MonkeyPatch, **attributes: Any) -> None:
    module = ModuleType("__main__")
    vars(module).update(attributes)
    monkeypatch.setitem(sys.modules, "__main__", module)


def test_the_program_is_the_file_or_module_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    main_module(monkeypatch, __file__=__file__)
    assert Program.running() == Program(str(Path(__file__).resolve()), is_module=False)
    main_module(monkeypatch, __spec__=ModuleSpec("package.__main__", None))
    assert Program.running() == Program("package", is_module=True)
    main_module(monkeypatch, __spec__=ModuleSpec("package.tool", None))
    assert Program.running() == Program("package.tool", is_module=True)


@pytest.mark.parametrize("attributes", [{}, {"__file__": "<stdin>"}])
def test_a_program_that_is_not_in_a_file_cannot_have_processes(
    attributes: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main_module(monkeypatch, **attributes)
    with pytest.raises(SettingsError, match="it must be a file"):
        ProcessPool(ProcessOptions(), paths=list).check_program()


def test_other_systems_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(process_pool.os, "pidfd_open", raising=False)
    with pytest.raises(SettingsError, match="needs Linux"):
        ProcessPool(ProcessOptions(program=Program("x.py", is_module=False)), paths=list).check_program()


def test_a_process_that_is_gone_has_no_memory() -> None:
    assert memory_of(2**22 + 1) == 0
