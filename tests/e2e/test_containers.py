"""The commands of the page about deploying and of Docker Compose, as written, without a Docker engine.

A container is a process in a directory that looks like the image, with the image's environment, then that of the env file and
of the command. Paths of the container that are mounted are paths of the test, and each server has a port of its own. What the
image's health check says of it is what Docker would see.
"""

import asyncio
import os
import re
import shlex
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from doubles.ports import free_port
from page_reader.blocks import ROOT, steps_of
from page_reader.runner import path_with_our_commands

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SECRET = "s" * 32
PAGE = ROOT / "docs" / "how-to" / "deploy.md"
COMPOSE = yaml.safe_load((ROOT / "config" / "docker-compose.yml").read_text())


def lines_of_dockerfile() -> list[str]:
    text = "\n".join(line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#"))
    return text.replace("\\\n", " ").splitlines()


def instruction(name: str) -> str:
    return (
        next(line for line in reversed(lines_of_dockerfile()) if line.startswith(f"{name} ")).partition(" ")[2].strip()
    )


def env_file(path: Path) -> dict[str, str]:
    """As Docker reads it: no quotes, no comments behind a value, and an empty value is one."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@dataclass
class Container:
    """What is run, in the container's own words."""

    command: list[str]
    environment: dict[str, str]
    health: list[str]
    mounts: dict[str, Path] = field(default_factory=dict)


@pytest.fixture
def dot_env(tmp_path: Path) -> Path:
    """The example with the members set that the page names."""
    text = (ROOT / "config" / ".env.example").read_text()
    for name, value in (("MESHHOST_WEBHOOK_SECRET", SECRET), ("MESHHOST_API_URL", "https://rooms.example.com")):
        text, count = re.subn(rf"^{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
        assert count == 1
    (tmp_path / ".env").write_text(text)
    return tmp_path / ".env"


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "webhook").write_text(f"{SECRET}\n")
    (folder / "openai").write_text("sk-test\n")
    return folder


def image_environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in shlex.split(instruction("ENV")))


def image_health() -> list[str]:
    command: list[str] = yaml.safe_load(instruction("HEALTHCHECK").partition("CMD ")[2])
    return command


def of_docker_run(command: str, folder: Path) -> Container:
    """The container of a `docker run`, with relative paths in `folder`; a named volume is a directory there."""
    words = shlex.split(command)[2:]
    options: list[tuple[str, str]] = []
    while words[0].startswith("--"):
        options.append((words[0], words[1]))
        words = words[2:]
    environment = image_environment()
    for name, value in options:
        if name == "--env-file":
            environment |= env_file(folder / value)
        if name == "--env":
            environment |= dict([value.split("=", 1)])
    mounts = {}
    for path, goal in (value.split(":")[:2] for name, value in options if name == "--volume"):
        mounts[goal] = folder / path
    published = [value for name, value in options if name == "--publish"]
    assert published == [f"{environment['MESHHOST_PORT']}:{environment['MESHHOST_PORT']}"]
    image, *given = words
    assert image == "meshhost"
    return Container(given or yaml.safe_load(instruction("CMD")), environment, image_health(), mounts)


def of_compose(name: str, variables: dict[str, str], folder: Path) -> Container:
    """The container of a service, with `${…}` replaced from the env file; each of its volumes is a directory in `folder`."""
    service = COMPOSE["services"][name]

    def value_of(match: re.Match[str]) -> str:
        value = variables.get(match[1], "")
        assert value or match[2] == ":-", f"{match[1]} must be set"
        return value or match[3]

    environment = {
        key: re.sub(r"\$\{(\w+)(:[-?])([^}]*)\}", value_of, value) for key, value in service["environment"].items()
    }
    mounts = {volume.split(":")[1]: folder / volume.split(":")[0] for volume in service["volumes"] if volume[0] != "."}
    if "secrets" in service:
        mounts["/run/secrets"] = folder / "secrets"
    health = service["healthcheck"]["test"][1:]
    return Container(
        service.get("command", yaml.safe_load(instruction("CMD"))),
        {**image_environment(), **environment},
        health,
        mounts,
    )


def image_folder(folder: Path) -> Path:
    """The image's working directory."""
    app = folder / "app"
    app.mkdir(parents=True)
    for source, goal in re.findall(r"^COPY (\w+) \./(\w+)$", "\n".join(lines_of_dockerfile()), re.MULTILINE):
        if source in ("agents", "config"):
            shutil.copytree(ROOT / source, app / goal)
    return app


@asynccontextmanager
async def running(container: Container, folder: Path) -> AsyncIterator[Any]:
    """Run it; yields a function that runs its health check and returns whether it is healthy."""
    app, port, known = image_folder(folder), str(free_port()), container.environment["MESHHOST_PORT"]

    def here(text: str) -> str:
        for goal, path in container.mounts.items():
            text = re.sub(rf"(?<![\w/]){re.escape(goal)}\b", str(path), text)
        return re.sub(rf"\b{known}\b", port, text)

    for file in (app / "config").glob("*.toml"):
        file.write_text(here(file.read_text()))
    command = [here(word) for word in container.command]
    if command[:3] == ["meshhost", "room", "serve"] and "--port" not in command:
        command += ["--port", port]  # the published one, 8080, is its default
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MESH", "OPENAI", "OTEL"))}
    path = path_with_our_commands(f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    environment = clean | {name: here(value) for name, value in container.environment.items()} | {"PATH": path}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=app, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )

    async def is_healthy() -> bool:
        while process.returncode is None:
            check = await asyncio.create_subprocess_exec(
                *[here(word) for word in container.health], env=environment, stderr=asyncio.subprocess.DEVNULL
            )
            if await check.wait() == 0:
                return True
            await asyncio.sleep(0.3)
        assert process.stdout is not None
        raise AssertionError(f"{command} ended:\n{(await process.stdout.read()).decode()}")

    try:
        yield is_healthy
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


def commands_of_the_page() -> list[str]:
    [block] = [step.text for step in steps_of(PAGE) if "docker run" in step.text]
    return [line for line in block.replace("\\\n", " ").splitlines() if line.startswith("docker run")]


async def test_docker_run_as_the_page_has_it(tmp_path: Path, dot_env: Path, secrets: Path) -> None:
    server, host = (of_docker_run(command, tmp_path) for command in commands_of_the_page())

    async with asyncio.timeout(120):
        async with running(server, tmp_path / "server") as is_healthy:
            assert await is_healthy()
            assert {"queues.db", "config"} <= {file.name for file in (tmp_path / "rooms").iterdir()}
        async with running(host, tmp_path / "host") as is_healthy:
            assert await is_healthy()


@pytest.mark.parametrize("name", COMPOSE["services"])
async def test_a_service_of_compose_as_it_is_written(name: str, tmp_path: Path, dot_env: Path, secrets: Path) -> None:
    container = of_compose(name, env_file(dot_env), tmp_path)

    async with asyncio.timeout(120), running(container, tmp_path / "image") as is_healthy:
        assert await is_healthy()
