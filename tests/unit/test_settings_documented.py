"""Every setting is in the example environment file, and nothing else is; and each has a description for the reference."""

from pathlib import Path

from pydantic import AliasChoices

from meshhost.settings import Settings

EXAMPLE = Path(__file__).parents[2] / "config" / ".env.example"


def names_read() -> set[str]:
    names = set()
    for member in Settings.model_fields.values():
        alias = member.validation_alias
        names.add(str(alias.choices[0]) if isinstance(alias, AliasChoices) else str(alias))
    return names


def test_the_example_environment_lists_every_variable_that_is_read() -> None:
    written = {line.partition("=")[0] for line in EXAMPLE.read_text().splitlines() if "=" in line and line[0] != "#"}
    assert written == names_read()


def test_every_setting_has_a_description_that_is_a_sentence() -> None:
    for name, member in Settings.model_fields.items():
        assert member.description, name
        assert member.description[-1] == ".", name
