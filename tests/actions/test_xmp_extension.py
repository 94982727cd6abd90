"""XMP keeps all that it has when fields are added, as neardup and as exiftool read it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.actions.xmp_extension import extend_xmp
from pipeline.decode.metadata.fields import (
    FieldName,
    Fields,
    MetadataUnreadable,
    clean_text,
    combine_fields,
    make_fields,
)
from pipeline.decode.metadata.xmp import parse_xmp
from tests.support.xmp import make_xmp

RDF = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
DC = 'xmlns:dc="http://purl.org/dc/elements/1.1/"'
FIELDS: Fields = {
    FieldName.DATE: ("2020-01-02T03:04:05.67+02:00",),
    FieldName.PLACE: ("-52.5162750,13.3777040",),
    FieldName.CAPTION: ('a <b> & "c"',),
    FieldName.TITLE: ("T]]> 漢",),
    FieldName.KEYWORD: ("x & y", "ü"),
}
PACKETS: dict[str, str | bytes] = {
    "adobe": make_xmp(rating="3", keywords=["sea"], extra="<my:own>x</my:own>"),
    "empty list": f'<rdf:RDF {RDF}><rdf:Description rdf:about="" {DC}><dc:subject><rdf:Bag />'
    "</dc:subject></rdf:Description></rdf:RDF>",
    "empty": f"<rdf:RDF {RDF}/>",
    "without a prefix": '<RDF xmlns="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><Description'
    f" {DC}><dc:subject><Seq><li>sea</li></Seq></dc:subject></Description></RDF>",
    "other prefixes": f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r:RDF {RDF.replace("rdf=", "r=")}>'
    '<r:Description r:about="uuid:7&amp;8"'
    f" {DC.replace('dc=', 'd=')}><d:subject><r:Bag><r:li>sea</r:li></r:Bag></d:subject>"
    "</r:Description></r:RDF></x:xmpmeta>",
    "prefix with another meaning": f'<rdf:RDF {RDF}><rdf:Description rdf:about="" xmlns:dc='
    f'"https://example.org/"><dc:subject>other</dc:subject></rdf:Description></rdf:RDF>',
    "structures": f'<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2"><rdf:RDF'
    f' {RDF}><rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
    ' xmlns:xmpMM="http://ns.adobe.com/xap/1.0/mm/" xmp:Rating="1"'
    ' xmlns:darktable="http://darktable.sf.net/" darktable:xmp_version="5"><xmpMM:DerivedFrom'
    ' xmlns:s="http://ns.adobe.com/xap/1.0/sType/ResourceRef#" s:documentID="IMG_1.CR3"'
    ' s:originalDocumentID="a&gt;b/"/><darktable:history><rdf:Seq><rdf:li darktable:num="0"'
    ' darktable:operation="rawprepare"/></rdf:Seq></darktable:history></rdf:Description>'
    "</rdf:RDF></x:xmpmeta>",
    "two nodes": f'<rdf:RDF {RDF}><rdf:Description rdf:about="" {DC}><dc:subject><rdf:Bag>'
    "<rdf:li>sea</rdf:li></rdf:Bag></dc:subject></rdf:Description>\n<!-- > --><rdf:Description"
    ' rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"><xmp:Rating>4</xmp:Rating>'
    "</rdf:Description>\n</rdf:RDF>",
    "US-ASCII": f'<?xml version="1.0" encoding="US-ASCII"?><rdf:RDF {RDF}><rdf:Description'
    f' rdf:about="&#252;" {DC}><dc:subject><rdf:Bag><rdf:li>sea &#233;</rdf:li></rdf:Bag>'
    "</dc:subject></rdf:Description></rdf:RDF>",
    "UTF-16": f'\ufeff<?xml version="1.0" encoding="UTF-16"?><rdf:RDF {RDF}><rdf:Description'
    f' rdf:about="" {DC}><dc:subject><rdf:Bag><rdf:li>sea é 漢</rdf:li></rdf:Bag></dc:subject>'
    "</rdf:Description></rdf:RDF>",
}
ENCODED = {
    name: packet
    if isinstance(packet, bytes)
    else packet.encode("utf-16-be" if name == "UTF-16" else "utf-8")
    for name, packet in PACKETS.items()
}


@pytest.mark.parametrize("name", ENCODED)
def test_what_is_added_is_read_back_and_nothing_is_lost(name: str) -> None:
    old = ENCODED[name]
    new = extend_xmp(old, FIELDS)
    before, after = parse_xmp(old).read_fields(), dict(parse_xmp(new).read_fields())
    assert after == combine_fields([before, FIELDS])
    assert _is_subsequence(old.replace(b"/>", b""), new)
    if name != "empty":
        with pytest.raises(MetadataUnreadable, match="has a date already"):
            extend_xmp(new, FIELDS)


def _is_subsequence(first: bytes, second: bytes) -> bool:
    rest = iter(second)
    return all(byte in rest for byte in first)


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
def test_exiftool_reads_all_that_was_there_and_what_was_added(tmp_path: Path) -> None:
    # Of RDF without a prefix exiftool reads nothing, before and after.
    packets = {name: packet for name, packet in ENCODED.items() if name != "without a prefix"}
    for number, content in enumerate(packets.values()):
        (tmp_path / f"{number}-old.xmp").write_bytes(content)
        (tmp_path / f"{number}.xmp").write_bytes(extend_xmp(content, FIELDS))
    read = _read_folder(tmp_path)
    for number, name in enumerate(packets):
        old, new = read[f"{number}-old.xmp"], read[f"{number}.xmp"]
        keywords = [word for word in _list(old.pop("XMP-dc:Subject", [])) if word]
        assert _list(new["XMP-dc:Subject"]) == [*keywords, "x & y", "ü"], name
        assert {key: new.get(key) for key in old} == old, name
        assert new["XMP-exif:DateTimeOriginal"] == "2020:01:02 03:04:05.67+02:00"
        assert new["XMP-photoshop:DateCreated"] == "2020:01:02 03:04:05.67+02:00"
        assert new["XMP-exif:GPSLatitude"] == pytest.approx(-52.516275, abs=1e-7)
        assert new["XMP-exif:GPSLongitude"] == pytest.approx(13.377704, abs=1e-7)
        assert (new["XMP-dc:Description"], new["XMP-dc:Title"]) == ('a <b> & "c"', "T]]> 漢")


def _read_folder(folder: Path) -> dict[str, dict[str, Any]]:
    command = ["exiftool", "-j", "-G1", "-n", "-struct", "-XMP:all", str(folder)]
    answer = subprocess.run(command, capture_output=True, check=True).stdout
    return {Path(read.pop("SourceFile")).name: read for read in json.loads(answer)}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def test_new_packet_is_read_by_exiftool(tmp_path: Path) -> None:
    if shutil.which("exiftool") is None:
        pytest.skip("exiftool is not installed")
    (tmp_path / "new.xmp").write_bytes(extend_xmp(None, {FieldName.RATING: ("5",)}))
    assert _read_folder(tmp_path)["new.xmp"]["XMP-xmp:Rating"] == 5


@pytest.mark.parametrize("property_", ["<dc:title/>", '<dc:title xml:lang="de">x</dc:title>'])
def test_property_that_is_there_is_never_written_a_second_time(property_: str) -> None:
    """XMP with one property twice is refused by Adobe's programs."""
    with pytest.raises(MetadataUnreadable, match="has a title already"):
        extend_xmp(make_xmp(extra=property_), {FieldName.TITLE: ("x",)})


def test_packet_that_says_it_is_ascii_stays_ascii() -> None:
    """A program that believes its declaration refuses any other byte."""
    extended = extend_xmp(ENCODED["US-ASCII"], FIELDS)
    assert extended.isascii()
    about = parse_xmp(extended).about
    assert (about, extended.count(b'rdf:about="&#252;"')) == ("\xfc", 2)


def test_packet_that_only_says_it_is_ascii_is_not_read() -> None:
    packet = ENCODED["US-ASCII"].replace(b"&#233;", "é".encode())
    with pytest.raises(MetadataUnreadable, match="another encoding"):
        parse_xmp(packet)


def test_keywords_that_are_no_list_are_left_alone() -> None:
    with pytest.raises(MetadataUnreadable, match="not a list"):
        extend_xmp(make_xmp(extra="<dc:subject>a</dc:subject>"), {FieldName.KEYWORD: ("x",)})


texts = st.text(max_size=12).map(clean_text).filter(bool)
any_fields = st.builds(
    make_fields,
    st.fixed_dictionaries(
        {},
        optional={
            FieldName.CAPTION: texts,
            FieldName.TITLE: texts,
            FieldName.RATING: st.sampled_from("12345"),
            FieldName.DATE: st.sampled_from(["1987", "2001-02", "2001-02-03T04:05:06Z"]),
            FieldName.PLACE: st.sampled_from(["89.9999999,-179.9999999", "-0.0000001,0.0000000"]),
        },
    ),
    st.lists(texts, max_size=3),
)


@settings(max_examples=150, deadline=None)
@given(
    own=st.lists(st.text("ab<&> é", min_size=1), max_size=2),
    rating=st.sampled_from(["", "0"]),
    fields=any_fields,
    is_new=st.booleans(),
)
def test_any_fields_are_read_back_as_they_are(
    own: list[str], rating: str, fields: Fields, is_new: bool
) -> None:
    old = None if is_new else make_xmp(rating, own)
    before = {} if old is None else parse_xmp(old).read_fields()
    if old is not None and rating and FieldName.RATING in fields:
        with pytest.raises(MetadataUnreadable, match="has a rating already"):
            extend_xmp(old, fields)
        return
    new = extend_xmp(old, fields)
    read = dict(parse_xmp(new).read_fields())
    wanted = dict(combine_fields([before, fields]))
    place, wanted_place = read.pop(FieldName.PLACE, None), wanted.pop(FieldName.PLACE, None)
    assert (place is None) == (wanted_place is None)
    if place and wanted_place:
        pairs = zip(re.split(",", place[0]), re.split(",", wanted_place[0]), strict=True)
        assert all(abs(float(one) - float(other)) < 2e-7 for one, other in pairs)
    assert read == wanted
