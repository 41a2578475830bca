"""The stand-in of the hub with short pauses, and labeled outputs for it."""

from pathlib import Path

import pytest

from jobs.publishing import hub as hub_publication
from tests.servers.hub_server import HubServer
from tests.support.hub_publications import label_files


@pytest.fixture
def server(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    monkeypatch.setattr(hub_publication, "FIRST_PAUSE_S", 0.001)
    return hub


@pytest.fixture(scope="module")
def labeled_once(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return label_files(tmp_path_factory.mktemp("labeled"), model)


@pytest.fixture
def job_file(model: Path, tmp_path: Path) -> Path:
    """A labeled job of which the test may change all."""
    return label_files(tmp_path, model)
