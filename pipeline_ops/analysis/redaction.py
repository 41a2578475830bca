"""Credentials in text that is about to be shown: web pages, source code and logs, which corpora are made of, are full of them.

By shape, so what has none that is known is not found: this keeps a report from spreading what it happens to quote, no more.
"""

import re
from collections.abc import Collection
from typing import Any

SHOWN_CHARACTERS = 600

MASK = "▇▇▇"
_WHOLE = re.compile(
    "|".join(
        (
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
            r"\b(?:AKIA|ASIA|AROA|AIDA)[0-9A-Z]{16}\b",  # AWS: ids of keys
            r"\b(?:ghp|gho|ghu|ghs|ghr)_[0-9A-Za-z]{30,}\b|\bgithub_pat_[0-9A-Za-z_]{30,}",
            r"\bglpat-[0-9A-Za-z_-]{20,}",
            r"\bhf_[0-9A-Za-z]{30,}\b",
            r"\bsk-[0-9A-Za-z_-]{20,}",
            r"\bxox[abprs]-[0-9A-Za-z-]{10,}",
            r"\bAIza[0-9A-Za-z_-]{35}",
            r"\beyJ[0-9A-Za-z_-]{10,}\.eyJ[0-9A-Za-z_-]{10,}\.[0-9A-Za-z_-]*",  # JSON web tokens
        )
    ),
    re.DOTALL,
)
# what stands behind a name that says what it is; the name stays
_NAMED = re.compile(
    r"""(?ix)
    ( (?: pass (?: word | wd | phrase )? | secret (?: [_-]? (?: access )? [_-]? key )? | api [_-]? key | access [_-]? token
        | auth [_-]? token | aws_secret_access_key | private [_-]? key | client [_-]? secret )
      ["']? \s* (?: = | : | := | => ) \s* )
    ( "[^"\n]{4,}" | '[^'\n]{4,}' | (?=[^\s"',;]*\d) [^\s"',;]{6,} )"""  # prose has no digits in it
)
_BEARER = re.compile(r"(?i)\b(bearer\s+)[0-9a-z._~+/-]{16,}=*")
_IN_URL = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@:]+:[^\s/@]+@", re.IGNORECASE)


def redact(text: str, secrets: Collection[str] = ()) -> str:
    """The text with what looks like a credential masked, and each of `secrets` wherever it stands."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    text = _WHOLE.sub(MASK, text)
    text = _NAMED.sub(rf"\1{MASK}", text)
    text = _BEARER.sub(rf"\1{MASK}", text)
    return _IN_URL.sub(rf"\1{MASK}@", text)


def shown(text: Any, characters: int = SHOWN_CHARACTERS, secrets: Collection[str] = ()) -> str:
    """A text as the page shows it: without credentials, cut, and without what has no picture."""
    text = redact(str(text), secrets)
    text = "".join(character if character.isprintable() or character in "\n\t" else "�" for character in text)
    return text if len(text) <= characters else text[:characters].rstrip() + "…"
