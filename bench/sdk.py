"""An environment with the MeshAgent SDK 0.6.13 (room client, tools, agents), which needs Python 3.13."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

SDK_VERSION = "0.6.13"
# `agents` brings Worker and TaskRunner, and with them the OpenAI client; 80 MB and some 20 s altogether.
PACKAGES = [f"meshagent-{part}=={SDK_VERSION}" for part in ("api", "tools", "agents")]
# The command line needs these, and does not say so: 190 MB and some 30 s altogether.
CLI_PACKAGES = [*PACKAGES, *(f"meshagent-{part}=={SDK_VERSION}" for part in ("otel", "cli")), "aiofiles"]


def cache_dir(name: str = "sdk-agents") -> Path:
    """Where an environment is kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(base).expanduser() / "meshhost" / f"{name}-{SDK_VERSION}"


def python313() -> Path | None:
    """A Python 3.13 on this machine: pyenv's newest, else the one on the PATH."""
    roots = [os.environ.get("PYENV_ROOT"), "~/.pyenv"]
    versions = [path for root in roots if root for path in Path(root).expanduser().glob("versions/3.13*/bin/python")]
    if versions:
        return max(versions)
    found = shutil.which("python3.13")
    return Path(found) if found else None


def sdk_python() -> Path | None:
    """The interpreter of the SDK's environment, made on first use; None without Python 3.13."""
    return _environment("sdk-agents", PACKAGES)


def sdk_cli() -> Path | None:
    """The `meshagent` command in an environment of its own, made on first use; None without Python 3.13."""
    python = _environment("sdk-cli", CLI_PACKAGES)
    return None if python is None else python.with_name("meshagent")


def _environment(name: str, packages: list[str]) -> Path | None:
    home = cache_dir(name)
    python = home / "bin" / "python"
    ready = home / ".ready"
    if ready.exists():
        return python
    base = python313()
    if base is None:
        return None
    home.parent.mkdir(parents=True, exist_ok=True)
    # Two runs that start at once must not make the same environment: the second waits, and finds it.
    with (home.parent / f"{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            subprocess.run([base, "-m", "venv", "--clear", home], check=True, timeout=120)
            subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True, timeout=600)
            ready.touch()
    return python
