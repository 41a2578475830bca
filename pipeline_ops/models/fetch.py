"""Where a model's files are: the hub commit, a local copy of a folder on object storage, and the identity of the weights."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Sequence

from pipeline_ops.models.config import ModelConfig
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.paths import did_you_mean, is_local
from pipeline_ops.storage.store import Store, StoredFile

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".gguf", ".ot")


class HubUnreachable(UserError):
    """The hub cannot be reached, and the model is not in the local cache: whether there is such a model is not known."""


def is_hub_id(path: str) -> bool:
    """True if `path` is neither an existing local folder (or file) nor on object storage."""
    return is_local(path) and not os.path.exists(os.path.expanduser(path))


def local_copy(config: ModelConfig, storage: StorageConfig, *, weights: bool) -> str:
    """A path for from_pretrained: a hub id or local folder unchanged, a folder on object storage downloaded once per node.

    Args:
        weights: download the weights as well.

    Raises:
        UserError: the folder holds no config.json.
    """
    no_config = f"model.path: {config.path!r} holds no config.json; give a folder that save_pretrained wrote"
    if is_local(config.path):
        if is_hub_id(config.path):
            return config.path
        folder = os.path.abspath(os.path.expanduser(config.path))
        if not os.path.exists(os.path.join(folder, "config.json")):
            raise UserError(no_config)
        return folder
    files = Store(config.path, storage).list_all()
    if not any(file.path.endswith("/config.json") for file in files):
        raise UserError(no_config)
    if not weights:
        files = [file for file in files if not file.path.endswith(WEIGHT_SUFFIXES)]
    return downloaded(config.path, storage, files)


def downloaded(path: str, storage: StorageConfig, files: Sequence[StoredFile]) -> str:
    """A local folder with some files of a folder on object storage, downloaded once per node.

    A download goes to a temporary folder that is then renamed, so that other processes on the node see all of it or nothing.
    """
    listing = json.dumps([(file.path, file.identity, file.size) for file in files])
    target = os.path.join(os.path.expanduser(storage.cache_folder), "models", hashlib.sha256(listing.encode()).hexdigest()[:32])
    if not os.path.isdir(target):
        partial = f"{target}.{uuid.uuid4().hex}"
        try:
            for file in files:
                target_path = os.path.join(partial, file.path.removeprefix(path.rstrip("/")).lstrip("/"))
                os.makedirs(os.path.dirname(target_path), exist_ok=True)
                (content,) = Store(path, storage).read_files([file])
                with open(target_path, "xb") as copy:
                    copy.write(content)
            os.rename(partial, target)
        except OSError:
            if not os.path.isdir(target):  # else another process was first; its copy is the same
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return target


def model_file(folder: str, name: str, revision: str | None) -> str | None:
    """Local path of a small file of a model; None: there is none, or none in the cache of a hub that cannot be reached.

    Args:
        folder: what local_copy returns.
    """
    if os.path.isdir(folder):
        path = os.path.join(folder, name)
        return path if os.path.isfile(path) else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return hf_hub_download(folder, name, revision=revision)
    except EntryNotFoundError:
        return None


def hub_commit(config: ModelConfig) -> str:
    """The commit of `model.path` at `model.revision` on the hub, or in the local cache if the hub cannot be reached.

    Raises:
        UserError: there is no such model or revision, or it may not be read.
        HubUnreachable: it is in neither place.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return str(HfApi().model_info(config.path, revision=config.revision, timeout=10).sha)
    except HFValidationError as error:
        raise UserError(_no_folder(config.path)) from error
    except HfHubHTTPError as error:
        what = str(error).strip().splitlines()[-1]
        message = f"model.path: {config.path!r} at revision {config.revision or 'main'!r}: {what}"
        if _may_be_a_folder(config.path):
            message = _no_folder(config.path, f", and no such model on the hub ({what})")
        raise UserError(message) from error
    except Exception as error:  # not reachable; the HTTP library that raises depends on the huggingface_hub version
        for name in ("config.json", "adapter_config.json"):
            cached = try_to_load_from_cache(config.path, name, revision=config.revision)
            if isinstance(cached, str):
                return os.path.basename(os.path.dirname(cached))  # snapshots/<commit>/config.json
        unknown = f"the hub cannot be reached to look for it ({type(error).__name__})"
        if _may_be_a_folder(config.path):
            raise UserError(_no_folder(config.path, f", and {unknown}")) from error
        raise HubUnreachable(
            f"model.path: {config.path!r} is no existing folder, and {unknown}; it is not in the local cache either"
        ) from error


def _no_folder(path: str, further: str = "") -> str:
    remedy = did_you_mean(path) or "; run `label-corpus train` first, or give a hub id (user/name)"
    return f"model.path: no such folder {path!r}{further}{remedy}"


def _may_be_a_folder(path: str) -> bool:
    """Whether a name that could be a hub id reads as the path of a folder: a name alone, or one in an existing folder."""
    return os.path.isdir(os.path.dirname(os.path.expanduser(path)) or ".")


def model_identity(config: ModelConfig, storage: StorageConfig) -> str:
    """Of a model's weights: its commit on the hub, which config.revision is, or else weights_identity of its folder."""
    return f"hub:{config.revision}" if is_hub_id(config.path) else weights_identity(config.path, storage)


def weights_identity(path: str, storage: StorageConfig) -> str:
    """SHA-256 of a folder's weight files: of names and bytes in a local folder, of names, sizes and etags on object storage."""
    digest = hashlib.sha256()
    for file in Store(path, storage).list_all():
        if file.path.endswith(WEIGHT_SUFFIXES):
            digest.update(os.path.basename(file.path).encode())
            if is_local(path):
                with open(file.path, "rb") as weights:
                    digest.update(hashlib.file_digest(weights, "sha256").digest())
            else:
                digest.update(f"{file.size} {file.identity}".encode())
    return "sha256:" + digest.hexdigest()
