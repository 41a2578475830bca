"""Model folders that cannot be used as they lie are refused in one line that names the fault and the remedy, by files alone."""

import re
import shutil
from pathlib import Path

import pytest
import torch

from pipeline_ops.models.config import ModelConfig
from pipeline_ops.models.resolve import resolve_model
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.config import StorageConfig
from tests.models.folders import STORAGE, facts_of, upload
from tests.models.strange_folders import STRANGE
from tests.models.strange_weights import change_tensors

TORCH = r"give the PyTorch checkpoint .* safetensors"
POINTER = r"Git LFS pointers .*\({}\); run `git lfs pull`"
TRAIN = r"label-corpus train"
RENAME = r"model\.id2label='\{"
# what is said of a folder, behind its path: (the fault, then the remedy)
REFUSED = {
    "onnx": r"as ONNX only \(model\.onnx\); " + TORCH,
    "onnx below": r"as ONNX only \(onnx/model\.onnx\); " + TORCH,
    "tensorflow": r"as TensorFlow only \(tf_model\.h5\); " + TORCH,
    "flax": r"as Flax only \(flax_model\.msgpack\); " + TORCH,
    "gguf": r"as GGUF only \(classifier-q8_0\.gguf\); " + TORCH,
    "gguf alone": r"as GGUF only \(classifier-q8_0\.gguf\); " + TORCH,
    "openvino": r"as OpenVINO only \(openvino_model\.xml\); " + TORCH,
    "rust": r"as rust-bert only \(rust_model\.ot\); " + TORCH,
    "lightning": r"weights of another name \(epoch=3-step=500\.ckpt\).*save_pretrained",
    "pickled": r"weights that can run code \(pytorch_model\.bin\).*model\.allow_pickled_weights",
    "no weights": r"holds no weights \(model\.safetensors\)",
    "deepspeed": r"checkpoint of DeepSpeed; .*zero_to_fp32\.py",
    "pointer weights": POINTER.format(r"model\.safetensors"),
    "pointer config": POINTER.format(r"config\.json"),
    "pointer tokenizer": POINTER.format(r"tokenizer\.json"),
    "pointer tokenizer config": POINTER.format(r"tokenizer_config\.json"),
    "shard is a pointer": POINTER.format(r"model-00002-of-00002\.safetensors"),
    "shard missing": r"model-00002-of-00002\.safetensors is missing, of the 2 files",
    "three labels, head of two": r"head of 2 outputs \(classifier\.weight\).* has 3 labels.*give it 2 names",
    "labels from 1": r"the ids 1, 2 in id2label.*counts from 0 to 1.*" + RENAME,
    "labels with a gap": r"the ids 0, 2 in id2label.*counts from 0 to 1.*" + RENAME,
    "num_labels differs": r"num_labels 3 and 2 names in id2label.*" + RENAME,
    "two labels of one name": r"labels 0, 1 of the model are all called 'toxic'.*" + RENAME + "0: NAME, 1: NAME",
    "labels that are null": r"None as the name of label 0.*" + RENAME,
    "label of no characters": r"'' as the name of label 0.*" + RENAME,
    "labels in a list": r"no names by id in id2label.*correct it to \{\"0\": NAME",
    "labels by name": r"no names by id in id2label.*'NEGATIVE'.*correct it to \{\"0\": NAME",
    "quantized by bitsandbytes 8 bit": r"quantized by bitsandbytes.*pip install bitsandbytes .*before quantization",
    "quantized by bitsandbytes 4 bit": r"quantized by bitsandbytes.*pip install bitsandbytes .*before quantization",
    "quantized by gptq": r"quantized by gptq.*pip install optimum gptqmodel ",
    "quantized by awq": r"quantized by awq.*pip install gptqmodel ",
    "quantized by torchao": r"quantized by torchao.*pip install torchao ",
    "quantized by compressed-tensors": r"quantized by compressed-tensors.*pip install compressed-tensors ",
    "quantized by quanto": r"quantized by quanto.*pip install optimum-quanto ",
    "quantized by hqq": r"quantized by hqq.*pip install hqq ",
    "quantized by a method to come": r"quantized by qqq9, which is unknown",
    "quantized by no method": r"a method that its config\.json does not name.*before quantization",
    "unknown pre-tokenizer": r"PreTokenizer in its tokenizer\.json.*pip install -U tokenizers",
    "tokenizer cut": r"tokenizer\.json is cut or damaged .*again",
    "unknown kind": r"bertzilla model, written by transformers 9\.1\.0, which transformers [\d.]+ .*pip install -U transf",
    "no kind": r"no model_type; give a folder",
    "config cut": r"configuration .*config\.json.*; give a folder",
    "config of another type": r"configuration .*'hidden_size' expected int",
    "remote code": r"my_kind model of Python code.*model\.trust_remote_code: true, which runs it",
    "mixin": r"PyTorchModelHubMixin.*'microsoft/deberta-v3-base'.*" + TRAIN,
    "sentence embeddings": r"embedding model of sentence-transformers.*" + TRAIN,
    "setfit": r"SetFit model.*model_head\.pkl.*" + TRAIN,
    "without head": r"is a BertModel, and has no trained classification head.*" + TRAIN,
    "masked language model": r"is a BertForMaskedLM, and has no trained classification head.*" + TRAIN,
    "causal language model": r"is a GPT2LMHeadModel, and has no trained classification head.*" + TRAIN,
    "token classifier": r"is a BertForTokenClassification, which labels tokens, not texts; .*" + TRAIN,
    "spacy": r"a spaCy pipeline \(config\.cfg\).*" + TRAIN,
    "fasttext": r"a fastText model \(lid\.bin\).*" + TRAIN,
    "scikit-learn": r"scikit-learn \(model\.joblib\).*" + TRAIN,
    "diffusers": r"diffusers \(model_index\.json\)",
    "notes alone": r"holds no config\.json; give a folder",
    "output of a training": r"3 checkpoints of a training.*give one: '.*/checkpoint-1000' is the newest",
    "weights as path": r"is a file; give the folder",
    "archive as path": r"is an archive; unpack it",
    "empty": r"is empty: it holds no config\.json; give a folder",
    "mistyped": r"no such folder.*did you mean '.*/model'\?",
    "hub cache": r"the hub's cache of a model; give .*'.*/snapshots/0{40}'",
    "in a folder below": r"holds no config\.json; .*'.*/parent/best'",
    "weights cut": r"model\.safetensors is cut: [\d,]+ bytes of [\d,]+; copy",
    "weights cut in their header": r"model\.safetensors is cut: 500 bytes, and its header alone has [\d,]+; copy",
    "weights empty": r"model\.safetensors is empty; copy",
    "weights of another format": r"model\.safetensors is a web page; copy",
    "weights in float8": r"weights of dtype F8_E4M3 \(.*\) and no quantization_config",
    "weights in int8": r"weights of dtype I8 \(.*\) and no quantization_config",
}
WRAPPED = {
    "compiled": r"from within torch\.compile: _orig_mod\. is removed",
    "layers compiled": r"from within torch\.compile: _orig_mod\. is removed",
    "data parallel": r"DistributedDataParallel: module\. is removed",
    "lightning keys": r"LightningModule: model\. is removed",
    "compiled in parallel": r"torch\.compile and DataParallel .*: _orig_mod\. and module\. is removed",
}
REMARKED = WRAPPED | {
    "label ids that differ": r"id2label and label2id .* contradict .*'NEGATIVE' has the id 1",
    "tokens beyond the embeddings": r"embeddings for [\d,]+: documents with '<extra0>', '<extra1>', '<extra2>' are rejected",
}


@pytest.mark.parametrize("name", REFUSED)
def test_folder_is_refused_in_one_line_that_names_fault_and_remedy(copy: Path, name: str) -> None:
    path = STRANGE[name](copy)
    with pytest.raises(UserError) as caught:
        facts_of(path)
    message = str(caught.value)
    assert message.startswith("model.path: ")
    assert re.search(REFUSED[name], message), message
    assert "\n" not in message
    assert len(message) < 600


@pytest.mark.parametrize(
    "name", ["onnx", "pointer weights", "gguf alone", "output of a training", "weights cut", "shard missing"]
)
def test_folder_on_an_object_store_is_refused_with_the_same_words(copy: Path, caching: StorageConfig, name: str) -> None:
    folder = STRANGE[name](copy)
    url = upload(folder, f"memory://{copy.parent.name}/{name}")
    with pytest.raises(UserError, match=REFUSED[name]):
        facts_of(url, caching)


@pytest.mark.parametrize("name", REMARKED)
def test_folder_that_works_with_a_remark_says_so(copy: Path, name: str) -> None:
    resolved = resolve_model(ModelConfig(path=str(STRANGE[name](copy))), STORAGE)
    assert resolved.facts.head.labels == ("NEGATIVE", "POSITIVE")
    (remark,) = resolved.remarks
    assert re.search(REMARKED[name], remark), remark


def test_usual_folder_has_no_remark(model: Path) -> None:
    assert resolve_model(ModelConfig(path=str(model)), STORAGE).remarks == ()


@pytest.mark.parametrize("name", ["labels from 1", "labels that are null", "two labels of one name", "label of no characters"])
def test_labels_that_the_job_names_are_those(copy: Path, name: str) -> None:
    assert facts_of(STRANGE[name](copy), id2label={0: "bad", "1": "good"}).head.labels == ("bad", "good")


def test_labels_that_are_numbers_are_their_texts(copy: Path) -> None:
    assert facts_of(STRANGE["labels that are numbers"](copy)).head.labels == ("1", "5")


def test_masks_in_whole_numbers_are_no_weights(copy: Path) -> None:
    """Older GPT-2 checkpoints hold their causal masks."""
    folder = change_tensors(copy, lambda name, tensor: tensor.to(torch.uint8) if name.endswith("LayerNorm.bias") else tensor)
    assert facts_of(folder).head.labels == ("NEGATIVE", "POSITIVE")


def test_embedding_model_with_a_new_head_is_allowed_by_name(copy: Path) -> None:
    shutil.rmtree(STRANGE["sentence embeddings"](copy) / "1_Pooling")
    assert facts_of(copy, allow_new_weights=True).head.labels == ("LABEL_0", "LABEL_1")
