"""The import rules: jobs -> {pipeline_ops, cluster}; those two never import each other; heavy libraries wait until needed."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import REPOSITORY
from tests.support.corpora import write_bytes
from tests.support.running import job_settings, write_job_file

PRODUCT = ("jobs", "pipeline_ops", "cluster")
# each package imports only what stands in the lines above its own
LEVELS = (
    ("pipeline_ops.schema",),
    ("pipeline_ops.storage", "pipeline_ops.tokenizing"),
    ("pipeline_ops.tables", "pipeline_ops.model_files"),
    ("pipeline_ops.inputs",),
    ("pipeline_ops.line_formats",),
    ("pipeline_ops.row_formats",),
    ("pipeline_ops.models", "pipeline_ops.reading"),
    ("pipeline_ops.loading",),
    ("jobs.config", "jobs.number_format", "pipeline_ops.classifying", "pipeline_ops.writing"),
    ("pipeline_ops.training",),
    ("pipeline_ops.output", "pipeline_ops.stages", "pipeline_ops.synthetic"),
    ("pipeline_ops.planning", "pipeline_ops.analysis", "pipeline_ops.publishing"),
    ("pipeline_ops.joining", "pipeline_ops.reviewing"),
    ("jobs.executors", "jobs.timings", "jobs.checking"),
    ("jobs.run",),
    ("jobs.console", "jobs.results"),
    ("jobs.publishing",),
    ("jobs.report", "jobs.remote", "jobs.maintenance", "jobs.benchmark", "jobs.gpu_benchmark"),
    ("jobs.label_corpus", "jobs.reviewing"),
    ("jobs.start",),
    ("jobs.cli",),
)
LEVEL_OF = {package: level for level, packages in enumerate(LEVELS) for package in packages}
TOP_MODULES = {"jobs.config", "jobs.number_format", "jobs.label_corpus"}
HEAVY = {"ray", "torch", "transformers"}


def modules_of(folder: str) -> list[Path]:
    found = sorted((REPOSITORY / folder).rglob("*.py"))
    assert found, f"no modules in {folder}"
    return found


def imported(path: Path) -> Iterator[str]:
    """Full names of all that a module imports, inside functions too."""
    package = list(path.relative_to(REPOSITORY).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def package_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def offenders(folder: str, forbidden: set[str]) -> list[str]:
    return [
        f"{path.relative_to(REPOSITORY)} imports {name}"
        for path in modules_of(folder)
        for name in imported(path)
        if any(name == module or name.startswith(f"{module}.") for module in forbidden)
    ]


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("pipeline_ops", {"ray", "jobs", "cluster"}),
        ("cluster", {"pipeline_ops", "jobs"}),
        ("jobs", {"tests"}),
        ("pipeline_ops", {"tests"}),
        ("cluster", {"tests"}),
    ],
)
def test_imports_of_a_folder_leave_out_what_it_must_not_know(folder: str, forbidden: set[str]) -> None:
    assert offenders(folder, forbidden) == []


def test_packages_import_down_the_levels_only() -> None:
    found = [
        f"{path.relative_to(REPOSITORY)} imports {name}"
        for folder in ("jobs", "pipeline_ops")
        for path in modules_of(folder)
        for name in imported(path)
        if name.startswith(("jobs.", "pipeline_ops."))
        and package_of(name) != (own := package_of(".".join(path.relative_to(REPOSITORY).with_suffix("").parts)))
        and LEVEL_OF[package_of(name)] >= LEVEL_OF[own]
    ]
    assert found == []


def test_every_package_has_a_level_a_docstring_and_at_most_twelve_files() -> None:
    for folder in PRODUCT:
        for package in {path.parent for path in modules_of(folder)}:
            modules = [path for path in package.glob("*.py") if path.name != "__init__.py"]
            assert len(modules) <= 12, package
            body = ast.parse((package / "__init__.py").read_text(encoding="utf-8")).body
            assert isinstance(body[0], ast.Expr), f"{package} has no docstring"
    packages = {".".join(path.parent.relative_to(REPOSITORY).parts) for folder in PRODUCT for path in modules_of(folder)}
    assert packages - {"jobs", "pipeline_ops", "cluster"} == {name for name in LEVEL_OF if name not in TOP_MODULES}


def test_imports_of_object_stores_stand_in_the_storage_package_only() -> None:
    found = [name for folder in PRODUCT for name in offenders(folder, {"fsspec", "s3fs", "botocore", "pyarrow.fs"})]
    assert [name for name in found if not name.startswith("pipeline_ops/storage/")] == []


def test_environment_is_read_by_the_session_only() -> None:
    found = []
    for folder in PRODUCT:
        for path in modules_of(folder):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "putenv"):
                    found.append(str(path.relative_to(REPOSITORY)))
    assert set(found) <= {"cluster/session.py"}


def test_import_of_what_help_and_plan_need_is_light() -> None:
    modules = "jobs.cli, jobs.config, jobs.run.prepare, jobs.maintenance.verify, jobs.remote.schedule"
    program = f"import sys, {modules}; print(' '.join(sorted({HEAVY!r} & sys.modules.keys())))"
    result = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_plan_of_local_files_imports_neither_torch_nor_ray_nor_s3fs(tmp_path: Path, model: Path) -> None:
    source = write_bytes(tmp_path / "in.jsonl", b'{"text": "a"}\n')
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(source, model, tmp_path / "out"))
    program = [sys.executable, "-X", "importtime", "-m", "jobs.cli", "plan", "--quiet", str(job_file)]
    result = subprocess.run(program, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    imported = {line.rsplit("|", 1)[-1].strip() for line in result.stderr.splitlines()}
    assert "transformers" in imported
    assert imported & {"torch", "ray", "s3fs"} == set()


@pytest.mark.parametrize(
    ("module", "unneeded"),
    [
        ("jobs.label_corpus", {"jobs.results.evaluate", "jobs.report.charts"}),
        ("pipeline_ops.stages.classifier", {"pipeline_ops.reading.reader", "pipeline_ops.line_formats", "jobs.config"}),
    ],
)
def test_a_run_imports_before_its_stages_start_only_what_each_process_needs(module: str, unneeded: set[str]) -> None:
    heavy = HEAVY | {"pandas", "pyarrow.dataset", "matplotlib", "scipy", "sklearn", "s3fs"}
    program = f"import sys, {module}; print(' '.join(sorted({heavy | unneeded!r} & sys.modules.keys())))"
    result = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_help_names_the_commands_and_exits_0() -> None:
    result = subprocess.run([sys.executable, "-m", "jobs.cli", "--help"], cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0
    for command in ("run", "plan", "verify", "inspect"):
        assert command in result.stdout
