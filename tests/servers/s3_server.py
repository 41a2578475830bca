"""A real S3 server for the tests: moto as a process of its own. `tests/s3_proxy.py` stands in front of it."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
import s3fs

REGION = "us-east-1"
START_TIMEOUT_S = 60
MOTO = Path(__file__).with_name("moto_process.py")


@dataclass(frozen=True)
class S3Server:
    """A running server and the credentials it takes."""

    endpoint_url: str
    access_key: str
    secret_key: str

    def filesystem(self) -> s3fs.S3FileSystem:
        """For the test's own reading and writing: straight to this endpoint, nothing cached."""
        return s3fs.S3FileSystem(
            key=self.access_key,
            secret=self.secret_key,
            endpoint_url=self.endpoint_url,
            use_listings_cache=False,
            skip_instance_cache=True,
        )


@contextmanager
def moto_server(folder: Path, check_credentials: bool = False) -> Iterator[S3Server]:
    """Runs moto as a subprocess on a free loopback port; its log goes to `folder`.

    Args:
        check_credentials: know one user only and refuse every other key and wrong secrets with 403. Otherwise moto takes
            any credentials.
    """
    log = folder / "moto.log"
    environment = os.environ | ({"INITIAL_NO_AUTH_ACTION_COUNT": "3"} if check_credentials else {})
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, str(MOTO)],
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C in the terminal is for the tests
        )
    try:
        endpoint_url = _announced_address(process, log)
        if check_credentials:
            yield S3Server(endpoint_url, *_create_user(endpoint_url))
        else:
            yield S3Server(endpoint_url, "testing", "testing")
    finally:
        process.kill()
        process.communicate()


def _announced_address(process: subprocess.Popen, log: Path) -> str:
    """The address that the server prints once it listens: port 0 leaves the choice to the system, so no port is raced for."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        announced = re.search(r"Running on (http://127\.0\.0\.1:\d+)", log.read_text())
        if announced:
            return announced.group(1)
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError(f"the S3 server did not start; its log: {log.read_text()}")


def _create_user(endpoint_url: str) -> tuple[str, str]:
    """The one user of a server with checks. These are the three calls that pass unchecked."""
    iam = boto3.client(
        "iam",
        endpoint_url=endpoint_url,
        region_name=REGION,
        aws_access_key_id="initial",
        aws_secret_access_key="initial",
    )
    allow_all = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    iam.create_user(UserName="tests")
    iam.put_user_policy(UserName="tests", PolicyName="all", PolicyDocument=json.dumps(allow_all))
    key = iam.create_access_key(UserName="tests")["AccessKey"]
    return key["AccessKeyId"], key["SecretAccessKey"]
