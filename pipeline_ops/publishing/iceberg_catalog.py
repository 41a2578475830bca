"""The catalog that knows an Iceberg table's current metadata: output.catalog, or a SQLite file in a local output."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline_ops.inputs.part import part_named
from pipeline_ops.schema.errors import StoreError, UserError, one_line, without_credentials
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.storage.store import Store
from pipeline_ops.tables.iceberg import PUBLISHED, metadata_folders, newest_metadata
from pipeline_ops.tables.input_table import import_extra

SQLITE = f"{PUBLISHED}/catalog.db"
NAMESPACE = "labels"  # of the table in that file
DEFAULT_NAME = "default"  # pyiceberg's
PARTS_OF_A_URL = "#?"  # pyiceberg takes the locations of files for URLs that are not quoted


class IcebergCatalog:
    """The catalog of an output's table, which is connected to at the first use.

    Attributes:
        identifier: (namespace, ..., name) of the table.
        words: the catalog for messages.
    """

    def __init__(self, store: Store, output: OutputConfig):
        """Raises UserError if pyiceberg is missing, engines could not read the output's path, or it is on object storage and
        has no output.catalog.
        """
        import_extra("pyiceberg.catalog.sql", "Iceberg", store.path, "output.table")
        if any(character in store.path for character in PARTS_OF_A_URL):
            raise UserError(
                f"output.path: {store.path!r} has a # or ?, where engines end the paths of an Iceberg table's files; give"
                f" another name, or set output.table: delta"
            )
        self.store = store
        self.settings = output.catalog
        self.reached = False
        self._catalog: Any = None
        folder = store.path.rpartition("/")[2]
        if self.settings is None:
            if not store.is_local:
                raise UserError(
                    f"output.catalog: {store.path!r} is on object storage, where a catalog has to say which version of an"
                    f" Iceberg table is the newest; give one, such as {{table: corpora.labels, type: rest, uri: https://...}}"
                )
            self.identifier = (NAMESPACE, re.sub(r"\W", "_", folder))
            self.words = f"the catalog {store.join(SQLITE)}"
        else:
            names = self.settings["table"].split(".")
            part = part_named(folder)  # of a split job: each part is a table
            self.identifier = (*names[:-1], names[-1] + (f"_{part.name}".replace("-", "_") if part else ""))
            self.words = f"the catalog {self.settings.get('name', DEFAULT_NAME)!r}"

    @property
    def table(self) -> str:
        """The table's name for people."""
        return ".".join(self.identifier)

    @property
    def remedy_for_another_table(self) -> str:
        """What makes room for a table of this output."""
        if self.settings is None:
            return f"remove the folder {self.store.join(PUBLISHED)!r}: the next publication makes the table anew"
        return "give another name as output.catalog.table, or drop that table"

    def load(self) -> Any:
        """The pyiceberg.table.Table as the catalog has it; None if there is none yet.

        Raises:
            UserError: the catalog cannot be reached, or the table's metadata is gone.
            StoreError: a request failed that may succeed later.
        """
        from pyiceberg.exceptions import NoSuchTableError

        if self.settings is None and not os.path.exists(self.store.join(SQLITE)):
            return None
        catalog = self.connect()
        try:
            with self.requests():
                return catalog.load_table(self.identifier)
        except NoSuchTableError:
            return None
        except FileNotFoundError as error:
            raise self.missing(error) from error

    def missing(self, error: FileNotFoundError) -> UserError:
        """The error for a table whose metadata is gone."""
        return UserError(
            f"output.catalog: {self.words} names metadata of the table {self.table!r} that does not exist, {error}: it was"
            f" moved or deleted; {self.remedy_for_another_table}"
        )

    def connect(self) -> Any:
        """The pyiceberg.catalog.Catalog; the first time it is made, and its SQLite file where it is in the output.

        Raises:
            UserError: it cannot be reached, or its settings are wrong.
        """
        if self._catalog is None:
            from pyiceberg.catalog import load_catalog

            from pipeline_ops.tables.store_file_io import properties_for

            io = properties_for(self.store.config)
            with self.requests():
                if self.settings is None:
                    from sqlalchemy.engine import URL

                    os.makedirs(self.store.join(PUBLISHED), exist_ok=True)
                    uri = URL.create("sqlite", database=self.store.join(SQLITE)).render_as_string()
                    self._catalog = load_catalog(DEFAULT_NAME, type="sql", uri=uri, **io)
                else:
                    properties = {key: value for key, value in self.settings.items() if key not in ("table", "name")}
                    self._catalog = load_catalog(self.settings.get("name", DEFAULT_NAME), **properties, **io)
        return self._catalog

    @contextmanager
    def requests(self) -> Iterator[None]:
        """Turns the errors of a catalog's client into ours.

        Raises:
            StoreError: a request failed that may succeed later; whether it was done is unknown.
            UserError: no request has succeeded before.
        """
        from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, TableAlreadyExistsError

        try:
            yield
        except (CommitFailedException, NoSuchTableError, TableAlreadyExistsError, UserError):
            raise
        except Exception as error:  # of the client of whatever the catalog is
            if isinstance(error, OSError) and not _is_of_a_client(error):
                raise
            self._fail(error)
        self.reached = True

    def _fail(self, error: Exception) -> None:
        from pyiceberg.exceptions import ValidationError

        reason = f"{type(error).__name__}: {without_credentials(one_line(error))}"
        if self.reached and not isinstance(error, ValidationError):  # of metadata that is damaged
            raise StoreError(f"output.catalog: {self.words} failed: {reason}") from error
        if self.settings is None:
            remedy = self.remedy_for_another_table
        else:
            name = self.settings.get("name", DEFAULT_NAME)
            variable = f"PYICEBERG_CATALOG__{name.upper().replace('-', '_')}__..."
            remedy = f"check its uri and other properties, in output.catalog, ~/.pyiceberg.yaml or {variable}"
        raise UserError(f"output.catalog: {self.words} cannot be used: {reason}; {remedy}") from error


def _is_of_a_client(error: OSError) -> bool:
    """Whether an OSError, as those of requests are, is of a catalog's client, not of the output's store."""
    return type(error).__module__.split(".")[0] in ("requests", "urllib3")


class NewestMetadata:
    """In place of a catalog: the newest metadata in the output folder, of a table that is no longer published."""

    table = words = PUBLISHED

    def __init__(self, store: Store):
        """Raises UserError if pyiceberg is missing."""
        import_extra("pyiceberg", "Iceberg", store.path, "output.table")
        self.store = store
        self.remedy_for_another_table = f"remove the folder {store.join(PUBLISHED)!r}"

    def load(self) -> Any:
        """The pyiceberg.table.StaticTable; None if there is none.

        Raises:
            UserError: its metadata is damaged.
        """
        from pyiceberg.exceptions import ValidationError
        from pyiceberg.table import StaticTable

        from pipeline_ops.tables.store_file_io import location_of, properties_for

        files = self.store.list_all(PUBLISHED)
        if not metadata_folders(self.store, files):
            return None
        newest = newest_metadata(self.store, files)
        try:
            return StaticTable.from_metadata(location_of(newest), properties_for(self.store.config))
        except (ValueError, ValidationError) as error:  # of JSON and pydantic, and pyiceberg's own
            raise UserError(
                f"output.table: the Iceberg table's metadata {newest} cannot be read: {one_line(error)};"
                f" {self.remedy_for_another_table}, unless somebody reads the table's earlier versions"
            ) from error

    def missing(self, error: FileNotFoundError) -> UserError:
        """The error for a table whose metadata is gone."""
        return UserError(
            f"output.table: metadata of the Iceberg table does not exist, {error}; {self.remedy_for_another_table}"
        )
