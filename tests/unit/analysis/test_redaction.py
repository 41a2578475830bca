"""Credentials in quoted text are masked, and prose is left alone."""

import pytest

from pipeline_ops.analysis.redaction import MASK, redact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("id AKIAIOSFODNN7EXAMPLE here", f"id {MASK} here"),
        ("aws_secret_access_key: wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", f"aws_secret_access_key: {MASK}"),
        ('"password": "correct horse"', f'"password": {MASK}'),
        ("PASSWORD=hunter22 and more", f"PASSWORD={MASK} and more"),
        ("api_key = 'abcd1234'", f"api_key = {MASK}"),
        ("git clone https://me:s3cret@host/x.git", f"git clone https://{MASK}@host/x.git"),
        ("Authorization: Bearer abcdefghijklmnop1234", f"Authorization: Bearer {MASK}"),
        ("ghp_" + "a1B2" * 10, MASK),
        ("hf_" + "a1B2" * 9, MASK),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY----- after", f"{MASK} after"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE that is cut off", MASK),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-_123", MASK),
    ],
)
def test_what_looks_like_a_credential_is_masked(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "The passage: it was a nice day in May 1999",
        "secret: nobody knows",
        "the password was changed 3 times",
        "see https://example.com:8080/path and mail me@example.com",
        "a task-based sk-learn tutorial",
        "",
    ],
)
def test_prose_is_left_as_it_is(text: str) -> None:
    assert redact(text) == text


def test_given_secrets_are_masked_wherever_they_stand() -> None:
    assert redact("xCorrect-Horsey", ["Correct-Horse"]) == f"x{MASK}y"
