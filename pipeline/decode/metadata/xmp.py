"""Read XMP, of a sidecar or inside a photo: its fields, and where more of them can be inserted.

XML from outside is hostile. A document type, and with it every entity of its own, is refused, and
so is a packet that is too large. Nothing is fetched, and nothing is expanded.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field
from typing import NamedTuple
from xml.parsers import expat

from pipeline.decode.metadata.fields import (
    FieldName,
    Fields,
    MetadataUnreadable,
    clean_date,
    clean_place,
    clean_rating,
    clean_text,
    make_fields,
)

MAX_XMP_BYTES = 1 << 24  # darktable and Lightroom write masks of some MB
MAX_DEPTH = 256  # of elements; XMP needs about ten
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
EXIF = "http://ns.adobe.com/exif/1.0/"
PHOTOSHOP = "http://ns.adobe.com/photoshop/1.0/"
XMP = "http://ns.adobe.com/xap/1.0/"
DC = "http://purl.org/dc/elements/1.1/"
_XML = "http://www.w3.org/XML/1998/namespace"
_NAME_SEPARATOR = "\x01"  # which no XML can hold
_CONTAINERS = ("Bag", "Seq", "Alt")
_UTF_16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_TAG_PATTERN = re.compile(rb"""<(?:[^"'>]|"[^"]*"|'[^']*')*>""")
_COORDINATE_PATTERN = re.compile(
    r"(\d{1,3}),(\d{1,2}(?:\.\d+)?)(?:,(\d{1,2}(?:\.\d+)?))?([NSEW])", re.ASCII
)
_DEGREES_PATTERN = re.compile(r"[+-]?\d{1,3}(?:\.\d+)?", re.ASCII)


class Property(NamedTuple):
    """The name of a property: its namespace, and its name there."""

    namespace: str
    name: str


KEYWORDS_PROPERTY = Property(DC, "subject")
# The properties that fill a field, the best first. When a program made or changed the file, as
# xmp:CreateDate says, is not when a photo was taken.
PROPERTIES_BY_FIELD = {
    FieldName.DATE: (
        Property(EXIF, "DateTimeOriginal"),
        Property(PHOTOSHOP, "DateCreated"),
        Property(EXIF, "DateTimeDigitized"),
    ),
    FieldName.PLACE: (Property(EXIF, "GPSLatitude"), Property(EXIF, "GPSLongitude")),
    FieldName.RATING: (Property(XMP, "Rating"),),
    FieldName.CAPTION: (Property(DC, "description"),),
    FieldName.TITLE: (Property(DC, "title"),),
    FieldName.KEYWORD: (KEYWORDS_PROPERTY,),
}


class Spot(NamedTuple):
    """The end of an element, where more can be inserted before its end tag.

    `position` is in bytes. `prefix` is that of its namespace, '' if it has none. An element without
    an end tag, `<rdf:Bag/>`, `is_empty`; then it is the position behind it.
    """

    position: int
    prefix: str
    name: str
    is_empty: bool


@dataclass
class XmpPacket:
    """A packet as UTF-8, and what was read of it.

    `encoding` is that of the bytes it was read from: UTF-8, its subset US-ASCII if the packet names
    that, or UTF-16. `values` are those of each property, in order,
    each with its language. `about` is the name of the photo that the packet is about, mostly empty.
    """

    content: bytes
    encoding: str
    about: str = ""
    values: dict[Property, list[tuple[str, str]]] = field(default_factory=dict)
    end: Spot | None = None  # of the properties
    keywords_end: Spot | None = None  # of the list of keywords

    def has(self, name: FieldName) -> bool:
        """Tell if the packet has a property of a field, be it empty."""
        return any(property_ in self.values for property_ in PROPERTIES_BY_FIELD[name])

    def read_fields(self) -> Fields:
        """Return the fields of the packet. Raises MetadataUnreadable."""
        dates = (self._get(property_) for property_ in PROPERTIES_BY_FIELD[FieldName.DATE])
        latitude, longitude = map(self._get, PROPERTIES_BY_FIELD[FieldName.PLACE])
        degrees = _parse_degrees(latitude, "NS"), _parse_degrees(longitude, "EW")
        place = None if None in degrees else clean_place(degrees[0] or 0.0, degrees[1] or 0.0)
        return make_fields(
            {
                FieldName.DATE: next(filter(None, map(clean_date, dates)), None),
                FieldName.PLACE: place,
                FieldName.RATING: clean_rating(self._get(Property(XMP, "Rating"))),
                FieldName.CAPTION: clean_text(self._get(Property(DC, "description"))),
                FieldName.TITLE: clean_text(self._get(Property(DC, "title"))),
            },
            (text for _, text in self.values.get(KEYWORDS_PROPERTY, ())),
        )

    def _get(self, property_: Property) -> str:
        """Return the value in the default language, else the first; '' if there is none."""
        values = [item for item in self.values.get(property_, ()) if item[1].strip()]
        return (
            next((text for lang, text in values if lang == "x-default"), values[0][1])
            if values
            else ""
        )


def _parse_degrees(text: str, directions: str) -> float | None:
    text = text.strip()
    match = _COORDINATE_PATTERN.fullmatch(text)
    if match and match[4] in directions:
        degrees = int(match[1]) + float(match[2]) / 60 + float(match[3] or 0) / 3600
        return -degrees if match[4] in "SW" else degrees
    return float(text) if _DEGREES_PATTERN.fullmatch(text) else None


def parse_xmp(data: bytes) -> XmpPacket:
    """Parse a packet. Raises MetadataUnreadable if it is none, or is not safe to read."""
    if len(data) > MAX_XMP_BYTES:
        raise MetadataUnreadable(f"more than {MAX_XMP_BYTES >> 20} MB of XMP")
    encoding = _UTF_16.get(data[:2], "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        raise MetadataUnreadable("XMP in an encoding other than UTF-8 and UTF-16") from None
    content = text.encode()
    packet = XmpPacket(content, encoding)
    try:
        _Reader(packet).read()
    except expat.ExpatError as error:
        raise MetadataUnreadable(f"no sound XML ({error})") from error
    if packet.end is None:
        raise MetadataUnreadable("XML, but no XMP")
    return packet


@dataclass
class _Element:
    property_: Property  # or the name of any other element
    start: int
    lang: str = ""
    texts: list[str] = field(default_factory=list)
    has_children: bool = False


class _Reader:
    """Reads a packet by the events of its parser: rdf:RDF, in it nodes, in them properties."""

    def __init__(self, packet: XmpPacket) -> None:
        self._packet = packet
        self._stack = list[_Element]()
        self._rdf_depth: int | None = None
        self._has_node = False
        # The encoding is given: what the document says of it is only checked.
        self._parser = expat.ParserCreate("utf-8", _NAME_SEPARATOR)
        self._parser.namespace_prefixes = True
        self._parser.ordered_attributes = True
        self._parser.buffer_text = True
        self._parser.XmlDeclHandler = self._check_declaration
        self._parser.StartDoctypeDeclHandler = self._refuse
        self._parser.EntityDeclHandler = self._refuse
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._add_text

    def read(self) -> None:
        """Fill the packet. Raises ExpatError and MetadataUnreadable."""
        self._parser.Parse(self._packet.content, True)

    def _refuse(self, *_: object) -> None:
        raise MetadataUnreadable("XMP with a document type, which is not safe to read")

    def _check_declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        if encoding is None:
            return
        is_utf_8, named = self._packet.encoding == "utf-8", encoding.lower()
        if is_utf_8 and named == "us-ascii" and self._packet.content.isascii():
            self._packet.encoding = named  # what is inserted has to be ASCII, too
        elif named != ("utf-8" if is_utf_8 else "utf-16"):
            raise MetadataUnreadable("XMP that names another encoding than it has")

    def _start(self, name: str, attributes: list[str]) -> None:
        if len(self._stack) >= MAX_DEPTH:
            raise MetadataUnreadable("XML of too many levels")
        property_, _ = _split_name(name)
        named = {
            _split_name(key)[0]: value
            for key, value in zip(attributes[::2], attributes[1::2], strict=True)
        }
        depth = len(self._stack)
        if self._stack:
            self._stack[-1].has_children = True
        if property_ == (RDF, "RDF") and self._rdf_depth is None:
            self._rdf_depth = depth
        elif self._rdf_depth is not None and depth == self._rdf_depth + 1:
            self._read_node(named)
        elif self._is_property(depth):
            self._packet.values.setdefault(property_, [])
        lang = named.get(Property(_XML, "lang"), "")
        self._stack.append(_Element(property_, self._parser.CurrentByteIndex, lang.lower()))

    def _is_property(self, depth: int) -> bool:
        """Tell if an element at a depth is a property of the photo."""
        return self._rdf_depth is not None and depth == self._rdf_depth + 2

    def _read_node(self, attributes: dict[Property, str]) -> None:
        for property_, value in attributes.items():
            if property_ in ((RDF, "about"), ("", "about")):
                if not self._has_node:
                    self._packet.about = value
            elif property_.namespace not in (RDF, _XML, ""):
                self._packet.values.setdefault(property_, []).append(("", value))
        self._has_node = True

    def _add_text(self, text: str) -> None:
        if self._stack:
            self._stack[-1].texts.append(text)

    def _end(self, name: str) -> None:
        element = self._stack.pop()
        property_, prefix = _split_name(name)
        depth = len(self._stack)
        if depth == self._rdf_depth and self._packet.end is None:
            self._packet.end = self._find_spot(element, prefix)
            self._rdf_depth = -MAX_DEPTH  # another one is not read
        elif self._is_property(depth):
            if not element.has_children:
                self._packet.values[property_].append((element.lang, "".join(element.texts)))
        elif self._is_property(depth - 1) and property_ in [(RDF, kind) for kind in _CONTAINERS]:
            if self._stack[-1].property_ == KEYWORDS_PROPERTY:
                self._packet.keywords_end = self._find_spot(element, prefix)
        elif self._is_property(depth - 2) and property_ == (RDF, "li"):
            values = self._packet.values[self._stack[-2].property_]
            values.append((element.lang, "".join(element.texts)))

    def _find_spot(self, element: _Element, prefix: str) -> Spot:
        match = _TAG_PATTERN.match(self._packet.content, element.start)
        is_empty = match is not None and match[0].endswith(b"/>")
        # Of an empty element the parser reports the end behind it, or its start.
        end = match.end() if match and is_empty else self._parser.CurrentByteIndex
        return Spot(end, prefix, element.property_.name, is_empty)


def _split_name(name: str) -> tuple[Property, str]:
    """Split a name as the parser reports it: namespace, name, prefix."""
    parts = name.split(_NAME_SEPARATOR)
    if len(parts) == 1:
        return Property("", parts[0]), ""
    return Property(parts[0], parts[1]), parts[2] if len(parts) > 2 else ""
