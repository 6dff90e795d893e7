"""An environment with the MeshAgent SDK 0.6.13 (room client, tools, agents), which needs Python 3.13."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

SDK_VERSION = "0.6.13"
# `agents` brings Worker and TaskRunner, and with them the OpenAI client; 80 MB and some 20 s altogether.
PACKAGES = [f"meshagent-{part}=={SDK_VERSION}" for part in ("api", "tools", "agents")]


def cache_dir() -> Path:
    """Where environments are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(base).expanduser() / "meshhost" / f"sdk-agents-{SDK_VERSION}"


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
    python = cache_dir() / "bin" / "python"
    ready = cache_dir() / ".ready"
    if ready.exists():
        return python
    base = python313()
    if base is None:
        return None
    cache_dir().parent.mkdir(parents=True, exist_ok=True)
    # Two runs that start at once must not make the same environment: the second waits, and finds it.
    with (cache_dir().parent / f"{cache_dir().name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            subprocess.run([base, "-m", "venv", "--clear", cache_dir()], check=True, timeout=120)
            subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True, timeout=600)
            ready.touch()
    return python
