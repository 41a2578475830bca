"""Long documents as windows of tokens: the settings, and which rows are windows of which document."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipeline_ops.schema.errors import UserError

Aggregate = Literal["mean", "max", "first"]


class LongDocumentsConfig(BaseModel):
    """How documents longer than max_length are labeled; part of the keys `model.*`."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    long_documents: Literal["truncate", "windows"] = Field(
        default="truncate", description="truncate: label what max_length leaves of them; windows: all of it, piece by piece"
    )
    stride: int | None = Field(
        default=None, ge=0, description="windows: tokens that one has in common with the next, 0 unless set"
    )
    max_windows: int | None = Field(default=None, ge=1, description="windows of a document at the most; default: all")
    aggregate: Aggregate | None = Field(default=None, description="windows' answers -> the document's; mean unless set")
    aggregate_on: Literal["logits", "scores"] | None = Field(
        default=None, description="what of the windows is aggregated; logits unless set"
    )


@dataclass(frozen=True)
class Windows:
    """LongDocumentsConfig for windows, with its defaults filled in."""

    stride: int
    max_windows: int | None
    aggregate: Aggregate
    aggregate_on: Literal["logits", "scores"]


def resolve_windows(config: LongDocumentsConfig, room: int, pairs: bool) -> Windows | None:
    """The resolved settings of windows; None if long documents are truncated.

    Args:
        room: the most tokens of text in a sequence, special tokens not counted.
        pairs: documents are pairs of texts.

    Raises:
        UserError: a setting of windows without windows, or a stride that leaves no step from one window to the next.
    """
    if config.long_documents == "truncate":
        for key in ("stride", "max_windows", "aggregate", "aggregate_on"):
            value = getattr(config, key)
            if value is not None:
                raise UserError(f"model.{key}: {value!r} is for windows; set model.long_documents: windows, or leave it out")
        return None
    stride = config.stride or 0
    smallest = (room + 1) // 2 if pairs else room  # the other text of a pair may take half the room
    if stride >= smallest:
        raise UserError(
            f"model.stride: {stride} is not less than the {smallest} tokens of text in a window; give less than {smallest}"
        )
    return Windows(stride, config.max_windows, config.aggregate or "mean", config.aggregate_on or "logits")


def documents_of_windows(rows: Iterable[int], windows: np.ndarray) -> list[int]:
    """The row of the document that each window belongs to.

    Args:
        rows: of windows.
        windows: int32 (documents,), windows per document.
    """
    return np.searchsorted(np.cumsum(windows), list(rows), side="right").tolist()


def window_settings(windows: Windows | None) -> dict[str, Any]:
    """The settings that results depend on, by config key; empty if long documents are truncated."""
    return (
        {} if windows is None else {"model.long_documents": "windows"} | {f"model.{k}": v for k, v in asdict(windows).items()}
    )
