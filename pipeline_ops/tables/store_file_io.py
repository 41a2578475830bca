"""StoreFileIO: pyiceberg's metadata and manifests through Store, with its retries, checks and credentials.

pyiceberg makes one by its name (the catalog property `py-io-impl`), so that a catalog's own reads and writes go the same way.
A file is put whole when it is closed, by one request. Its name has a UUID in it, so a put that is repeated, or arrives late,
writes the same bytes again. This module imports pyiceberg, an extra: import it where it is needed only.
"""

import gzip
import io
from typing import Any

from pyiceberg.io import FileIO, InputFile, InputStream, OutputFile, OutputStream
from pyiceberg.typedef import EMPTY_DICT, Properties

from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.paths import full_path, is_local
from pipeline_ops.storage.store import Store

CONFIG = "label-corpus.storage"  # the property with the StorageConfig, as JSON


def properties_for(config: StorageConfig) -> dict[str, str]:
    """The properties of a catalog whose metadata and manifests are read and written through Store."""
    return {"py-io-impl": f"{StoreFileIO.__module__}.{StoreFileIO.__qualname__}", CONFIG: config.model_dump_json()}


def path_of(location: str) -> str:
    """The full path of a location in metadata, such as file:/a, file:///a, s3a://bucket/a."""
    if location.startswith("file:"):
        return full_path("/" + location.removeprefix("file:").lstrip("/"))
    return full_path(location.replace("s3n://", "s3://", 1))


def location_of(path: str) -> str:
    """The location of a full path, as other engines read it."""
    return f"file://{path}" if is_local(path) else path


class StoreFileIO(FileIO):
    """Whole files by Store."""

    def __init__(self, properties: Properties = EMPTY_DICT):
        super().__init__(properties)
        config = properties.get(CONFIG)
        self.config = StorageConfig.model_validate_json(config) if config else StorageConfig()

    def new_input(self, location: str) -> "_StoreInput":
        return _StoreInput(location, self.config)

    def new_output(self, location: str) -> "_StoreOutput":
        return _StoreOutput(location, self.config)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        store, name = _place(location if isinstance(location, str) else location.location, self.config)
        store.delete([name])


def _place(location: str, config: StorageConfig) -> tuple[Store, str]:
    folder, _, name = path_of(location).rpartition("/")
    return Store(folder, config), name


class _StoreInput(InputFile):
    def __init__(self, location: str, config: StorageConfig):
        super().__init__(location)
        self.config = config

    def __len__(self) -> int:
        store, name = _place(self.location, self.config)
        return store.stat(name).size

    def exists(self) -> bool:
        try:
            return len(self) >= 0
        except FileNotFoundError:
            return False

    def open(self, seekable: bool = True) -> InputStream:
        store, name = _place(self.location, self.config)
        try:
            content = store.read(name)
        except FileNotFoundError:
            raise FileNotFoundError(self.location) from None
        # the other name of a compressed file, .gz.metadata.json, is pyiceberg's to decompress
        stream: Any = io.BytesIO(gzip.decompress(content) if self.location.endswith(".json.gz") else content)
        return stream


class _StoreOutput(OutputFile):
    def __init__(self, location: str, config: StorageConfig):
        super().__init__(location)
        self.config = config
        self.written: int | None = None  # bytes

    def __len__(self) -> int:
        return len(self.to_input_file()) if self.written is None else self.written

    def exists(self) -> bool:
        return self.to_input_file().exists()

    def to_input_file(self) -> InputFile:
        return _StoreInput(self.location, self.config)

    def create(self, overwrite: bool = False) -> OutputStream:
        """`overwrite` makes no difference, as no name is used twice."""
        return _PutWhenClosed(self)


class _PutWhenClosed:
    """A stream in memory; not an io.BytesIO, which Python closes when it is dropped after an error."""

    def __init__(self, file: _StoreOutput):
        self.file = file
        self.content = bytearray()

    def write(self, b: bytes) -> int:
        self.content += b
        return len(b)

    def tell(self) -> int:
        return len(self.content)

    def close(self) -> None:
        store, name = _place(self.file.location, self.file.config)
        store.put(name, bytes(self.content))
        self.file.written = len(self.content)

    def __enter__(self) -> "_PutWhenClosed":
        return self

    def __exit__(self, exctype: Any, excinst: Any, exctb: Any) -> None:
        if exctype is None:
            self.close()
