"""The demo's corpus: kinds by place, packages on one side each, the same every time."""

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline_ops.synthetic.package_corpus import (
    KINDS,
    OWN_PACKAGE,
    SCHEMA,
    collect_passages,
    cut_passages,
    fingerprint,
    is_training_package,
)

LICENSE = "\n".join(f"Permission number {word} is hereby granted to use it." for word in "abcdefghijklmnop")
TRAINING_NAMES = [name for name in map("package{}".format, range(40)) if is_training_package(name)]
HELD_OUT_NAMES = [name for name in map("package{}".format, range(40)) if not is_training_package(name)]


def install(folder: Path, name: str, files: dict[str, str]) -> None:
    """Puts a package with these files into `folder`, as pip would."""
    info = f"{name}-1.0.dist-info"
    sentence = f"This is what {name} does and why. "
    readme = "\n".join(sentence + "x" * length for length in range(20, 40))
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nSummary: {'s' * 100}\n\n{readme}\n",
        f"{info}/licenses/LICENSE": LICENSE,
        **files,
    }
    files[f"{info}/RECORD"] = "".join(f"{path},sha256={name}{index},{index}\n" for index, path in enumerate(files)) + (
        f"{info}/RECORD,,\n../../outside.py,,\n"
    )
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


def source(name: str, functions: int = 20) -> str:
    docstring = "\n".join(f"    Explains {name} in sentence {index} of its docstring." for index in range(12))
    body = "\n".join(f"def {name}_{index}(value):\n    return value + {index} * {name}" for index in range(functions))
    return (
        f'# Licensed under terms that are not code\n\ndef first():\n    """{docstring}\n    """\n    return {name}\n\n{body}\n'
    )


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    for name in TRAINING_NAMES[:4] + HELD_OUT_NAMES[:4]:
        settings = "\n".join(f'{{"{name}_{key}": [{key}, {key}]}}' for key in "abcdefghijklmnop")
        install(tmp_path, name, {f"{name}/code.py": source(name), f"{name}/settings.json": settings})
    return tmp_path


def both(folder: Path, limit: int = 1000) -> list[pa.Table]:
    return list(collect_passages(max_training=limit, max_held_out=limit, folders=[str(folder)]))


def rows(tables: list[pa.Table]) -> list[dict[str, str]]:
    return [row for table in tables for row in table.to_pylist()]


def test_passages_kinds_follow_from_place(installed: Path):
    tables = both(installed)
    assert all(table.schema == SCHEMA for table in tables)
    assert {row["kind"] for row in rows(tables)} == set(KINDS)
    for row in rows(tables):
        if row["path"].endswith("settings.json") or row["path"].endswith("RECORD"):
            assert row["kind"] == "data"
        if row["path"].endswith("LICENSE"):
            assert row["kind"] == "license"
        if row["path"].endswith("code.py"):
            assert row["kind"] == ("prose" if "docstring" in row["text"] else "code")
            assert "Licensed" not in row["text"]
        if row["path"].endswith("METADATA"):
            assert row["kind"] == ("data" if "Metadata-Version" in row["text"] else "prose")


def test_passages_packages_stand_on_one_side(installed: Path):
    training, held_out = both(installed)
    assert set(training["package"].to_pylist()) <= set(TRAINING_NAMES)
    assert set(held_out["package"].to_pylist()) <= set(HELD_OUT_NAMES)
    assert training.num_rows > 0
    assert held_out.num_rows > 0


def test_passages_repeated_text_stands_once(installed: Path):
    texts = [row["text"] for row in rows(both(installed))]
    assert len(set(texts)) == len(texts)
    assert "".join(texts).count("Permission number a ") == 1


def test_passages_collected_twice_are_equal(installed: Path):
    assert [table.to_pylist() for table in both(installed)] == [table.to_pylist() for table in both(installed)]


def test_fingerprint_follows_from_the_installed_files_alone(installed: Path):
    first = fingerprint([str(installed)])
    install(installed, OWN_PACKAGE, {"jobs/changed.py": source("changed")})
    assert fingerprint([str(installed)]) == first
    install(installed, "another", {"another/code.py": source("another")})
    second = fingerprint([str(installed)])
    install(installed, "another", {"another/other.py": source("another"), "another/code.py": source("another")})
    assert len({first, second, fingerprint([str(installed)])}) == 3


def test_passages_limit_keeps_every_kind(installed: Path):
    training, held_out = both(installed, limit=12)
    assert training.num_rows <= 12
    assert held_out.num_rows <= 12
    assert len(set(training["kind"].to_pylist())) >= 3


def test_passages_unreadable_files_are_left_out(installed: Path):
    name = TRAINING_NAMES[0]
    (installed / name / "code.py").write_bytes(b"\xff\xfe\x00 no text")
    (installed / name / "settings.json").unlink()
    paths = {row["path"] for row in rows(both(installed))}
    assert not paths & {f"{name}/code.py", f"{name}/settings.json"}


def test_cut_passages_same_lines_in_another_file_are_same_passages():
    lines = [f"line {index} of a text that stands in two files" for index in range(400)]
    alone = cut_passages("\n".join(lines), 4)
    behind = cut_passages("\n".join(["Copyright of somebody", *lines]), 4)
    assert len(set(alone) & set(behind)) > len(alone) * 0.8
    assert "\n".join(lines).startswith("\n".join(alone))


def test_cut_passages_one_long_line_is_cut():
    passages = cut_passages("x" * 10_000, 12)
    assert max(map(len, passages)) <= 8_100
    assert len(passages) > 1


@pytest.mark.slow
def test_passages_of_this_installation_suffice_for_the_demo():
    training, held_out = collect_passages(max_training=2000, max_held_out=2000)
    for table in (training, held_out):
        counts = {row["values"]: row["counts"] for row in table["kind"].value_counts().to_pylist()}
        assert set(counts) == set(KINDS)
        assert min(counts.values()) >= 100
        assert max(counts.values()) <= 2000 // 3
    assert not set(training["text"].to_pylist()) & set(held_out["text"].to_pylist())
    assert not set(training["package"].to_pylist()) & set(held_out["package"].to_pylist())
