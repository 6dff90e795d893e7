"""Every setting is in the example environment file, and nothing else is; and each has a description for the reference."""

import re
import shlex
from pathlib import Path

from pydantic import AliasChoices

from meshhost.settings import Settings

ROOT = Path(__file__).parents[2]
EXAMPLE, DOCKERFILE = ROOT / "config" / ".env.example", ROOT / "Dockerfile"


def names_read() -> set[str]:
    names = set()
    for member in Settings.model_fields.values():
        alias = member.validation_alias
        names.add(str(alias.choices[0]) if isinstance(alias, AliasChoices) else str(alias))
    return names


def test_the_example_environment_lists_every_variable_that_is_read() -> None:
    written = re.findall(r"^#?([A-Z_]+)=", EXAMPLE.read_text(), re.MULTILINE)
    assert sorted(written) == sorted(names_read())


def test_the_example_environment_takes_nothing_back_that_the_image_sets() -> None:
    instruction = re.search(r"^ENV ((?:.*\\\n)*.*)$", DOCKERFILE.read_text(), re.MULTILINE)
    assert instruction is not None
    in_image = {pair.partition("=")[0] for pair in shlex.split(instruction[1].replace("\\\n", " "))}
    in_example = set(re.findall(r"^([A-Z_]+)=", EXAMPLE.read_text(), re.MULTILINE))
    assert len(in_image) == 5
    assert in_image.isdisjoint(in_example)


def test_every_setting_has_a_description_that_is_a_sentence() -> None:
    for name, member in Settings.model_fields.items():
        assert member.description, name
        assert member.description[-1] == ".", name
