"""Fixtures for all tests. Ray, the S3 servers and the models are started or built once per session, when first needed."""

import os
import re
import secrets
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# Before anything imports Ray, Hugging Face or botocore, and for every process that the tests start.
for _name in ("RAY_ADDRESS", "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
    os.environ.pop(_name, None)
_repository = str(Path(__file__).resolve().parent.parent)
os.environ |= {
    "PYTHONPATH": os.pathsep.join(filter(None, [_repository, os.environ.get("PYTHONPATH")])),  # for Ray's workers
    "RAY_AUTH_MODE": "token",  # Ray listens on the host's address; left unset, it would write a token into the home folder
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_OFFLINE": "1",
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "NO_PROXY": "127.0.0.1,localhost",
}

from tests.models import tiny  # noqa: E402
from tests.support import REPOSITORY  # noqa: E402

if TYPE_CHECKING:  # a machine for the tests on a GPU has neither Ray nor clients of object stores
    import s3fs

    from tests.servers.hub_server import HubServer
    from tests.servers.s3_proxy import FaultProxy, Journal
    from tests.servers.s3_server import S3Server

MARKED_FOLDERS = {"integration", "fault", "gpu"}
RAY_CPUS = 4  # logical: pools and tasks of one job need more slots than a small machine has cores
RAY_STARTS = 3  # Ray gives itself 30 s, which a busy machine can need twice
OBJECT_STORE_BYTES = 256 * 2**20


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks every test by the folder it stands in."""
    for item in items:
        for folder in MARKED_FOLDERS.intersection(item.path.relative_to(REPOSITORY / "tests").parts):
            item.add_marker(folder)


class OneProcessOnRay(LoadScopeScheduling):
    """Of several test processes (`-n 2`) one runs the files that are on Ray, so that one Ray runs at a time; the rest by file.

    Tests on Ray wait for processes, nodes and ticks most of the time, and for no longer than they say: another Ray that starts
    meanwhile would take the cores from them, one process that computes does not.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return "ray" if is_on_ray(file) else file


# the tests' Ray and what asks for it; nodes of a test's own; commands that start a Ray
ON_RAY = re.compile(
    r"""\bray_address\b|\bfinished_job:|\bray_nodes\(|\brunning_command\((?!"train")"""
    r"""|sys\.executable, "-m", "jobs\.cli", "run\""""
)
# it starts a Ray now and then, but computes most of the time: on Ray's process the other one would be done long before
COMPUTING = ("tests/fault/test_one_process.py",)


@cache
def is_on_ray(file: str) -> bool:
    """Whether a file belongs to the process on Ray: its tests use the tests' Ray, or start one, and wait most of the time."""
    return file not in COMPUTING and ON_RAY.search((REPOSITORY / file).read_text(encoding="utf-8")) is not None


@pytest.hookimpl(optionalhook=True)  # -p no:xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneProcessOnRay:
    config.option.loadscopereorder = False  # the folders' order is from long to short
    return OneProcessOnRay(config, log)


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """A local Ray in this process; the address is for subprocesses that shall join it (environment RAY_ADDRESS)."""
    import ray

    for starts_left in reversed(range(RAY_STARTS)):
        try:
            ray.init(
                "local",
                num_cpus=RAY_CPUS,
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                log_to_driver=False,
            )
            break
        except Exception as error:
            if "timed out during startup" not in str(error) or not starts_left:
                raise
            ray.shutdown()
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture(scope="session")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[tiny.Architecture], Path]:
    """The folder of a classifier with NEGATIVE and POSITIVE of the given architecture, built at the first call."""

    @cache
    def build(architecture: tiny.Architecture) -> Path:
        return tiny.make_model(tmp_path_factory.mktemp(architecture) / "model", architecture)

    return build


@pytest.fixture(scope="session")
def model(model_of: Callable[[tiny.Architecture], Path]) -> Path:
    """The classifier for tests to which the architecture does not matter."""
    return model_of("bert")


@pytest.fixture(scope="session")
def model_without_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model_without_head(tmp_path_factory.mktemp("encoder") / "model")


@pytest.fixture(scope="session")
def golden_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.bert_golden_tokenizer(tmp_path_factory.mktemp("golden") / "tokenizer")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[S3Server]":
    """An S3 server that takes any credentials."""
    from tests.servers.s3_server import moto_server

    with moto_server(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="session")
def s3_server_with_checks(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[S3Server]":
    """An S3 server that answers 403 to all credentials but its own; those in the environment are wrong for it."""
    from tests.servers.s3_server import moto_server

    with moto_server(tmp_path_factory.mktemp("moto-with-checks"), check_credentials=True) as server:
        yield server


@pytest.fixture(scope="session")
def s3_proxy(s3_server: "S3Server") -> "Iterator[FaultProxy]":
    from tests.servers.s3_proxy import FaultProxy

    with FaultProxy(s3_server.endpoint_url) as proxy:
        yield proxy


@dataclass(frozen=True)
class Bucket:
    """An empty bucket of one test."""

    name: str
    endpoint_url: str  # for the job: requests to it stand in the journal
    journal: "Journal"
    proxy: "FaultProxy"
    filesystem: "s3fs.S3FileSystem"  # for the test: its requests do not

    @property
    def url(self) -> str:
        return f"s3://{self.name}"


@pytest.fixture
def s3(s3_server: "S3Server", s3_proxy: "FaultProxy") -> Iterator[Bucket]:
    bucket = Bucket(f"test-{uuid.uuid4().hex}", s3_proxy.endpoint_url, s3_proxy.journal, s3_proxy, s3_server.filesystem())
    bucket.filesystem.mkdir(bucket.name)
    bucket.journal.clear()
    yield bucket
    s3_proxy.heal()
    bucket.filesystem.rm(bucket.name, recursive=True)  # moto keeps objects in memory


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> "Iterator[HubServer]":
    """A Hugging Face hub, which this process uses, too."""
    from tests.servers.hub_server import TOKEN, hub_server

    with hub_server() as server:
        for name, value in {
            "ENDPOINT": server.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": f"{server.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_TOKEN_PATH": "/nonexistent",
        }.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server
