"""The side of the padding, by the kind of model."""

from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from pipeline_ops.models.padding_side import pads_left


def test_padding_of_all_kinds_of_encoder_decoders_is_on_the_right() -> None:
    configs = {kind: CONFIG_MAPPING[kind] for kind in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES}
    kinds = {kind for kind, config in configs.items() if getattr(config, "is_encoder_decoder", False)}
    assert kinds >= {"bart", "bigbird_pegasus", "mbart", "plbart", "t5"}
    assert [kind for kind in kinds for side in ("left", "right") if pads_left(configs[kind], side)] == []
