"""The outputs of a split job's parts as one output: OUTPUT/part-00000-of-00004, OUTPUT/part-00001-of-00004, ..."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pipeline_ops.inputs.part import InputPart, part_named, part_of_file
from pipeline_ops.output.commit_log import Ledger, read_job, read_ledger
from pipeline_ops.output.labeled_output import Labeled
from pipeline_ops.output.lease import check_free
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.paths import shown, some_shown
from pipeline_ops.storage.store import Store
from pipeline_ops.writing.commit_record import Commit, WrittenFile

IGNORED = "part"  # key of `input` in which parts differ


def parts_of(store: Store) -> list[InputPart]:
    """All parts of the split job whose parts have folders at the store, also those that have none yet; [] if none has one.

    Raises:
        UserError: there are folders of two splits, or the store has labels of the whole input, too: documents are in both.
    """
    found = [part for name in store.names_in("") if (part := part_named(name)) is not None]
    counts = sorted({part.of for part in found})
    if len(counts) > 1:
        raise UserError(
            f"output.path: {store.path!r} holds parts of {' and of '.join(map(str, counts))}: documents are in both; delete the"
            f" folders of one of the splits, part-*-of-{counts[0]:05} or part-*-of-{counts[-1]:05}"
        )
    if found and read_job(store) is not None:
        raise UserError(
            f"output.path: {store.path!r} holds labels of the whole input, and parts of a split job ({found[0].name}, ...):"
            f" documents are in both; delete its folders part-*-of-{counts[0]:05}, or all else in it"
        )
    return [InputPart(number=number, of=count) for count in counts for number in range(count)]


def store_of_part(whole: Store, part: InputPart) -> Store:
    return Store(whole.join(part.name), whole.config)


def store_of_whole(part: Store) -> Store | None:
    """Of all parts; None for an output whose folder has no part's name."""
    folder, _, name = part.path.rpartition("/")
    return None if part_named(name) is None else Store(folder, part.config)


def recorded_part(record: dict[str, Any]) -> InputPart | None:
    """The part of the input that an output holds, by its `_job.json`; None: all of it."""
    part = record["config"]["input"].get("part")
    return None if part is None else InputPart.model_validate(part)


def check_labeled_once(store: Store, *, leased: bool = True) -> None:
    """Before a run: checks that it labels no documents that are labeled by parts of the job, or by the job that a part is of.

    After both have taken their leases, one of the two sees the other: a part by its folder, the whole by its lease.

    Args:
        store: of the run's output.
        leased: the caller is about to write, so nobody may be labeling the whole of a part.

    Raises:
        UserError: the output has parts, or the output that it is a part of has labels of its own.
        LeaseError: another run writes to that output.
    """
    parts = parts_of(store)
    if parts:
        raise UserError(
            f"output.path: {store.path!r} holds the parts of a job that was split into {len(parts)}; run their job files, which"
            f" `split` wrote ({parts[0].name}.yaml, ...): `verify`, `status` and `report` take this one for all of them"
        )
    whole = store_of_whole(store)
    if whole is None:
        return
    if read_job(whole) is not None:
        raise UserError(
            f"output.path: {whole.path!r} holds labels of the whole input, whose documents {store.path!r} would have again; go"
            f" on with the job that was not split, or split it with another output.path"
        )
    if leased:
        check_free(whole)


def open_parts(store: Store, parts: Sequence[InputPart], *, allow_missing: bool = False) -> Labeled:
    """The parts that hold labels as one output, whose files have the parts' folders in their paths.

    Args:
        parts: of parts_of.
        allow_missing: parts may have no labels yet.

    Raises:
        UserError: a part has no labels; it is another one's, or of labels that differ in a setting, or of another input.
        OSError: the store cannot be read.
    """
    found: list[tuple[InputPart, Labeled]] = []
    missing: list[InputPart] = []
    for part in parts:
        one = store_of_part(store, part)
        ledger, record = read_ledger(one), read_job(one)
        if record is None:
            missing.append(part)
        else:
            found.append((part, Labeled(one, record, ledger)))
    if missing and not (allow_missing and found):
        names, have = some_shown([one.name for one in missing]), "has" if len(missing) == 1 else "have"
        raise UserError(
            f"{store.path!r} holds the labels of {len(found)} of {len(parts)} parts: {names} {have} none yet; run the job files"
            f" of these, or give the folder of a part"
        )
    for part, one in found:
        check_recorded_as(one, part)
        check_alike(found[0][1], one)
    commits: dict[str, Commit] = {}
    for part, one in found:
        # not by unit alone: two parts with the same rows would have the same units
        commits |= {f"{part.name}/{unit}": _below(part.name, commit) for unit, commit in one.ledger.current.items()}
    record = found[0][1].record
    config = {
        **record["config"],
        "input": {**record["config"]["input"], IGNORED: None},
        "output": {**record["config"]["output"], "path": store.path},
    }
    return Labeled(store, {**record, "config": config}, Ledger(commits), tuple(one for _, one in found))


def part_with(output: Labeled, path: str) -> InputPart | None:
    """The part of a split job that an input file is in; None for another output."""
    one = recorded_part(output.parts[0].record) if output.parts else None
    if one is None:
        return None
    return part_of_file(path, output.record["config"]["input"]["path"], one.of)


def check_recorded_as(output: Labeled, part: InputPart) -> None:
    """Raises UserError if the folder of a part holds something else, such as a copy of another part."""
    recorded = recorded_part(output.record)
    if recorded != part:
        raise UserError(
            f"{output.path!r} holds labels of {recorded or 'a whole input'}, not of {part}: its documents may be in the output"
            f" twice; delete it, or move it out of {shown(output.path.rpartition('/')[0])!r}"
        )


def check_alike(first: Labeled, other: Labeled) -> None:
    """Raises UserError if two parts were labeled with settings that change labels, or are of two inputs."""
    recorded, settings = first.record["settings"], other.record["settings"]
    differing = [
        f"{key} ({recorded.get(key)!r} and {settings.get(key)!r})"
        for key in sorted({*recorded, *settings})
        if recorded.get(key) != settings.get(key)
    ]
    inputs = [one.record["config"]["input"]["path"] for one in (first, other)]
    if inputs[0] != inputs[1]:
        differing.append(f"input.path ({inputs[0]!r} and {inputs[1]!r})")
    if differing:
        raise UserError(
            f"the parts {first.path!r} and {other.path!r} differ in {'; '.join(differing)}: their labels are not of one kind;"
            f" label one of the two again with the other's settings, into an empty folder"
        )


def check_like_other_parts(store: Store, record: dict[str, Any]) -> None:
    """Before the first commit of a part: raises UserError, as check_alike, if another part has labels of another kind.

    Args:
        store: of the part's output.
        record: that its `_job.json` will have; of a job that labels no part nothing is checked.
    """
    whole = store_of_whole(store)
    if recorded_part(record) is None or whole is None:
        return
    for other in map(part_named, whole.names_in("")):
        if other is not None and whole.join(other.name) != store.path:
            one = store_of_part(whole, other)
            recorded = read_job(one)
            if recorded is not None:  # it has been compared with those before it
                check_alike(Labeled(one, recorded, Ledger()), Labeled(store, record, Ledger()))
                return


def _below(folder: str, commit: Commit) -> Commit:
    """The commit with the paths of its files relative to the folder above."""

    def moved(file: WrittenFile) -> WrittenFile:
        return replace(file, path=f"{folder}/{file.path}")

    return replace(
        commit,
        files=tuple(map(moved, commit.files)),
        rejects_file=commit.rejects_file and moved(commit.rejects_file),
        misfits_file=commit.misfits_file and moved(commit.misfits_file),
    )
