"""The elements of a JSON array, found byte by byte: the truth for the job's own way, which takes many bytes at a time."""

from pipeline_ops.line_formats.json_arrays import JsonLayout

BACKSLASH, QUOTE, COMMA = b'\\",'
BLANK = b" \t\r\n"


def elements_of(data: bytes, layout: JsonLayout) -> tuple[list[bytes], bool]:
    """(the elements that are whole, whether the file is).

    An element is what stands between commas at the depth of the array, or up to the bracket that closes an object.
    """
    base = 0 if layout.kind == "objects" else 1
    depth, in_string, position, start = base, False, layout.start, layout.start
    elements: list[bytes] = []
    while position < len(data):
        byte = data[position]
        position += 1
        if in_string:
            position += byte == BACKSLASH
            in_string = byte != QUOTE
            continue
        if byte == BACKSLASH and data[position : position + 1] in (b"\\", b'"'):
            position += 1
        elif byte == QUOTE:
            in_string = True
        elif byte in b"[{":
            depth += 1
        elif byte in b"]}":
            depth -= 1
            if depth < 0 or (depth == 0 and not base):
                if depth < 0:
                    return elements, False
                elements.append(data[start:position])
                start = position
            elif depth < base:
                elements.append(data[start : position - 1])
                return elements, byte == ord("]") and _ends(data[position:], layout)
        elif byte == COMMA and depth == base and base:
            elements.append(data[start : position - 1])
            start = position
    if depth == base and not in_string:
        elements.append(data[start:])
        return elements, not base
    return elements, False


def _ends(rest: bytes, layout: JsonLayout) -> bool:
    """Whether what follows the array may follow it: the rest of an object without further arrays of objects, or nothing."""
    if layout.kind == "wrapped":
        depth, in_string, position, opened = 1, False, 0, False
        while depth:
            if position >= len(rest):
                return False
            byte = rest[position]
            position += 1
            if in_string:
                position += byte == BACKSLASH
                in_string = byte != QUOTE
                continue
            if byte == BACKSLASH and rest[position : position + 1] in (b"\\", b'"'):
                position += 1
            elif byte == QUOTE:
                in_string = True
            elif byte in b"[{":
                if byte == ord("{") and opened:
                    return False
                depth += 1
            elif byte in b"]}":
                depth -= 1
            if byte in b'[]{},"':
                opened = byte == ord("[") and depth == 2
        rest = rest[position:]
    return not rest.strip(BLANK + b"\x0b\x0c")
