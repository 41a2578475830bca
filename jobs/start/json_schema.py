"""`label-corpus schema`: the JSON Schema of the job or training file, for completion and checks in editors.

Generated from the pydantic models. Constraints between settings, and those that depend on the model, are checked by
`label-corpus plan` only.
"""

from typing import Any, Literal

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema_of(kind: Literal["job", "train"]) -> dict[str, Any]:
    """The JSON Schema of the job file or the training file."""
    from jobs.config import JobConfig
    from jobs.start.train import TrainConfig

    model = JobConfig if kind == "job" else TrainConfig
    return {"$schema": DIALECT, **model.model_json_schema()}
