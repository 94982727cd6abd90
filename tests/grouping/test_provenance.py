"""Edits of an image, found by all its copies together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import permutations

from indexes.metadata import Capture, ImageMetadata, JpegEncoding
from indexes.records import Image
from pipeline.grouping.alterations import Alteration
from pipeline.grouping.camera_files import is_camera_file
from pipeline.grouping.copy_views import count_marks, list_views
from pipeline.grouping.edges import Edge, list_neighbors
from pipeline.grouping.lineage import find_parents
from pipeline.grouping.provenance import Provenance, trace_provenance
from pipeline.verify.judgement import Judgement
from pipeline.verify.relation import COPY_RELATIONS, Relation, Side
from pipeline.verify.verdict import Verdict
from tests.support.verification import PLAIN_COPY

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
CAMERA = ImageMetadata(
    Capture(make="Canon", model="EOS R6", taken="2021-05-30 15:56:01", exposure_time=0.01),
    stated_width=100,
    stated_height=100,
)


def make_image(name: str, width: int = 100) -> Image:
    return Image(name.encode(), name.encode(), width, 100, "JPEG", 1000, False)


def make_edge(first: str, second: str, noise: float | None = None, **changes: Any) -> Edge:
    """An edge between two copies, with changed fields of their edits."""
    judgement = None if noise is None else Judgement(0.9, 0.0, 0.0, noise, "test")
    verdict = Verdict(
        Relation.DERIVED,
        30,
        30,
        1.0,
        0.0,
        IDENTITY,
        replace(PLAIN_COPY, **changes),
        judgement=judgement,
    )
    return Edge(first.encode(), second.encode(), Relation.DERIVED, 0.9, verdict)


def connect(names: str, odd: Mapping[str, Mapping[str, Any]]) -> list[Edge]:
    """Edges between all images, one letter each; those of an odd one have the changes of it."""
    return [
        make_edge(first, second, **{**odd.get(first, {}), **odd.get(second, {})})
        for number, first in enumerate(names)
        for second in names[number + 1 :]
    ]


def trace(
    edges: Sequence[Edge],
    metadata: Mapping[str, ImageMetadata] | None = None,
    widths: Mapping[str, int] | None = None,
) -> dict[str, Provenance]:
    names = {pixel_hash.decode() for edge in edges for pixel_hash in (edge.left, edge.right)}
    images = {name.encode() for name in names}
    neighbors = list_neighbors(edges, images)
    traced = trace_provenance(
        list_views(images, neighbors, COPY_RELATIONS),
        {name.encode(): make_image(name, (widths or {}).get(name, 100)) for name in names},
        {name.encode(): [item] for name, item in (metadata or {}).items()},
        {image: count_marks(image, neighbors[image]) for image in images},
    )
    return {pixel_hash.decode(): provenance for pixel_hash, provenance in traced.items()}


def list_altered(provenances: Mapping[str, Provenance]) -> dict[str, list[str]]:
    return {
        name: sorted(provenance.alterations)
        for name, provenance in provenances.items()
        if provenance.alterations
    }


@pytest.mark.parametrize(
    ("changes", "alteration"),
    [
        ({"mirrored": True}, Alteration.TURNED),
        ({"quarter_turn_deg": 90}, Alteration.TURNED),
        ({"anisotropic": True}, Alteration.STRETCHED),
        ({"changed_regions": ((0.1, 0.1, 0.2, 0.2),)}, Alteration.COVERED),
        ({"changed_share": 0.01}, Alteration.COVERED),
    ],
)
def test_image_that_most_copies_differ_from_was_altered(
    changes: dict[str, Any], alteration: Alteration
) -> None:
    assert list_altered(trace(connect("abcX", {"X": changes}))) == {"X": [alteration]}
    # Of two, either can be the altered one.
    assert list_altered(trace(connect("aX", {"X": changes}))) == {}


def test_overlays_of_copies_do_not_count_against_the_photo() -> None:
    """Most copies of the photo P are covered, each in its own place."""
    sides = {name: Side.SECOND for name in "abc"}
    covered = [
        replace(edge, verdict=replace(edge.verdict, altered_side=sides[name]))
        for name in sides
        if (edge := make_edge("P", name, changed_share=0.05)).verdict
    ]
    others = [make_edge(first, second, changed_share=0.1) for first, second in ("ab", "bc", "ac")]
    plain = [make_edge("P", "d", scale=0.5)]
    provenances = trace([*covered, *others, *plain])
    assert Alteration.COVERED not in provenances["P"].alterations
    unknown = [make_edge("P", name, changed_share=0.05) for name in sides]
    assert Alteration.COVERED in trace([*unknown, *others, *plain])["P"].alterations


@pytest.mark.parametrize(("names", "is_covered"), [("abcdefgh", True), ("abcdefg", False)])
def test_line_of_text_counts_if_it_shows_in_many_copies(names: str, is_covered: bool) -> None:
    """No pair with X alone tells that something small is on it."""
    edges = connect(names + "X", {"X": {"changed_share": 0.002}})
    assert (list_altered(trace(edges)) == {"X": [Alteration.COVERED]}) is is_covered


def test_tones_count_only_against_copies_of_other_tones() -> None:
    toned = {"recolored": True}
    edges = connect("abXY", {"X": toned, "Y": toned})
    assert list_altered(trace(edges)) == {name: [Alteration.RECOLORED] for name in "XY"}
    # Three copies that agree: they may all come from one that was toned.
    assert list_altered(trace(connect("abcX", {"X": toned}))) == {}


def test_gray_image_was_altered_even_if_it_has_one_copy() -> None:
    provenances = trace([make_edge("a", "X", grayscale_side=Side.SECOND, recolored=True)])
    assert list_altered(provenances) == {"X": [Alteration.GRAYSCALE]}


@pytest.mark.parametrize("gain", [-0.5, 0.5])
def test_image_that_is_softer_or_sharper_than_most_copies_was_filtered(gain: float) -> None:
    edges = connect("abcX", {"X": {"detail_gain": gain}})
    assert list_altered(trace(edges)) == {"X": [Alteration.FILTERED]}


def test_image_around_others_is_framed_and_one_within_others_is_cut() -> None:
    screenshot = make_edge("a", "S", overlap=(1.0, 0.4), embedded_side=Side.FIRST)
    crop = make_edge("a", "C", overlap=(0.5, 1.0), derived_side=Side.SECOND)
    assert list_altered(trace([screenshot])) == {"S": [Alteration.FRAMED]}
    assert list_altered(trace([crop])) == {"C": [Alteration.CUT]}
    inside = make_edge("C", "S", overlap=(1.0, 0.2), derived_side=Side.FIRST)
    assert list_altered(trace([screenshot, crop, inside])) == {
        "S": [Alteration.FRAMED],
        "C": [Alteration.CUT],
    }


def test_frame_without_a_seam_shows_by_the_copies_that_have_the_other_extent() -> None:
    """The pair with the bordered image says that the photo was cropped out of it."""
    copies = connect("abcdefgh", {})
    bordered = [make_edge(name, "S", overlap=(1.0, 0.8), derived_side=None) for name in "abcdefgh"]
    assert list_altered(trace([*copies, *bordered])) == {"S": [Alteration.FRAMED]}
    # One copy says nothing.
    assert list_altered(trace(bordered[:1])) == {}


def test_second_frame_around_a_photo_is_known_beside_the_first() -> None:
    """Nothing but the copies of the photo tells that S, which shows the border too, is a frame."""
    edges = connect("abcd", {})
    for name in "abcd":
        edges.append(make_edge(name, "B", overlap=(1.0, 0.9), embedded_side=Side.FIRST))
        edges.append(make_edge(name, "S", overlap=(1.0, 0.3), derived_side=None))
    edges.append(make_edge("B", "S", overlap=(1.0, 0.4), derived_side=None))
    assert list_altered(trace(edges)) == {name: [Alteration.FRAMED] for name in "BS"}


def test_image_with_a_plain_margin_is_padded_if_most_copies_show_it() -> None:
    edges = [make_edge(name, "S", overlap=(1.0, 0.6), plain_background=True) for name in "ab"]
    provenances = trace(edges)
    assert [name for name in "abS" if provenances[name].is_padded] == ["S"]
    # Two of four are not most.
    others = [make_edge(name, "S", overlap=(1.0, 0.6)) for name in "cd"]
    assert trace([*edges, *others[:1]])["S"].is_padded
    assert not trace([*edges, *others])["S"].is_padded


def test_page_around_a_photo_is_framed_and_not_padded() -> None:
    """A page with one tone around the photo shows more than the photo and a margin."""
    page = make_edge("a", "S", overlap=(1.0, 0.6), plain_background=True, embedded_side=Side.FIRST)
    provenances = trace([page])
    assert provenances["S"].alterations == {Alteration.FRAMED}
    assert not provenances["S"].is_padded


def test_camera_file_is_the_photo_whatever_the_copies_of_an_edit_say() -> None:
    edges = connect("abcX", {"X": {"mirrored": True}})
    provenances = trace(edges, {"X": CAMERA})
    assert provenances["X"].is_from_camera
    assert "X" not in list_altered(provenances)
    # An edit that kept the metadata still loses to the camera's own file.
    provenances = trace(edges, {"X": CAMERA, "a": CAMERA})
    assert list_altered(provenances) == {"X": [Alteration.TURNED]}


@pytest.mark.parametrize(
    ("metadata", "is_from_camera"),
    [
        (CAMERA, True),
        (replace(CAMERA, software="Ver.1.00"), True),
        (replace(CAMERA, software="Adobe Photoshop Lightroom 6.0"), False),
        (replace(CAMERA, jpeg=JpegEncoding(90, False, "4:2:0", "editor")), False),
        (replace(CAMERA, stated_width=4000), False),
        (replace(CAMERA, stated_width=None), True),
        (ImageMetadata(Capture(model="EOS R6")), False),
        (ImageMetadata(), False),
    ],
)
def test_camera_file_has_its_settings_and_size_and_no_editor(
    metadata: ImageMetadata, is_from_camera: bool
) -> None:
    assert is_camera_file(metadata, make_image("a")) is is_from_camera


def test_image_whose_noise_fits_the_copies_less_is_secondhand() -> None:
    noise = {"a": 0.9, "X": 0.6}
    edges = [
        make_edge(first, second, min(noise.get(first, 0.8), noise.get(second, 0.8)))
        for number, first in enumerate("abcdX")
        for second in "abcdX"[number + 1 :]
    ]
    assert trace(edges)["X"].is_secondhand
    assert not trace(edges)["a"].is_secondhand


@pytest.mark.parametrize("relation", [Relation.SIMILAR, Relation.SAME_TEMPLATE])
def test_image_with_something_on_it_is_derived_though_its_pair_is_in_doubt(
    relation: Relation,
) -> None:
    """A crop is a copy of the photo and of the photo with captions beside it."""
    crops = [make_edge(name, "C", overlap=(0.5, 1.0), derived_side=Side.SECOND) for name in "PM"]
    in_doubt = Verdict(relation, 30, 30, 0.8, altered_side=Side.SECOND)
    captioned = Edge(b"P", b"M", relation, 0.9, in_doubt)
    for edge in (
        captioned,
        replace(captioned, left=b"M", right=b"P", verdict=in_doubt.swap_sides()),
    ):
        provenances = trace([*crops, edge])
        assert {name: item.is_derived for name, item in provenances.items()} == {
            "P": False,
            "M": True,
            "C": True,
        }


def test_photo_with_copies_is_not_derived_because_of_a_pair_in_doubt() -> None:
    in_doubt = Verdict(Relation.SIMILAR, 30, 30, 0.8, altered_side=Side.FIRST)
    edges = [*connect("Pab", {}), Edge(b"P", b"S", Relation.SIMILAR, 0.9, in_doubt)]
    assert not trace(edges)["P"].is_derived


def test_upscaled_image_is_no_soft_photo() -> None:
    small = [make_edge(name, "s", scale=0.5) for name in "abX"]
    edges = connect("ab", {}) + [make_edge(name, "X", scale=2.0) for name in "ab"]
    upscaled = make_edge("X", "s", scale=0.25, upscaled_side=Side.FIRST)
    provenances = trace([*edges, *small[:2], upscaled], widths={"X": 400, "s": 25})
    assert [name for name, item in provenances.items() if item.is_upscaled] == ["X"]
    # If its copies of one size look upscaled, too, the photo has no more detail.
    soft = [make_edge(name, "s", scale=0.5, upscaled_side=Side.FIRST) for name in "ab"]
    provenances = trace([*connect("ab", {}), *soft], widths={"s": 50})
    assert not any(item.is_upscaled for item in provenances.values())


def test_photo_is_soft_if_all_its_smaller_copies_look_upscaled_too() -> None:
    edges = [
        make_edge(name, "s", scale=0.5, fine_detail=0.05, upscaled_side=Side.FIRST)
        for name in "Pab"
    ]
    edges += [*(make_edge("P", name, scale=0.8) for name in "ab"), make_edge("a", "b")]
    widths = {"P": 100, "a": 80, "b": 80, "s": 25}
    assert not any(item.is_upscaled for item in trace(edges, widths=widths).values())
    # One was made from the photo, and shows detail: what is larger was enlarged.
    edges[1] = make_edge("a", "s", scale=0.5, fine_detail=0.5)
    upscaled = [name for name, item in trace(edges, widths=widths).items() if item.is_upscaled]
    assert sorted(upscaled) == ["P", "b"]


@pytest.mark.parametrize(
    ("names", "detail", "is_upscaled"),
    [("abcdefgh", 0.12, True), ("abcdefg", 0.12, False), ("abcdefgh", 0.13, False)],
)
def test_image_with_little_detail_beyond_many_copies_is_upscaled(
    names: str, detail: float, is_upscaled: bool
) -> None:
    """No pair alone says that X is, which shows the photo and all its copies enlarged."""
    enlarged = [make_edge(name, "X", scale=2.0, fine_detail=detail) for name in names]
    provenances = trace([*connect(names, {}), *enlarged], widths={"X": 400})
    upscaled = [name for name, item in provenances.items() if item.is_upscaled]
    assert upscaled == ["X"] * is_upscaled


@given(order=permutations(range(6)))
def test_order_of_edges_and_their_direction_do_not_matter(order: list[int]) -> None:
    edges = [
        make_edge("a", "b", overlap=(1.0, 0.7), derived_side=Side.FIRST),
        make_edge("a", "c", grayscale_side=Side.SECOND, recolored=True),
        make_edge("b", "c", overlap=(0.7, 1.0), changed_share=0.1),
        make_edge("c", "d", mirrored=True, detail_gain=0.4),
        make_edge("b", "d", overlap=(0.7, 1.0), mirrored=True),
        make_edge("a", "d", mirrored=True, scale=2.0),
    ]
    mixed = [swap(edges[index]) if index % 2 else edges[index] for index in order]
    assert trace(mixed) == trace(edges)


def swap(edge: Edge) -> Edge:
    assert edge.verdict
    return replace(edge, left=edge.right, right=edge.left, verdict=edge.verdict.swap_sides())


@pytest.mark.parametrize(
    "caption", [{"changed_share": 0.05}, {"changed_regions": ((0.1, 0.9, 0.9, 1.0),)}]
)
def test_copy_of_a_copy_was_made_from_it(caption: dict[str, Any]) -> None:
    """b is a captioned, c is b cropped, d is b smaller; all are near a, too."""
    edges = [
        make_edge("a", "b", 0.9, **caption),
        make_edge("a", "c", 0.6, overlap=(0.7, 1.0), derived_side=Side.SECOND, **caption),
        make_edge("b", "c", 0.9, overlap=(0.7, 1.0), derived_side=Side.SECOND),
        make_edge("a", "d", 0.7, scale=0.5, **caption),
        make_edge("b", "d", 0.95, scale=0.5),
        make_edge("c", "d", 0.8, scale=0.5, overlap=(1.0, 0.7), derived_side=Side.FIRST),
    ]
    images = {name.encode() for name in "abcd"}
    views = list_views(images, list_neighbors(edges, images), COPY_RELATIONS)
    altered = {b"a": frozenset[Alteration]()} | dict.fromkeys(
        (b"b", b"d"), frozenset({Alteration.COVERED})
    )
    altered[b"c"] = frozenset({Alteration.COVERED, Alteration.CUT})
    parents = find_parents(b"a", [b"b", b"d", b"c"], views, altered)
    assert parents == {b"b": b"a", b"d": b"b", b"c": b"b"}
    assert find_parents(b"a", [b"x"], {b"a": [], b"x": []}, {}) == {}


def test_border_around_a_photo_is_known_among_crops_of_the_photo() -> None:
    """A crop lies within the photo, so that it has no seam in the bordered copy, either."""
    in_border: dict[str, Any] = {
        "overlap": (1.0, 0.85),
        "embedded_side": Side.FIRST,
        "plain_background": True,
    }
    edges = [make_edge("P", "B", **in_border, derived_side=Side.SECOND)]
    for crop in "cde":
        edges += [
            make_edge("P", crop, overlap=(0.5, 1.0), derived_side=Side.SECOND),
            make_edge("B", crop, overlap=(0.42, 1.0), derived_side=Side.SECOND),
        ]
    altered = list_altered(trace(edges))
    assert altered["B"] == [Alteration.FRAMED]
    assert "P" not in altered


def test_one_pair_that_shows_all_of_each_other_by_chance_does_not_join_two_extents() -> None:
    framed: dict[str, Any] = {
        "overlap": (1.0, 0.8),
        "embedded_side": Side.FIRST,
        "derived_side": Side.SECOND,
    }
    edges = [make_edge("a", "b"), make_edge("X", "Y"), make_edge("a", "X", overlap=(0.98, 0.97))]
    edges += [make_edge(first, second, **framed) for first, second in ("aY", "bX", "bY")]
    assert list_altered(trace(edges)) == {name: [Alteration.FRAMED] for name in "XY"}


@pytest.mark.parametrize(
    ("nearer_to_photo", "nearer_to_copy", "secondhand"), [(4, 1, "X"), (3, 2, ""), (2, 0, "")]
)
def test_only_a_large_majority_of_their_copies_tells_which_of_two_is_nearer(
    nearer_to_photo: int, nearer_to_copy: int, secondhand: str
) -> None:
    """A copy that was made from X is nearer to X, and any other to the photo P."""
    edges = [make_edge("P", "X", 0.8)]
    for number in range(nearer_to_photo + nearer_to_copy):
        to_photo, to_copy = (0.7, 0.5) if number < nearer_to_photo else (0.5, 0.7)
        name = str(number)
        edges += [make_edge("P", name, to_photo), make_edge("X", name, to_copy)]
    provenances = trace(edges, widths={str(number): 50 for number in range(5)})
    found = {name for name in "PX" if provenances[name].is_secondhand}
    assert found == set(secondhand)
