"""Formats and compressions by the suffixes of a file's name."""

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "text",
    ".text": "text",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".orc": "orc",
    ".avro": "avro",
    ".wet": "wet",
    ".warc": "wet",
}
LINE_FORMATS = ("jsonl", "csv", "text")  # whose bytes are decoded (line_formats/decoding.py)
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz", ".lz4": "lz4", ".zip": "zip"}


def format_and_compression(path: str) -> tuple[str | None, str | None]:
    """(format, compression) by the name's suffixes; None for a suffix that is not known."""
    suffix, compression = _suffix_and_compression(path)
    return FORMATS.get(suffix), compression


def format_suffix(path: str) -> str:
    """The suffix that gives the format, such as ".jsonl" of "a.jsonl.zst"; "" for one that is not known."""
    return _suffix_and_compression(path)[0]


def _suffix_and_compression(path: str) -> tuple[str, str | None]:
    name = path.rsplit("/", 1)[-1].lower()
    compression = None
    for suffix, codec in COMPRESSIONS.items():
        if name.endswith(suffix):
            name, compression = name.removesuffix(suffix), codec
    return next((suffix for suffix in FORMATS if name.endswith(suffix)), ""), compression
