"""The process that `tests/s3_server.py` starts: moto on a free port, which refuses a body that its checksum does not fit.

S3 does so, and radosgw; moto alone would store it. A client that sends no checksum (`storage.checksums: false`) finds a moto
that takes what comes.
"""

import base64
import io
import os
import sys
import threading
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import moto.server
from moto.moto_server.werkzeug_app import DomainDispatcherApplication

BAD_DIGEST = b"<Error><Code>BadDigest</Code><Message>The CRC32 you specified did not match what we received.</Message></Error>"


class CheckingApplication(DomainDispatcherApplication):
    """moto, behind a comparison of x-amz-checksum-crc32 with the body."""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        checksum = environ.get("HTTP_X_AMZ_CHECKSUM_CRC32")
        if checksum:
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            if base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode() != checksum:
                start_response(
                    "400 Bad Request", [("Content-Type", "application/xml"), ("Content-Length", str(len(BAD_DIGEST)))]
                )
                return [BAD_DIGEST]
            environ["wsgi.input"] = io.BytesIO(body)
        return super().__call__(environ, start_response)


if __name__ == "__main__":
    moto.server.DomainDispatcherApplication = CheckingApplication  # pyright: ignore[reportPrivateImportUsage] main's
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()  # ends when the tests are gone
    moto.server.main(["-H", "127.0.0.1", "-p", "0"])
