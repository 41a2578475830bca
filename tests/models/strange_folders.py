"""Model folders as they are met and do not work as they lie: each function changes a whole classifier's folder into one.

All take the folder of a tiny BERT with the labels NEGATIVE and POSITIVE, change it, and return what a user would give as
`model.path`. STRANGE has them by name.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from tests.models.folders import change_json
from tests.models.strange_weights import (
    LFS_POINTER,
    WEIGHTS,
    head_of_another_name,
    layers_compiled,
    layers_missing,
    rename_tensors,
    shard_is_a_pointer,
    shard_missing,
    weights_cut,
    weights_cut_in_their_header,
    weights_empty,
    weights_in_float8,
    weights_in_int8,
    weights_of_another_format,
    weights_of_float16_overflown,
    weights_with_nan,
)

Change = Callable[[Path], Path]


def _weights_are(*names: str) -> Change:
    """The weights are files of these names only."""

    def change(folder: Path) -> Path:
        (folder / WEIGHTS).unlink()
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"\x08\x07\x12weights")
        return folder

    return change


def _files_are(*names: str) -> Change:
    """The folder holds files of these names only, each with an empty JSON object."""

    def change(folder: Path) -> Path:
        shutil.rmtree(folder)
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True, parents=True)
            (folder / name).write_text("{}")
        folder.mkdir(exist_ok=True)
        return folder

    return change


def _pointer(name: str) -> Change:
    def change(folder: Path) -> Path:
        (folder / name).write_text(LFS_POINTER)
        return folder

    return change


def _config(**values: Any) -> Change:
    """config.json with other values; None leaves a key out."""

    def change(folder: Path) -> Path:
        change_json(folder / "config.json", **values)
        return folder

    return change


def _prefixed(prefix: str) -> Change:
    """Names of all tensors begin with the prefix."""

    def change(folder: Path) -> Path:
        return rename_tensors(folder, lambda name: prefix + name)

    return change


def _tokenizer(**values: Any) -> Change:
    def change(folder: Path) -> Path:
        change_json(folder / "tokenizer.json", **values)
        return folder

    return change


def tokenizer_is_cut(folder: Path) -> Path:
    path = folder / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:2000])
    return folder


def tokenizer_of_unknown_class(folder: Path) -> Path:
    """Whose files are the ones of that class, too: tokenizer.json is not written by all."""
    change_json(folder / "tokenizer_config.json", tokenizer_class="MyOwnTokenizer")
    return folder


def tokens_beyond_the_embeddings(folder: Path) -> Path:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    content["added_tokens"] += [
        {"id": size + n, "content": f"<extra{n}>", "special": True}
        | {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        for n in range(3)
    ]
    path.write_text(json.dumps(content))
    return folder


def no_number_in_the_config_is_right(folder: Path) -> Path:
    (folder / "config.json").write_text('{"model_type": "bert", "hidden_size": ')
    return folder


def remote_code_of_an_unknown_kind(folder: Path) -> Path:
    code = {"AutoConfig": "configuration_my.MyConfig", "AutoModelForSequenceClassification": "modeling_my.MyClassifier"}
    change_json(folder / "config.json", model_type="my_kind", auto_map=code)
    (folder / "configuration_my.py").write_text(
        "from transformers import BertConfig\n\nclass MyConfig(BertConfig):\n    model_type = 'my_kind'\n"
    )
    (folder / "modeling_my.py").write_text(
        "from transformers import BertForSequenceClassification\nfrom .configuration_my import MyConfig\n\n"
        "class MyClassifier(BertForSequenceClassification):\n    config_class = MyConfig\n"
    )
    return folder


def mixin_classifier(folder: Path) -> Path:
    """As nvidia/quality-classifier-deberta: a base model by its name, a dropout and a linear layer on its tokens' states."""
    config = {
        "base_model": "microsoft/deberta-v3-base",
        "fc_dropout": 0.2,
        "id2label": {"0": "High", "1": "Medium", "2": "Low"},
        "label2id": {"High": 0, "Medium": 1, "Low": 2},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return rename_tensors(
        folder, lambda name: "model." + name.removeprefix("bert.") if "classifier" not in name else "fc.x" + name
    )


def sentence_embeddings(folder: Path) -> Path:
    (folder / "modules.json").write_text(
        '[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},'
        ' {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]'
    )
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    return without_head(folder)


def setfit(folder: Path) -> Path:
    sentence_embeddings(folder)
    (folder / "model_head.pkl").write_bytes(b"\x80\x04")
    (folder / "config_setfit.json").write_text('{"labels": ["negative", "positive"], "normalize_embeddings": false}')
    return folder


def without_head(folder: Path) -> Path:
    """A bare encoder."""
    change_json(folder / "config.json", architectures=["BertModel"], id2label=None, label2id=None)
    tensors = load_file(folder / WEIGHTS)
    body = {name.removeprefix("bert."): tensor for name, tensor in tensors.items() if name.startswith("bert.")}
    save_file(body, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def masked_language_model(folder: Path) -> Path:
    without_head(folder)
    change_json(folder / "config.json", architectures=["BertForMaskedLM"])
    return rename_tensors(folder, lambda name: "bert." + name)


def causal_language_model(folder: Path) -> Path:
    """A decoder's folder, as far as its files say: GPT-2's names."""
    import torch

    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 2000, "n_embd": 8, "n_layer": 1}
    (folder / "config.json").write_text(json.dumps(config | {"n_head": 1, "n_positions": 128}))
    save_file({"transformer.wte.weight": torch.zeros(2000, 8)}, folder / WEIGHTS)
    return folder


def fasttext(folder: Path) -> Path:
    """As lid.176.bin lies: its first bytes are fastText's magic number."""
    _files_are("README.md")(folder)
    (folder / "lid.bin").write_bytes(bytes.fromhex("ba164f2f0c000000"))
    return folder


def output_of_a_training(folder: Path) -> Path:
    """Of transformers' Trainer: checkpoints alone, of which the last has the greatest number, not the last name."""
    whole = folder.with_name("whole")
    folder.rename(whole)
    for step in (500, 1000, 9):
        shutil.copytree(whole, folder / f"checkpoint-{step}")
    shutil.rmtree(whole)
    return folder


def weights_as_path(folder: Path) -> Path:
    return folder / WEIGHTS


def archive_as_path(folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder), "gztar", folder))


def mistyped(folder: Path) -> Path:
    return folder.with_name(folder.name[:-1] + "k")


def hub_cache(folder: Path) -> Path:
    """The hub's cache of one model: the snapshot is two folders below."""
    cached = folder.with_name("models--some--classifier")
    (cached / "blobs").mkdir(parents=True)
    (cached / "snapshots").mkdir()
    folder.rename(cached / "snapshots" / ("0" * 40))
    return cached


def model_in_a_folder_below(folder: Path) -> Path:
    parent = folder.with_name("parent")
    parent.mkdir()
    folder.rename(parent / "best")
    return parent


def layers_too_many(folder: Path) -> Path:
    """Weights of two layers, a configuration of one."""
    return _config(num_hidden_layers=1)(folder)


def width_of_another_model(folder: Path) -> Path:
    return _config(hidden_size=64)(folder)


STRANGE: dict[str, Change] = {
    "onnx": _weights_are("model.onnx"),
    "onnx below": _weights_are("onnx/model.onnx", "onnx/model_quantized.onnx"),
    "tensorflow": _weights_are("tf_model.h5"),
    "flax": _weights_are("flax_model.msgpack"),
    "gguf": _weights_are("classifier-q8_0.gguf"),
    "gguf alone": _files_are("classifier-q8_0.gguf"),
    "openvino": _weights_are("openvino_model.xml", "openvino_model.bin"),
    "rust": _weights_are("rust_model.ot"),
    "lightning": _weights_are("epoch=3-step=500.ckpt"),
    "pickled": _weights_are("pytorch_model.bin"),
    "no weights": _weights_are(),
    "deepspeed": _weights_are("zero_to_fp32.py", "global_step500/mp_rank_00_model_states.pt", "latest"),
    "pointer weights": _pointer(WEIGHTS),
    "pointer config": _pointer("config.json"),
    "pointer tokenizer": _pointer("tokenizer.json"),
    "pointer tokenizer config": _pointer("tokenizer_config.json"),
    "shard is a pointer": shard_is_a_pointer,
    "compiled": _prefixed("_orig_mod."),
    "layers compiled": layers_compiled,
    "data parallel": _prefixed("module."),
    "lightning keys": _prefixed("model."),
    "compiled in parallel": _prefixed("module._orig_mod."),
    "three labels, head of two": _config(id2label={"0": "a", "1": "b", "2": "c"}, label2id={"a": 0, "b": 1, "c": 2}),
    "labels from 1": _config(id2label={"1": "NEGATIVE", "2": "POSITIVE"}, label2id={"NEGATIVE": 1, "POSITIVE": 2}),
    "labels with a gap": _config(id2label={"0": "NEGATIVE", "2": "POSITIVE"}, label2id={"NEGATIVE": 0, "POSITIVE": 2}),
    "num_labels differs": _config(num_labels=3),
    "num_labels alone": _config(id2label=None, label2id=None, num_labels=2),
    "two labels of one name": _config(id2label={"0": "toxic", "1": "toxic"}, label2id={"toxic": 1}),
    "labels that are numbers": _config(id2label={"0": 1, "1": 5}, label2id={"1": 0, "5": 1}),
    "labels that are null": _config(id2label={"0": None, "1": "POSITIVE"}, label2id={"POSITIVE": 1}),
    "labels in a list": _config(id2label=["NEGATIVE", "POSITIVE"]),
    "labels by name": _config(id2label={"NEGATIVE": 0, "POSITIVE": 1}),
    "label ids alone": _config(id2label=None, label2id={"NEGATIVE": 0, "POSITIVE": 1}),
    "label ids that differ": _config(label2id={"NEGATIVE": 1, "POSITIVE": 0}),
    "label of no characters": _config(id2label={"0": "", "1": "POSITIVE"}, label2id={"": 0, "POSITIVE": 1}),
    **{
        f"quantized by {name}": _config(quantization_config=settings)
        for name, settings in {
            "bitsandbytes 8 bit": {"load_in_8bit": True, "quant_method": "bitsandbytes"},
            "bitsandbytes 4 bit": {"load_in_4bit": True, "quant_method": "bitsandbytes", "bnb_4bit_quant_type": "nf4"},
            "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128},
            "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True},
            "fp8": {"quant_method": "fp8", "activation_scheme": "dynamic"},
            "torchao": {"quant_method": "torchao", "quant_type": "int8_weight_only"},
            "compressed-tensors": {"quant_method": "compressed-tensors", "format": "int-quantized", "config_groups": {}},
            "quanto": {"quant_method": "quanto", "weights": "int8"},
            "hqq": {"quant_method": "hqq", "quant_config": {}},
            "mxfp4": {"quant_method": "mxfp4"},
            "a method to come": {"quant_method": "qqq9"},
            "no method": {"bits": 4},
        }.items()
    },
    "unknown pre-tokenizer": _tokenizer(pre_tokenizer={"type": "FutureSplit", "behavior": "Isolated"}),
    "tokenizer cut": tokenizer_is_cut,
    "tokenizer of unknown class": tokenizer_of_unknown_class,
    "tokens beyond the embeddings": tokens_beyond_the_embeddings,
    "unknown kind": _config(model_type="bertzilla", transformers_version="9.1.0"),
    "no kind": _config(model_type=None, architectures=None),
    "config cut": no_number_in_the_config_is_right,
    "config of another type": _config(hidden_size="thirty-two"),
    "remote code": remote_code_of_an_unknown_kind,
    "mixin": mixin_classifier,
    "sentence embeddings": sentence_embeddings,
    "setfit": setfit,
    "without head": without_head,
    "masked language model": masked_language_model,
    "token classifier": _config(architectures=["BertForTokenClassification"]),
    "causal language model": causal_language_model,
    "spacy": _files_are("meta.json", "config.cfg", "textcat/model", "vocab/strings.json"),
    "fasttext": fasttext,
    "scikit-learn": _files_are("model.joblib", "vectorizer.joblib"),
    "diffusers": _files_are("model_index.json", "unet/config.json"),
    "notes alone": _files_are("README.md", "notes.txt"),
    "output of a training": output_of_a_training,
    "weights as path": weights_as_path,
    "archive as path": archive_as_path,
    "empty": _files_are(),
    "mistyped": mistyped,
    "hub cache": hub_cache,
    "in a folder below": model_in_a_folder_below,
    "shard missing": shard_missing,
    "weights cut": weights_cut,
    "weights cut in their header": weights_cut_in_their_header,
    "weights empty": weights_empty,
    "weights of another format": weights_of_another_format,
    "weights in float8": weights_in_float8,
    "weights in int8": weights_in_int8,
    "weights with NaN": weights_with_nan,
    "weights with infinity": weights_of_float16_overflown,
    "layers missing": layers_missing,
    "layers too many": layers_too_many,
    "width of another model": width_of_another_model,
    "head of another name": head_of_another_name,
}
