"""Mask credentials in text that is displayed; web pages, source code and logs in corpora often contain some.

Matches known formats only: it keeps a report from spreading what it quotes, and is no guarantee.
"""

import re
from collections.abc import Collection
from typing import Any

EXCERPT_CHARACTERS = 600

MASK = "▇▇▇"
_TOKEN_FORMATS = re.compile(
    "|".join(
        (
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
            r"\b(?:AKIA|ASIA|AROA|AIDA)[0-9A-Z]{16}\b",  # AWS access key ids
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
# the value after a name such as `password =`; the name is kept
_NAMED_SECRET = re.compile(
    r"""(?ix)
    ( (?: pass (?: word | wd | phrase )? | secret (?: [_-]? (?: access )? [_-]? key )? | api [_-]? key | access [_-]? token
        | auth [_-]? token | aws_secret_access_key | private [_-]? key | client [_-]? secret )
      ["']? \s* (?: = | : | := | => ) \s* )
    ( "[^"\n]{4,}" | '[^'\n]{4,}' | (?=[^\s"',;]*\d) [^\s"',;]{6,} )"""  # with a digit, to leave prose alone
)
_BEARER = re.compile(r"(?i)\b(bearer\s+)[0-9a-z._~+/-]{16,}=*")
_IN_URL = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@:]+:[^\s/@]+@", re.IGNORECASE)


def redact(text: str, secrets: Collection[str] = ()) -> str:
    """Replace everything that looks like a credential, and each of `secrets`, by MASK."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    text = _TOKEN_FORMATS.sub(MASK, text)
    text = _NAMED_SECRET.sub(rf"\1{MASK}", text)
    text = _BEARER.sub(rf"\1{MASK}", text)
    return _IN_URL.sub(rf"\1{MASK}@", text)


def excerpt(text: Any, characters: int = EXCERPT_CHARACTERS, secrets: Collection[str] = ()) -> str:
    """The beginning of a text for display: redacted, unprintable characters replaced, at most `characters` and an ellipsis."""
    text = redact(str(text), secrets)
    text = "".join(character if character.isprintable() or character in "\n\t" else "�" for character in text)
    return text if len(text) <= characters else text[:characters].rstrip() + "…"
