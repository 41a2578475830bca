"""The review as one HTML file: no server and no network, keys and buttons, progress in the browser, export as JSON Lines.

Texts and labels are untrusted. They are in the page as JSON only, from which the script makes text nodes, and the page's
Content-Security-Policy lets no other script run.
"""

import json
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from typing import Any

from jobs.report.html import render
from jobs.reviewing.documents import Sample


def page_of(sample: Sample, file_name: str) -> bytes:
    """The page's content.

    Args:
        file_name: of the page, without suffix; the export is called so.
    """
    # as a browser hashes it, which reads \r\n as \n
    script = files("jobs.reviewing").joinpath("templates/review.js").read_text(encoding="utf-8").replace("\r\n", "\n")
    page = render(
        "review.html.j2",
        package="jobs.reviewing",
        sample=sample,
        data=_in_html(_facts(sample, file_name)),
        script=script,
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
    )
    return page.encode(errors="replace")


def _facts(sample: Sample, file_name: str) -> dict[str, Any]:
    sources = {path: number for number, path in enumerate(dict.fromkeys(one.source_file for one in sample.reviewed))}
    strata = {stratum.name: number for number, stratum in enumerate(sample.strata)}
    return {
        "sample": sample.id,
        "name": file_name,
        "model": sample.model,
        "documents": sample.documents,
        "labels": sample.labels,
        "multi": sample.is_multi_label,
        "text_columns": sample.text_columns,
        "sources": list(sources),
        "strata": [{"name": one.name, "documents": one.documents, "sampled": one.sampled} for one in sample.strata],
        "reviewed": [
            {
                "source": sources[one.source_file],
                "row": one.source_row,
                "texts": one.texts,
                "predicted": one.predicted,
                "score": float(f"{one.score:.6g}"),
                "top": [[label, float(f"{score:.4g}")] for label, score in one.top],
                "stratum": strata[one.stratum.name],
            }
            for one in sample.reviewed
        ],
    }


def _in_html(facts: dict[str, Any]) -> str:
    """JSON that ends no element of HTML: its markup characters are written as \\u escapes."""
    text = json.dumps(facts, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
