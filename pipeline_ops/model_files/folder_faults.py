"""What is wrong with a model's folder as a whole, from the names of its files: another framework's, pointers, several models.

FAULTS is an ordered list of small checks, each of which knows one kind of folder; the first that applies is the message.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline_ops.model_files.weight_files import INDEX, POINTER, WEIGHTS
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.paths import join
from pipeline_ops.storage.store import Store, StoredFile

MAX_POINTER_BYTES = 200  # Git LFS pointers have 120 to 140
CHECKPOINT = re.compile(r"checkpoint-(\d+)")  # folders that transformers' Trainer writes
SNAPSHOT = re.compile(r"snapshots/[0-9a-f]{40}")  # in the hub's cache of a model
PICKLED = (".bin", ".pt", ".pth", ".ckpt")  # what torch.save writes
# weights that neither torch nor safetensors wrote: (how a file's name ends, whose they are)
FOREIGN_WEIGHTS = (
    ("openvino_model.xml", "OpenVINO"),
    (".onnx", "ONNX"),
    (".gguf", "GGUF"),
    (".h5", "TensorFlow"),
    ("saved_model.pb", "TensorFlow"),
    (".msgpack", "Flax"),
    (".ot", "rust-bert"),
    (".mlmodel", "Core ML"),
)
# models of other libraries: (a file that only they have, what they are)
FOREIGN_MODELS = (
    ("config.cfg", "a spaCy pipeline"),
    (".ftz", "a fastText model"),
    (".joblib", "a model of scikit-learn"),
    (".pkl", "a pickled model, as scikit-learn's are"),
    ("model_index.json", "a pipeline of diffusers"),
)
FASTTEXT = bytes.fromhex("ba164f2f")  # the first bytes of a .bin of fastText
TRAIN = "fine-tune a sequence classifier (label-corpus train)"


@dataclass(frozen=True)
class Folder:
    """A model's folder, local or on object storage."""

    path: str  # as the job has it
    store: Store
    files: Mapping[str, StoredFile]  # by name
    allow_pickled_weights: bool
    allow_new_weights: bool

    def has(self, *names: str) -> bool:
        return any(name in self.files for name in names)

    def ending(self, *suffixes: str) -> list[str]:
        return [name for name in self.files if name.endswith(suffixes)]

    def read(self, name: str) -> bytes:
        (content,) = self.store.read_files([self.files[name]])
        return content

    def starts_with(self, name: str, first_bytes: bytes) -> bool:
        with self.store.open(self.files[name], sequential=False) as source:
            return source.read(len(first_bytes)) == first_bytes

    def below(self, name: str) -> str:
        """The path of a folder in it, as a user writes it."""
        return join(self.path, name)


def check_folder(path: str, store: Store, *, allow_pickled_weights: bool, allow_new_weights: bool) -> None:
    """Raises UserError for a folder that holds no model of transformers, or holds it in a way that cannot be loaded.

    Args:
        path: `model.path`, as the job has it.
        store: of that path.
    """
    files = {store.relative(file.path): file for file in store.list_all()}
    folder = Folder(path, store, files, allow_pickled_weights, allow_new_weights)
    for fault_of in FAULTS:
        fault = fault_of(folder)
        if fault is not None:
            raise UserError(f"model.path: {path!r} {fault}")


def _is_a_file(folder: Folder) -> str | None:
    if not folder.has(""):
        return None
    if folder.path.endswith((".zip", ".tar", ".gz", ".tgz", ".zst", ".xz")):
        return "is an archive; unpack it, and give the folder"
    return "is a file; give the folder that holds it, with its config.json and tokenizer"


def _is_empty(folder: Folder) -> str | None:
    return None if folder.files else "is empty: it holds no config.json; give a folder that save_pretrained wrote"


def _has_pointers(folder: Folder) -> str | None:
    small = [name for name, file in folder.files.items() if 0 < file.size < MAX_POINTER_BYTES and "/" not in name]
    pointers = [name for name in small if folder.starts_with(name, POINTER)]
    if not pointers:
        return None
    return (
        f"holds Git LFS pointers in place of files ({', '.join(pointers[:4])}); run `git lfs pull` in the clone that it is"
        " from, or download it again (hf download)"
    )


def _is_several_models(folder: Folder) -> str | None:
    """Of a folder without a config.json of its own: those below it."""
    if folder.has("config.json", "adapter_config.json"):
        return None
    below = {name.rpartition("/")[0] for name in folder.ending("/config.json", "/adapter_config.json")}
    checkpoints = {name: int(match[1]) for name in below if (match := CHECKPOINT.fullmatch(name))}
    if checkpoints:
        newest = max(checkpoints, key=lambda name: checkpoints[name])
        several = f"{len(checkpoints)} checkpoints" if len(checkpoints) > 1 else "a checkpoint"
        return f"holds {several} of a training and no model of its own; give one: {folder.below(newest)!r} is the newest"
    snapshots = sorted(name for name in below if SNAPSHOT.fullmatch(name))
    if snapshots:
        return f"is the hub's cache of a model; give the model's hub id, or {folder.below(snapshots[-1])!r}"
    models = sorted(name for name in below if folder.has(*(f"{name}/{file}" for file in (WEIGHTS, INDEX, "pytorch_model.bin"))))
    if models:
        more = f" and {len(models) - 1} more" if len(models) > 1 else ""
        return f"holds no config.json; folders below hold models: give {folder.below(models[0])!r}{more}"
    return None


def _is_of_another_library(folder: Folder) -> str | None:
    if folder.has("config.json", "adapter_config.json"):
        return None
    found = [(name, kind) for suffix, kind in FOREIGN_MODELS for name in folder.ending(suffix) if "/" not in name]
    found += [(name, "a fastText model") for name in folder.ending(".bin") if folder.starts_with(name, FASTTEXT)]
    if not found:
        return None
    name, kind = found[0]
    return f"holds {kind} ({name}), and no model of transformers (config.json); {TRAIN}, on its labels for example"


def _is_setfit(folder: Folder) -> str | None:
    if not folder.has("model_head.pkl"):
        return None
    return (
        "is a SetFit model: its head is a pickled one of scikit-learn (model_head.pkl), not a layer of the network; "
        f"{TRAIN} on the same examples"
    )


def _is_embedding_model(folder: Folder) -> str | None:
    """sentence-transformers' models that pool tokens; its CrossEncoders are sequence classifiers."""
    if folder.allow_new_weights or not folder.has("modules.json"):
        return None
    if b".Pooling" not in folder.read("modules.json") or not folder.has("config.json"):
        return None
    if b"ForSequenceClassification" in folder.read("config.json"):
        return None
    return (
        "is an embedding model of sentence-transformers, without a classification head: its labels would be random; "
        f"{TRAIN} from it, or set model.allow_new_weights"
    )


def _has_foreign_weights(folder: Folder) -> str | None:
    """Of a folder without weights of torch: those of other frameworks."""
    names = [name for name in folder.files if not name.endswith(".safetensors.index.json")]
    if any(name.endswith(".safetensors") or name.startswith("pytorch_model") for name in names):
        return None
    for suffix, framework in FOREIGN_WEIGHTS:
        found = sorted(folder.ending(suffix))
        if found:
            return (
                f"holds its weights as {framework} only ({found[0]}); give the PyTorch checkpoint that they were made from, in"
                f" safetensors ({WEIGHTS})"
            )
    return None


def _has_no_config(folder: Folder) -> str | None:
    if folder.has("config.json", "adapter_config.json"):
        return None
    return "holds no config.json; give a folder that save_pretrained wrote"


def _is_sharded_by_deepspeed(folder: Folder) -> str | None:
    if folder.has(WEIGHTS, INDEX, "pytorch_model.bin") or not folder.has("zero_to_fp32.py"):
        return None
    return f"holds a checkpoint of DeepSpeed; convert it: cd {folder.path}; python zero_to_fp32.py . . --safe_serialization"


def _has_no_safetensors(folder: Folder) -> str | None:
    if folder.has(WEIGHTS, INDEX, "adapter_config.json"):
        return None
    pickled = [name for name in folder.ending(*PICKLED) if "/" not in name and name != "training_args.bin"]
    loadable = folder.has("pytorch_model.bin", "pytorch_model.bin.index.json")
    if loadable and folder.allow_pickled_weights:
        return None
    if loadable:
        return (
            f"has no safetensors, but weights that can run code ({pickled[0]}): save it with save_pretrained, or set"
            " model.allow_pickled_weights if you trust it"
        )
    others = [name for name in folder.ending(".safetensors") if "/" not in name] or pickled
    if others:
        return f"has weights of another name ({others[0]}) than save_pretrained gives ({WEIGHTS}); save it with save_pretrained"
    return f"holds no weights ({WEIGHTS}); copy them there, or give a folder that save_pretrained wrote"


FAULTS: tuple[Callable[[Folder], str | None], ...] = (
    _is_a_file,
    _is_empty,
    _has_pointers,
    _is_several_models,
    _is_of_another_library,
    _is_setfit,
    _is_embedding_model,
    _has_foreign_weights,
    _has_no_config,
    _is_sharded_by_deepspeed,
    _has_no_safetensors,
)
