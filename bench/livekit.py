"""Measures the process pool of LiveKit Agents, in an environment of its own, for the benchmark `hosting`."""

import asyncio
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.processes import figures_of
from bench.sdk import environment, python_version

LIVEKIT_VERSION = "1.8.9"
PACKAGES = [f"livekit-agents=={LIVEKIT_VERSION}"]
PROGRAM = Path(__file__).parent / "programs" / "livekit_pool.py"


@dataclass
class Pool:
    """Figures of its pool as `programs/livekit_pool.py` prints them: with idle processes, and without."""

    python: str
    warm: dict[str, float]
    cold: dict[str, float]


async def measure(*, idle: int, starts: int) -> list[Pool] | str:
    """Its figures as shipped, and without the speech models that it loads; or a sentence that says why there are none."""
    try:
        python = await asyncio.to_thread(livekit_python)
        return [await _measure(python, idle, starts, option) for option in ("preload", "bare")]
    except (RuntimeError, TimeoutError) as error:  # first: a TimeoutError is an OSError
        return f"LiveKit Agents {LIVEKIT_VERSION} was not measured: {str(error) or 'it took too long'}"
    except (OSError, subprocess.SubprocessError) as error:
        return f"LiveKit Agents {LIVEKIT_VERSION} could not be installed ({type(error).__name__}): it was not measured"


async def _measure(python: Path, idle: int, starts: int, option: str) -> Pool:
    warm = await figures_of(python, PROGRAM, idle, starts, option)
    cold = await figures_of(python, PROGRAM, 0, starts, option)
    return Pool(python_version(python), warm, cold)


def livekit_python() -> Path:
    """Return the interpreter of its environment, made on first use from the Python that runs this: 400 MB, half a minute.

    Raises OSError or subprocess.SubprocessError when that fails."""
    return environment(f"livekit-{LIVEKIT_VERSION}", PACKAGES, sys.executable)
