"""Files that describe a data set and lie among its data: known by their names, and only where there is data beside them."""

from collections.abc import Mapping

# names of files of one JSON object each
DESCRIPTIONS = {
    "dataset_info.json",  # datasets: save_to_disk, and builders
    "dataset_infos.json",  # the hub, by older versions of datasets
    "dataset_dict.json",  # datasets: save_to_disk of several splits
    "dataset-metadata.json",  # Kaggle
    "datapackage.json",  # Frictionless
    "croissant.json",  # MLCommons
}
STATE, STATE_BESIDE = "state.json", "dataset_info.json"  # save_to_disk writes both; alone, a state may be anything
PAPERS = {"readme.txt", "license.txt", "licence.txt", "notice.txt", "copying.txt"}


def metadata_among(formats: Mapping[str, str]) -> set[str]:
    """The files that are metadata of the other ones; none where there are no others.

    Plain text is metadata by its name only beside data in another format.

    Args:
        formats: {path: format} of all files of a folder.
    """
    found = {path for path in formats if _name(path) in DESCRIPTIONS or _is_state(path, formats)}
    papers = {path for path in formats if _name(path) in PAPERS}
    data = formats.keys() - found - papers
    if any(formats[path] != "text" for path in data):
        return found | papers
    return found if data else set()


def _name(path: str) -> str:
    return path.rpartition("/")[2].lower()


def _is_state(path: str, formats: Mapping[str, str]) -> bool:
    folder, _, name = path.rpartition("/")
    return name == STATE and f"{folder}/{STATE_BESIDE}" in formats
