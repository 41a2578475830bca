"""The encoding of a text, found from its beginning, and its bytes as UTF-8."""

import codecs
import re
import unicodedata

import numpy as np

from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.line_formats.first_bytes import NOT_IN_TEXT
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.streams import BrokenStream, Readable

TRANSCODED_BYTES = 256 * 2**10  # at a time
UTF_8 = (None, "utf-8", "utf-8-sig")  # as codecs.lookup() calls it
# each is a prefix of none that stands before it
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: None,
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
MIN_BINARY, BINARY_SHARE = 4, 0.05  # bytes that no text has: so many, and so much of the beginning; a stray NUL is no harm
MIN_UTF_8 = 16  # bytes; a few Chinese characters of UTF-16 may be letters as well
# of the bytes: half of them in English as UTF-16, less in other scripts, of which no byte sequence is UTF-8
MIN_UTF_16_NULS, MIN_UTF_16_NULS_OF_ASCII = 0.002, 0.1

MIN_FITTING = 0.9  # of the words with bytes above 127, for a guess by the alphabets
HIGH_WORD = re.compile(rb"[A-Za-z]*[\x80-\xff][A-Za-z\x80-\xff]*")
INSIDE_WORDS = re.compile("[\xa0’‘–—…·«»“”]")
BEFORE_WORDS = "¡¿«»‹›“”‘’„‚–—…•·©®™°§€£ºª\xa0\xad"
BEHIND_WORDS = BEFORE_WORDS.translate(dict.fromkeys(map(ord, "¡¿„‚")))
# letters above ASCII of languages, by the family of encodings that have them
WESTERN = tuple(
    map(
        frozenset,
        (
            "àâæçéèêëîïôœùûüÿ",  # French
            "äöüßéèàáñç",  # German, and words from its neighbors
            "áéíóúüñçàèòïª",  # Spanish, Galician, Catalan
            "áâãàçéêíóôõú",  # Portuguese
            "àèéìíîòóùú",  # Italian
            "åäöéüàæøò",  # Swedish, Danish, Norwegian
            "áéíóúýæöðþ",  # Icelandic
            "äöüõšž",  # Estonian, Finnish
            "éèëêïîöôüûáíóúàçñä",  # Dutch, English
        ),
    )
)
CENTRAL = tuple(
    map(
        frozenset,
        (
            "ąćęłńóśźż",  # Polish
            "áčďéěíňóřšťúůýž",  # Czech
            "áäčďéíĺľňóôŕšťúýž",  # Slovak
            "áéíóöőúüű",  # Hungarian
            "čćđšž",  # Croatian, Slovenian
            "ăâîşţ",  # Romanian
        ),
    )
)
BALTIC = (frozenset("ąčęėįšųūž"), frozenset("āčēģīķļņšūž"))
TURKISH = (frozenset("çğıöşüâîûi̇"),)
# Of equal ones the first is guessed.
LATIN = {
    "cp1252": WESTERN,
    "cp1250": CENTRAL,
    "iso8859-2": CENTRAL,
    "cp1254": TURKISH,
    "cp1257": BALTIC,
    "iso8859-15": WESTERN,
    "cp850": WESTERN,
    "mac-roman": WESTERN,
    "cp852": CENTRAL,
}


def encoding_of(head: bytes, config: InputConfig, path: str) -> str | None:
    """The codec of a text that begins with `head`: by its byte order mark, else input.encoding. None: UTF-8.

    Raises:
        UserError: it is UTF-16 or UTF-32 without a byte order mark, and input.encoding says not which; or there is no guess.
    """
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if head.startswith(mark):
            rest = head.removeprefix(mark)
            if encoding is not None and len(rest) >= MIN_UTF_8 and _has_bytes_of_utf_8(rest):
                raise UserError(f"input.path: {path} begins with the byte order mark of {encoding}, but goes on in UTF-8")
            return encoding
    declared = None if config.encoding in (None, "auto") else codecs.lookup(config.encoding).name
    if declared is not None and declared.startswith(("utf-16", "utf-32")) and head:
        if _has_bytes_of_utf_8(head):
            raise UserError(f"input.encoding: {path} is UTF-8, not {declared}; auto goes by each file's bytes")
        if declared in ("utf-16", "utf-32"):
            raise UserError(
                f"input.encoding: {path} has no byte order mark, so {declared} leaves open which byte is first; set"
                f" input.encoding={declared}-le or {declared}-be"
            )
        return declared
    unmarked = unmarked_encoding(head)
    if unmarked is not None:
        raise UserError(f"input.path: {path} is {unmarked} without a byte order mark; set input.encoding={unmarked}")
    if config.encoding == "auto":
        return None if is_utf_8(head) else guessed_encoding(head, path)
    return None if declared in UTF_8 else declared


def _has_bytes_of_utf_8(head: bytes) -> bool:
    """Whether bytes are UTF-8 rather than UTF-16 or UTF-32, in which each space and each newline has a NUL."""
    return bool(head) and 0 not in head and is_utf_8(head)


def has_byte_order_mark(head: bytes) -> bool:
    return head.startswith(tuple(BYTE_ORDER_MARKS))


def guessed_encoding(head: bytes, path: str) -> str:
    """The encoding of a text that is not UTF-8: by the alphabets of languages, else as charset-normalizer guesses.

    charset-normalizer takes everyday French for Baltic or Nordic, as it weighs all encodings alike: a file of few accents
    fits many. Here cp1252, the most frequent, is left only for one whose alphabets fit more of the words.

    Raises:
        UserError: there is no guess.
    """
    from charset_normalizer import from_bytes

    head = head[: head.rfind(b"\n") + 1] or head
    share, latin = _best_of_latin(head)
    if share >= MIN_FITTING:
        return latin
    best = from_bytes(head).best()
    if best is None:
        raise UserError(f"input.path: {path} is text in no encoding that could be guessed; set input.encoding")
    # one for another language in Latin script is no better a guess than that of which half of the words are sure
    return latin if share >= 0.5 and _is_latin(str(best)) else codecs.lookup(best.encoding).name


def _best_of_latin(head: bytes) -> tuple[float, str]:
    """(share of the words with bytes above 127 that fit, encoding) of the encoding in LATIN that fits most.

    A word fits if it is spelled with the letters of the language that fits most words of its line.
    """
    lines = [words for line in head.split(b"\n") if (words := HIGH_WORD.findall(line))]
    found = []
    for encoding, alphabets in LATIN.items():
        letters = {word: _high_letters(word.decode(encoding, "replace")) for words in lines for word in words}
        fitting, spelled = 0, 0
        for line in lines:
            words = [word for name in line if (word := letters[name]) is not None]
            fitting += max(sum(map(alphabet.issuperset, words)) for alphabet in alphabets)
            spelled += len(line)
        found.append((fitting / max(spelled, 1), encoding))
    return max(found, key=lambda shared: shared[0])


def _high_letters(text: str) -> str | None:
    """The letters above ASCII of a word, in lower case; None: it is no word of a language in Latin script."""
    high = ""
    for part in INSIDE_WORDS.split(text.lstrip(BEFORE_WORDS).rstrip(BEHIND_WORDS)):
        others = [character for character in part if character > "\x7f"]
        if not all(character.isalpha() for character in others):
            return None
        if len(part) > 2 and len(others) == len(part):  # another script; no such word is as long
            return None
        if not part.isupper() and any(character.isupper() for character in part[1:] if character > "\x7f"):
            return None
        high += "".join(others).lower()
    return high


def _is_latin(text: str) -> bool:
    """Whether most of the letters above ASCII are of the Latin script."""
    letters = [character for character in text if character > "\x7f" and character.isalpha()]
    return sum(unicodedata.name(character, "").startswith("LATIN") for character in letters) > len(letters) / 2


def check_is_text(head: bytes, config: InputConfig, path: str) -> None:
    """Raises UserError for bytes that are no text: many NULs, or control characters in what is not UTF-8 either.

    Args:
        head: in the text's encoding; of UTF-16 and UTF-32 as UTF-8.
    """
    nuls = head.count(0)
    controls = len(head) - len(head.translate(None, NOT_IN_TEXT.replace((config.delimiter or "\0").encode(), b"")))
    if _is_much(nuls, head) or (_is_much(controls, head) and not is_utf_8(head)):
        raise UserError(f"input.path: {path} holds binary data, not text; leave it out, or name its format by its suffix")


def _is_much(count: int, head: bytes) -> bool:
    return count >= MIN_BINARY and count > BINARY_SHARE * len(head)


def is_utf_8(head: bytes) -> bool:
    """Whether the beginning of a stream is UTF-8; it may end within a character."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def unmarked_encoding(head: bytes) -> str | None:
    """The UTF-16 or UTF-32 that a text without a byte order mark is in; None where it looks like neither."""
    nuls = np.flatnonzero(np.frombuffer(head, np.uint8) == 0)
    if len(nuls) < 2:
        return None
    if len(nuls) >= len(head) / 4:
        for encoding in ("utf-32-le", "utf-32-be"):
            if _is_text_in(encoding, head):
                return encoding
    odd = int((nuls % 2).sum())
    encoding, in_place = ("utf-16-le", odd) if odd > len(nuls) / 2 else ("utf-16-be", len(nuls) - odd)
    enough = MIN_UTF_16_NULS_OF_ASCII if is_utf_8(head) else MIN_UTF_16_NULS
    return encoding if in_place >= max(0.95 * len(nuls), enough * len(head)) and _is_text_in(encoding, head) else None


def _is_text_in(encoding: str, head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError:
        return False
    return text.count("\0") <= BINARY_SHARE * len(text)


def _invalid_in_utf8(error: UnicodeError) -> tuple[str, int]:
    """Half a surrogate pair in place of bytes that do not decode: encoded, it is no UTF-8, so that its record is rejected."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    stop = error.end
    if not error.encoding.lower().startswith(("utf-16", "utf-32", "utf16", "utf32", "utf_16", "utf_32")):
        newline = error.object.find(b"\n", error.start + 1, error.end)
        stop = newline if newline >= 0 else stop  # the next record is another one
    return "\udcff", stop


codecs.register_error("invalid_in_utf8", _invalid_in_utf8)


class Transcoded:
    """A stream in some encoding as UTF-8; see _invalid_in_utf8 for what does not decode."""

    def __init__(self, source: Readable, encoding: str):
        self._source, self._encoding = source, encoding
        self._decoder = codecs.getincrementaldecoder(encoding)("invalid_in_utf8")
        self._ahead, self._at_end = b"", False

    def read(self, size: int) -> bytes:
        while not self._ahead and not self._at_end:
            data = self._source.read(TRANSCODED_BYTES)
            self._at_end = not data
            try:
                text = self._decoder.decode(data, self._at_end)
            except UnicodeError as error:  # of decoders of ISO 2022, which lose their place
                raise BrokenStream(f"input.encoding: bytes that are no {self._encoding}, or damaged: {error}") from error
            self._ahead = text.encode("utf-8", "surrogatepass")
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        return data
