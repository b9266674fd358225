"""`.env.example` explains every setting, and says nothing that is not so."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from app.core.config import REPOSITORY, Settings, load_settings, unknown_variables

EXAMPLE = REPOSITORY / ".env.example"
UNITS = {"ms": "milliseconds", "s": "seconds", "tokens": "tokens"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One setting as the file has it."""

    name: str
    value: str
    explanation: str


def entries() -> list[Entry]:
    """Blocks of comment lines, the last of which is `# NAME=default`; headings and the introduction have none."""
    found = []
    for block in EXAMPLE.read_text("utf-8").split("\n\n"):
        lines = [line.removeprefix("#").removeprefix(" ") for line in block.strip("\n").split("\n")]
        if assignment := re.fullmatch(r"([A-Z_]+)=(.*)", lines[-1]):
            found.append(Entry(assignment[1], assignment[2], " ".join(lines[:-1])))
    return found


def test_every_setting_is_there_once_in_the_order_of_the_class_and_nothing_else() -> None:
    assigned = re.findall(r"(?m)^#? ?(\w+)=", EXAMPLE.read_text("utf-8"))
    assert [name.lower() for name in assigned] == list(Settings.model_fields)
    assert [entry.name for entry in entries()] == assigned


def test_as_it_is_it_sets_nothing() -> None:
    assert all(line == "" or line.startswith("#") for line in EXAMPLE.read_text("utf-8").split("\n"))


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
def test_the_value_shown_is_the_default(entry: Entry, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(f"{entry.name}={entry.value}\n", "utf-8")
    field = entry.name.lower()
    assert getattr(load_settings(env_files=(file,)), field) == Settings.model_fields[field].default
    has_default = Settings.model_fields[field].default not in {None, ()}
    assert bool(entry.value) == has_default


def test_with_every_line_taken_in_ahoy_runs_as_with_none(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("".join(f"{entry.name}={entry.value}\n" for entry in entries()), "utf-8")
    assert load_settings(env_files=(file,)) == load_settings(env_files=())
    assert unknown_variables((file,), {}) == []


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
def test_the_explanation_is_a_sentence_or_two_with_unit_and_range(entry: Entry) -> None:
    assert re.match(r"[A-Z].{20,}[.]$", entry.explanation), "whole sentences"
    assert len(entry.explanation) < 400
    unit = UNITS.get(entry.name.rpartition("_")[2].lower())
    if unit and entry.name != "SCRIPTED_TOKENS":
        assert unit in entry.explanation
    field = Settings.model_fields[entry.name.lower()]
    limits = {
        name: getattr(rule, name) for rule in field.metadata for name in ("ge", "gt", "le") if hasattr(rule, name)
    }
    if "ge" in limits:
        assert f"From {limits['ge']} to {limits['le']}." in entry.explanation
    elif "gt" in limits:
        assert f"Above {limits['gt']} and up to {limits['le']}." in entry.explanation
    else:
        assert not re.search(r"From \d", entry.explanation)
