"""What integration tests share."""

import os
import runpy
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def sdk_python() -> Path:
    """The interpreter of an environment with the MeshAgent SDK; made once by the helper of the benchmarks.

    Skips where there is no Python 3.13, or the SDK cannot be installed; in CI that is a failure.
    """
    make = runpy.run_path(str(ROOT / "bench" / "sdk.py"))["sdk_python"]
    try:
        python = make()
        reason = "the MeshAgent SDK needs Python 3.13 (pyenv, or python3.13 on the PATH)"
    except subprocess.SubprocessError as error:
        python, reason = None, f"the MeshAgent SDK could not be installed: {error}"
    if isinstance(python, Path):
        return python
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
