"""`label-corpus schema`: the JSON Schema of the job or training file, for editors that complete keys and check values.

It follows from the pydantic models, so it says what they accept. It cannot say all that they refuse: which settings need each
other, or which labels a model has, is found by `label-corpus plan`.
"""

from typing import Any, Literal

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema_of(kind: Literal["job", "train"]) -> dict[str, Any]:
    """The JSON Schema of a file of that kind."""
    from jobs.config import JobConfig
    from jobs.start.train import TrainConfig

    model = JobConfig if kind == "job" else TrainConfig
    return {"$schema": DIALECT, **model.model_json_schema()}
