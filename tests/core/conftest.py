"""Settings are read from the environment: here it holds none but those of the test.

Property tests draw the same examples in every run, and are not judged by how fast the machine is.
"""

import os
from pathlib import Path

import pytest
from app.core.config import Settings
from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting in the environment, and a directory without a `.env` file."""
    for name in list(os.environ):
        if name.lower() in Settings.model_fields:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
