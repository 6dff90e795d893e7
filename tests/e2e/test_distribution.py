"""The Dockerfile's steps and the built wheel, in a fresh virtual environment: no Docker engine is needed to try them."""

import asyncio
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
import venv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from meshhost.app.config_file import ServerFile
from meshhost.testing.scripted_upstream import ScriptedUpstream

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

REPOSITORY = Path(__file__).parents[2]
# What needs root is left out; everything else of a RUN line is run.
NEEDS_ROOT = ("useradd", "chown")


@dataclass
class Image:
    """What the Dockerfile's last stage leaves: a virtual environment for its site-packages, a folder for its WORKDIR."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    instructions: list[tuple[str, str]] = field(default_factory=list)

    @property
    def python(self) -> str:
        return str(self.root / "venv" / "bin" / "python")

    @property
    def app(self) -> Path:
        return self.root / "app"

    def last(self, instruction: str) -> str:
        return [argument for name, argument in self.instructions if name == instruction][-1]


def instructions_of(dockerfile: Path) -> list[tuple[str, str]]:
    """Instructions in order, continuation lines joined, comments dropped."""
    text = "\n".join(line for line in dockerfile.read_text().splitlines() if not line.lstrip().startswith("#"))
    lines = text.replace("\\\n", " ").splitlines()
    return [(name.upper(), rest.strip()) for name, _, rest in (line.strip().partition(" ") for line in lines) if name]


def build(root: Path) -> Image:
    """Run the Dockerfile's steps with `root` in place of the file system's."""
    image = Image(root, instructions=instructions_of(REPOSITORY / "Dockerfile"))
    venv.create(root / "venv", with_pip=True)
    directory = root
    for name, argument in image.instructions:
        if name == "WORKDIR":
            directory = root / argument.lstrip("/")
            directory.mkdir(parents=True, exist_ok=True)
        elif name == "COPY":
            copy(argument, root, directory)
        elif name == "RUN":
            run(argument, image, directory)
        elif name == "ENV":
            image.environment |= dict(pair.split("=", 1) for pair in shlex.split(argument))
    return image


def copy(argument: str, root: Path, directory: Path) -> None:
    words = argument.split()
    if words[0].startswith("--from="):
        return  # both stages share the root here
    *sources, target = words
    for source in sources:
        origin, goal = REPOSITORY / source, directory / target
        assert origin.exists(), f"the Dockerfile copies {source}, which is not there"
        if origin.is_dir():
            shutil.copytree(origin, goal, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(origin, goal)


def run(command: str, image: Image, directory: Path) -> None:
    for name in NEEDS_ROOT:
        assert name not in command or shutil.which(name), f"no command {name}"
    without_root = "".join(f"{name}() {{ :; }}; " for name in NEEDS_ROOT)
    for path in ("/wheels", "/data"):
        command = command.replace(f" {path}", f" {image.root}{path}")
    subprocess.run(
        ["sh", "-ec", without_root + command],
        cwd=directory,
        env=os.environ | {"PATH": f"{image.root}/venv/bin:{os.environ['PATH']}"},
        check=True,
        capture_output=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return build(tmp_path_factory.mktemp("image"))


def test_the_wheel_leaves_the_environment_without_conflicts(image: Image) -> None:
    subprocess.run([image.python, "-m", "pip", "check"], check=True, capture_output=True, timeout=60)
    names = subprocess.run(
        [image.python, "-c", "import meshhost, pathlib; print(pathlib.Path(meshhost.__file__).parent)"],
        check=True,
        capture_output=True,
        text=True,
        cwd=image.root,
        timeout=60,
    )
    assert str(image.root) in names.stdout


def output_of(image: Image, program: str) -> Any:
    """What a program prints as JSON under the image's Python."""
    command = [image.python, "-c", program]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)


def test_the_image_has_the_versions_that_the_tests_ran_with(image: Image) -> None:
    program = (
        "import importlib.metadata as m, json; print(json.dumps([(d.name, d.version) for d in m.distributions()]))"
    )
    installed = {canonicalize_name(name): version for name, version in output_of(image, program)}
    pins = map(Requirement, (REPOSITORY / "constraints/versions.txt").read_text().splitlines()[1:])
    pinned = {pin.name: pin for pin in pins if pin.marker is None or pin.marker.evaluate()}
    assert {name for name in installed if name not in pinned} <= {"meshhost", "setuptools", "wheel"}
    assert {
        name: version for name, version in installed.items() if name in pinned and version not in pinned[name].specifier
    } == {}


def test_the_wheel_asks_for_ranges_and_no_exact_versions(image: Image) -> None:
    program = "import importlib.metadata as m, json; print(json.dumps(m.requires('meshhost')))"
    required = output_of(image, program)
    assert any(one.startswith("openai<4,>=2.0") for one in required)
    assert [one for one in required if "==" in one.partition(";")[0]] == []


def test_the_image_runs_as_nobody_special_and_stops_by_sigterm(image: Image) -> None:
    assert image.last("USER") not in {"root", "0"}
    assert image.last("STOPSIGNAL") == "SIGTERM"
    assert json.loads(image.last("CMD"))[0] == "python"


async def test_the_image_starts_gets_healthy_and_stops(image: Image, home_with: Callable[[Path, str], Any]) -> None:
    home = home_with(image.app, image.python)
    port = str(home.port)
    home.environment |= image.environment | {"MESHHOST_PORT": port, "MESHHOST_DATA_DIR": str(image.root / "data")}
    health = json.loads(image.last("HEALTHCHECK").partition("CMD")[2])
    async with home.running(*json.loads(image.last("CMD"))[1:]) as host:
        await host.line("service host ready")
        await home.run(*health[1:])
        host.signal(signal.SIGTERM)
        assert await host.exit_code() == 0


async def test_the_main_job_runs_from_the_installed_wheel(
    image: Image, home_with: Callable[[Path, str], Any], tmp_path: Path
) -> None:
    home = home_with(tmp_path, image.python)
    home.copy_example()
    home.environment["MESHHOST_API_KEY"] = json.loads(await home.cli("setup", "--json"))["api_key"]
    async with ScriptedUpstream() as upstream:
        home.environment |= {"OPENAI_BASE_URL": upstream.base_url, "OPENAI_API_KEY": "key"}
        upstream.call_tool("write_file", {"path": "poem.txt", "text": "a poem", "overwrite": False}).say("done")
        async with home.service():
            await home.run("push_queue.py")
            await home.until_settled()
            assert await home.file("poem.txt") == "a poem"


@pytest.mark.parametrize("name", ["meshhost.toml", "production.toml"])
def test_the_configuration_files_are_read_without_complaint(name: str) -> None:
    ServerFile.model_validate(tomllib.loads((REPOSITORY / "config" / name).read_text()))


def test_the_default_configuration_file_says_the_defaults() -> None:
    assert ServerFile.model_validate(tomllib.loads((REPOSITORY / "config/meshhost.toml").read_text())) == ServerFile()


async def test_make_demo_ends_with_a_poem_and_leaves_nothing_running() -> None:
    """The demo's program itself, with the local model where there is no provider."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MESHHOST_", "OPENAI_"))}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(REPOSITORY / "agents/storage_worker/demo.py")),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    async with asyncio.timeout(300):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert "poem.txt is in the room's storage" in output.decode()
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
