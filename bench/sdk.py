"""Virtual environments that are made on first use and kept between runs.

For the MeshAgent SDK 0.6.13 (room client, tools, agents), which needs Python 3.13; for what meshhost needs on the same Python;
and for other packages (`environment`). The tests run this file by its path, so it imports nothing of this package.
"""

import fcntl
import os
import shutil
import subprocess
import tomllib
from pathlib import Path

SDK_VERSION = "0.6.13"
NEWER_SDK_VERSION = "0.56.0"
JAVASCRIPT_SDK = "@meshagent/meshagent@0.39.9"
# `agents` brings Worker and TaskRunner, and with them the OpenAI client; 80 MB and some 20 s altogether.
PACKAGES = [f"meshagent-{part}=={SDK_VERSION}" for part in ("api", "tools", "agents")]
# The command line needs these but does not declare them: 190 MB and some 30 s altogether.
CLI_PACKAGES = [*PACKAGES, *(f"meshagent-{part}=={SDK_VERSION}" for part in ("otel", "cli")), "aiofiles"]
# What its command line imports.
NEWER_CLI_PARTS = ("api", "tools", "agents", "otel", "cli")


CHECKOUT = Path(__file__).parents[1]


def cache_dir(name: str = f"sdk-agents-{SDK_VERSION}") -> Path:
    """Return where an environment is kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(base).expanduser() / "meshhost" / name


def python313() -> Path | None:
    """Return a Python 3.13 on this machine: pyenv's newest, else the one on the PATH."""
    roots = [os.environ.get("PYENV_ROOT"), "~/.pyenv"]
    versions = [path for root in roots if root for path in Path(root).expanduser().glob("versions/3.13*/bin/python")]
    if versions:
        return max(versions)
    found = shutil.which("python3.13")
    return Path(found) if found else None


def sdk_python() -> Path | None:
    """Return the interpreter of the SDK's environment, made on first use; None without Python 3.13."""
    return _on_313(f"sdk-agents-{SDK_VERSION}", PACKAGES)


def newer_sdk_python() -> Path | None:
    """Return the interpreter of an environment with the SDK's newer generation; None without Python 3.13."""
    packages = [f"meshagent-{part}=={NEWER_SDK_VERSION}" for part in ("api", "tools", "agents")]
    return _on_313(f"sdk-agents-{NEWER_SDK_VERSION}", packages)


def javascript_sdk() -> Path | None:
    """Return a folder of Node packages with the SDK for JavaScript, made on first use; None without Node and npm."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return None
    home = cache_dir(f"sdk-javascript-{JAVASCRIPT_SDK.rpartition('@')[2]}")
    ready = home / ".ready"
    home.mkdir(parents=True, exist_ok=True)
    with (home.parent / f"{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(home), JAVASCRIPT_SDK]
            subprocess.run(install, check=True, timeout=600)
            ready.touch()
    return home / "node_modules"


def sdk_cli() -> Path | None:
    """Return the `meshagent` command in an environment of its own, made on first use; None without Python 3.13."""
    python = _on_313(f"sdk-cli-{SDK_VERSION}", CLI_PACKAGES)
    return None if python is None else python.with_name("meshagent")


def newer_sdk_cli() -> Path | None:
    """Return the `meshagent` command of the SDK's newer generation, made on first use; None without Python 3.13."""
    packages = [f"meshagent-{part}=={NEWER_SDK_VERSION}" for part in NEWER_CLI_PARTS]
    python = _on_313(f"sdk-cli-{NEWER_SDK_VERSION}", packages)
    return None if python is None else python.with_name("meshagent")


def meshhost_python313() -> Path | None:
    """Return a Python 3.13 with what meshhost needs but without meshhost (put CHECKOUT on PYTHONPATH), or None without 3.13."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    return _on_313("bench-3.13", project["dependencies"])


def python_version(python: Path | str) -> str:
    """Return the version of this interpreter, such as 3.13.0."""
    program = "import platform; print(platform.python_version())"
    return subprocess.run(
        [python, "-c", program], check=True, timeout=60, capture_output=True, text=True
    ).stdout.strip()


def environment(name: str, packages: list[str], base: Path | str) -> Path:
    """Return the interpreter of an environment with these packages, made from `base` at first use and when they change.

    Raises OSError or subprocess.SubprocessError when it cannot be made."""
    home = cache_dir(name)
    python = home / "bin" / "python"
    ready = home / ".ready"
    home.parent.mkdir(parents=True, exist_ok=True)
    # Of two runs that start at once, the second waits until the first has made the environment.
    with (home.parent / f"{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_ready(ready, packages):
            subprocess.run([base, "-m", "venv", "--clear", home], check=True, timeout=120)
            subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True, timeout=600)
            ready.write_text("\n".join(packages))
    return python


def _on_313(name: str, packages: list[str]) -> Path | None:
    home = cache_dir(name)
    if _is_ready(home / ".ready", packages):
        return home / "bin" / "python"
    base = python313()
    return None if base is None else environment(name, packages, base)


def _is_ready(ready: Path, packages: list[str]) -> bool:
    # An empty file was written before packages were noted in it; the version is in the name of the environment.
    return ready.exists() and ready.read_text() in ("", "\n".join(packages))
