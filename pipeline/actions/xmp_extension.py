"""Add fields to XMP by inserting text: every byte that is there stays, in its order."""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import escape, quoteattr

from pipeline.decode.metadata.fields import (
    FieldName,
    Fields,
    MetadataUnreadable,
    make_comparison_key,
)
from pipeline.decode.metadata.xmp import (
    DC,
    EXIF,
    KEYWORDS_PROPERTY,
    MAX_XMP_BYTES,
    PHOTOSHOP,
    RDF,
    XMP,
    Spot,
    XmpPacket,
    parse_xmp,
)

NEW_PACKET = f"""<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="neardup">
 <rdf:RDF xmlns:rdf="{RDF}">
 </rdf:RDF>
</x:xmpmeta>
""".encode()
_NAMESPACES = {"dc": DC, "exif": EXIF, "photoshop": PHOTOSHOP, "xmp": XMP}
_RDF_PREFIX = "rdf"
_MINUTE_DIGITS = 6  # about 2 mm


def extend_xmp(content: bytes | None, fields: Fields) -> bytes:
    """Return XMP with more fields; without `content`, a new packet of them.

    Keywords are added to those that are there; of other fields there must be none. The result was
    parsed: it has the fields, and all properties that were there as they were. Raises
    MetadataUnreadable where that is impossible.
    """
    packet = parse_xmp(NEW_PACKET if content is None else content)
    keywords = fields.get(FieldName.KEYWORD, ())
    insertions = list[tuple[Spot, str]]()
    others = {name: values[0] for name, values in fields.items()}
    others.pop(FieldName.KEYWORD, None)
    for name in others:
        if packet.has(name):
            raise MetadataUnreadable(f"XMP that has a {name} already")
    is_new_list = bool(keywords) and not packet.has(FieldName.KEYWORD)
    if keywords and not is_new_list:
        if packet.keywords_end is None:
            raise MetadataUnreadable("XMP whose keywords are not a list")
        insertions.append((packet.keywords_end, _format_items(packet, keywords)))
    if others or is_new_list:
        text = _format_node(packet, others, keywords if is_new_list else ())
        insertions.append((_get_end(packet), text))
    extended = _insert(packet, insertions)
    if len(extended) > MAX_XMP_BYTES:
        raise MetadataUnreadable(f"more than {MAX_XMP_BYTES >> 20} MB of XMP")
    _require_extended(packet, parse_xmp(extended), fields)
    return extended


def _get_end(packet: XmpPacket) -> Spot:
    assert packet.end is not None  # or parse_xmp() had refused it
    return packet.end


def _insert(packet: XmpPacket, insertions: list[tuple[Spot, str]]) -> bytes:
    content = packet.content
    # In ASCII, all other characters become references, in texts and values of attributes alike.
    encoding = "ascii" if packet.encoding == "us-ascii" else "utf-8"
    for spot, text in sorted(insertions, reverse=True):
        before, after = content[: spot.position], content[spot.position :]
        if spot.is_empty:
            name = f"{spot.prefix}:{spot.name}" if spot.prefix else spot.name
            before, text = before[: -len(b"/>")] + b">", f"{text}</{name}>"
        content = before + text.encode(encoding, "xmlcharrefreplace") + after
    return content.decode().encode(packet.encoding)


def _require_extended(before: XmpPacket, after: XmpPacket, fields: Fields) -> None:
    """Raise MetadataUnreadable unless a packet has its fields and all that it had before."""
    for property_, values in before.values.items():
        now = after.values.get(property_, [])
        is_kept = now[: len(values)] == values
        if not is_kept or (len(now) > len(values) and property_ != KEYWORDS_PROPERTY):
            raise MetadataUnreadable("XMP that cannot be extended")
    held = after.read_fields()
    for name, added in fields.items():
        keys = {make_comparison_key(name, value) for value in held.get(name, ())}
        if not keys >= {make_comparison_key(name, value) for value in added}:
            raise MetadataUnreadable("XMP that cannot be extended")


def _format_items(packet: XmpPacket, keywords: tuple[str, ...]) -> str:
    """Format more items of the list of keywords, with the prefix that is declared there."""
    spot = packet.keywords_end
    is_declared = spot is not None and spot.prefix == _RDF_PREFIX
    declared = "" if is_declared else f" xmlns:{_RDF_PREFIX}={quoteattr(RDF)}"
    return "".join(f"<rdf:li{declared}>{escape(keyword)}</rdf:li>" for keyword in keywords)


def _format_node(packet: XmpPacket, values: dict[FieldName, str], keywords: tuple[str, ...]) -> str:
    """Format a node about the same photo: XMP may have several, which are read as one."""
    lines = [line for name, value in values.items() for line in _format_field(name, value)]
    if keywords:
        items = "".join(f"<rdf:li>{escape(keyword)}</rdf:li>" for keyword in keywords)
        lines.append(f"<dc:subject><rdf:Bag>{items}</rdf:Bag></dc:subject>")
    used = {line[1:].partition(":")[0] for line in lines}
    spaces = {prefix: uri for prefix, uri in _NAMESPACES.items() if prefix in used}
    if _get_end(packet).prefix != _RDF_PREFIX:
        spaces[_RDF_PREFIX] = RDF
    declared = "".join(f"\n    xmlns:{prefix}={quoteattr(uri)}" for prefix, uri in spaces.items())
    body = "".join(f"   {line}\n" for line in lines)
    about = quoteattr(packet.about)
    return f" <rdf:Description rdf:about={about}{declared}>\n{body}  </rdf:Description>\n "


def _format_field(name: FieldName, value: str) -> Iterator[str]:
    if name is FieldName.DATE:
        for element in ("exif:DateTimeOriginal", "photoshop:DateCreated"):
            yield f"<{element}>{value}</{element}>"
    elif name is FieldName.PLACE:
        latitude, longitude = value.split(",")
        yield f"<exif:GPSLatitude>{_format_angle(latitude, 'NS')}</exif:GPSLatitude>"
        yield f"<exif:GPSLongitude>{_format_angle(longitude, 'EW')}</exif:GPSLongitude>"
    elif name is FieldName.RATING:
        yield f"<xmp:Rating>{value}</xmp:Rating>"
    else:
        element = "dc:description" if name is FieldName.CAPTION else "dc:title"
        item = f'<rdf:li xml:lang="x-default">{escape(value)}</rdf:li>'
        yield f"<{element}><rdf:Alt>{item}</rdf:Alt></{element}>"


def _format_angle(degrees: str, directions: str) -> str:
    """Format degrees as XMP has them: degrees, comma, minutes, direction."""
    unit = 10**_MINUTE_DIGITS
    whole, rest = divmod(round(abs(float(degrees)) * 60 * unit), 60 * unit)
    direction = directions[float(degrees) < 0]
    return f"{whole},{rest / unit:.{_MINUTE_DIGITS}f}{direction}"
