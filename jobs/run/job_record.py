"""Content of _job.json."""

import base64
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from jobs.run.fingerprint import fingerprint, result_settings
from jobs.run.prepare import FOLDER_COLUMNS, Prepared
from pipeline_ops.models.config import with_dtypes
from pipeline_ops.models.model_card import card_of


def job_record(prepared: Prepared, dtypes: Sequence[str], run: str) -> dict[str, Any]:
    """The content of `_job.json`. The job file holds no secrets, so neither does this.

    Args:
        dtypes: of the models, as probe_models returns them.
    """
    models = with_dtypes(prepared.models, dtypes)
    settings = result_settings(prepared.job, models)
    return {
        "fingerprint": fingerprint(settings),
        "settings": settings,
        "config": prepared.job.to_dict(),
        "models": {
            model.name: {
                **model.facts.to_dict(),
                "dtype": model.dtype,
                "output": model.output.model_dump(mode="json"),
                "card": card_of(model.config, prepared.job.storage),
            }
            for model in models
        },
        "column_types": base64.b64encode(prepared.column_types.serialize().to_pybytes()).decode(),
        **({FOLDER_COLUMNS: True} if prepared.folder_columns else {}),
        **({"input_table": prepared.table.to_dict()} if prepared.table is not None else {}),
        "versions": {name: version(name) for name in ("label-corpus", "ray", "torch", "transformers", "pyarrow")},
        **({"trial": {"limit": prepared.limit}} if prepared.limit is not None else {}),
        "run": run,
    }
