"""The settings of a training."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class TrainingConfig(BaseModel):
    """How the classifier is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: float = Field(default=3, gt=0, description="passes over the training documents; 3 is usual for fine-tuning")
    max_steps: int | None = Field(
        default=None, ge=1, description="stop after this many batches, to bound the time; null: by epochs"
    )
    learning_rate: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        default="auto",
        description="peak; auto: 5e-5 for a checkpoint; for new weights 1e-3, less for models wider than 256; for the head of a"
        " frozen encoder 3e-3",
    )
    freeze: Literal["encoder"] | Annotated[int, Field(strict=True, ge=1)] | None = Field(
        default=None,
        description="encoder: all layers stay as they are and run once over the documents, only the head is trained; a number:"
        " so many of the lowest layers stay, with the embeddings; null: all is trained",
    )
    batch_size: int = Field(
        default=32, ge=1, description="documents per step and device; a larger batch needs a larger learning_rate"
    )
    max_length: int | None = Field(
        default=None,
        ge=8,
        description="tokens per document, the rest is cut; stored as the model's max_length; null: 256, or the model's limit if"
        " that is less",
    )
    warmup_share: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="share of the steps in which the learning rate rises from 0, as a new head's first gradients are large",
    )
    weight_decay: float = Field(default=0.01, ge=0, description="AdamW's; 0.01 as in BERT")
    class_weights: Literal["balanced"] | None = Field(
        default=None,
        description="balanced: a label's documents count in inverse proportion to their number, so that rare labels are not"
        " given up; null: each document counts the same",
    )
    held_out_share: float = Field(
        default=0.1, gt=0, lt=1, description="share of each label's documents that only measures accuracy"
    )
    max_documents: int = Field(
        default=200_000, ge=2, description="only the first ones are used: texts and ids are held in memory"
    )
    seed: int = Field(default=0, ge=0, description="seed of the split, the new weights and the order of the documents")
    save_minutes: float | None = Field(
        default=10,
        ge=0,
        description="minutes between checkpoints, from which the same command continues; 0 or null: never",
    )
