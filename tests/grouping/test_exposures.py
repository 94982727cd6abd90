"""Two exposures by their metadata, and what programs do to metadata that is no evidence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexes.metadata import NO_METADATA, Capture, ImageMetadata
from pipeline.grouping.exposures import (
    Exposures,
    NamedMetadata,
    compare_files,
    find_exposure_difference,
    is_same_exposure,
)

SHOT = ImageMetadata(
    Capture(
        make="Canon",
        model="Canon EOS 40D",
        taken="2021-05-30 15:56:01",
        subseconds="27",
        exposure_time=1 / 60,
        exposure_bias=0.0,
        aperture=5.6,
        iso=200,
        focal_length=50.0,
        image_number=1001,
    ),
    software="Firmware 1.1",
    modified="2021-05-30 15:56:01",
)
WITHOUT_SUBSECONDS: dict[str, Any] = {"subseconds": None}
LATER: dict[str, Any] = {"taken": "2021-05-30 15:56:04"}


def change(shot: ImageMetadata = SHOT, **fields: Any) -> ImageMetadata:
    """The metadata with other fields, of the capture where it has them."""
    capture = {
        name: value for name, value in fields.items() if name in Capture.__dataclass_fields__
    }
    others = {name: value for name, value in fields.items() if name not in capture}
    return replace(shot, capture=replace(shot.capture, **capture), **others)


def find_difference(first: ImageMetadata, second: ImageMetadata) -> str | None:
    """The field that differs, or "perhaps" and the field; it must not depend on the order."""
    difference = find_exposure_difference(first, second)
    assert find_exposure_difference(second, first) == difference
    if difference is None:
        return None
    return difference.field if difference.is_certain else f"perhaps {difference.field}"


@pytest.mark.parametrize(
    ("fields", "difference"),
    [
        ({"subseconds": "91"}, "sub-seconds"),
        (LATER | {"subseconds": "91", "image_number": None}, "date"),
        (LATER | WITHOUT_SUBSECONDS | {"image_number": None}, "date"),
        (
            LATER | {"exposure_time": None, "subseconds": None, "image_number": None},
            "date",
        ),
        (
            {"taken": "2022-05-30 15:56:01", "iso": None, "subseconds": None, "image_number": None},
            "date",
        ),
        (LATER | {"subseconds": "28", "exposure_time": 1 / 15}, "exposure time"),
        (WITHOUT_SUBSECONDS | {"exposure_time": 1 / 15}, "exposure time"),
        (WITHOUT_SUBSECONDS | {"exposure_bias": -2.0, "iso": None}, "exposure bias"),
        (WITHOUT_SUBSECONDS | {"aperture": 8.0, "taken": None}, "aperture"),
        (WITHOUT_SUBSECONDS | {"iso": 400}, "sensitivity"),
        (WITHOUT_SUBSECONDS | {"focal_length": 70.0}, "focal length"),
        (WITHOUT_SUBSECONDS | {"image_number": 1002}, "image number"),
    ],
)
def test_other_exposure_of_one_camera_is_told_apart(
    fields: dict[str, Any], difference: str
) -> None:
    assert find_difference(SHOT, change(**fields)) == difference


@pytest.mark.parametrize(
    "fields",
    [
        {},
        # What copies lose.
        {"subseconds": None, "image_number": None},
        {"make": None, "model": None, "taken": None, "exposure_time": None, "iso": None},
        # What programs round, cut off or write in another way.
        {"subseconds": "2"},
        {"subseconds": "270"},
        {"model": "EOS 40D", "make": "CANON"},
        {"exposure_time": 0.017, "aperture": 5.66, "subseconds": None},
        # The depth of a portrait was edited.
        {"aperture": 2.8, "subseconds": None, "image_number": None},
        # It lets in no other light.
        {"exposure_bias": -2.0, "subseconds": None},
        # A clock was corrected.
        {"taken": "2021-05-30 15:59:13"},
        {"taken": "2021-05-30 15:59:13", "subseconds": None},
        {"taken": "2021-05-30 18:59:13", "image_number": None},
        # Another camera: what wrote the fields is not known.
        {"model": "Canon EOS R5", "taken": "2022-01-01 10:00:00", "iso": 800},
        {"body_serial": "2", "taken": "2022-01-01 10:00:00"},
    ],
)
def test_what_programs_do_to_one_exposure_is_no_difference(fields: dict[str, Any]) -> None:
    assert find_difference(change(body_serial="1"), change(**fields)) is None


@pytest.mark.parametrize(
    ("fields", "difference"),
    [
        # An editor wrote settings of its own, or the camera writes equal sub-seconds.
        ({"exposure_bias": 0.7, "iso": 100}, "perhaps exposure bias"),
        # But no editor writes another exposure time.
        ({"exposure_time": 1 / 250}, "exposure time"),
        # A clock was corrected, or a timer fired.
        ({"taken": "2021-05-30 15:56:06"}, "perhaps date"),
        # The first frame of a second has sub-seconds too.
        ({"subseconds": "00"}, "sub-seconds"),
    ],
)
def test_equal_sub_seconds_leave_a_hint(fields: dict[str, Any], difference: str) -> None:
    shot = change(image_number=None)
    assert find_difference(shot, change(shot, **fields)) == difference


@pytest.mark.parametrize(
    ("taken", "difference"),
    [
        ("2021-05-30 15:56:26", "date"),
        ("2021-05-30 16:55:00", "date"),
        ("2021-05-30 16:26:01", "perhaps date"),
        ("2021-05-30 17:03:44", "perhaps date"),
        ("2020-04-30 17:03:44", "perhaps date"),
    ],
)
def test_date_alone_proves_another_exposure_within_an_hour(taken: str, difference: str) -> None:
    shot = change(subseconds=None, image_number=None)
    assert find_difference(shot, change(shot, taken=taken)) == difference


@pytest.mark.parametrize(
    ("kept", "software"),
    [({}, "Meitu"), ({"subseconds": "07"}, "PicsArt"), ({"iso": None}, "Snapseed 2.0")],
)
def test_date_of_an_edit_is_no_difference(kept: dict[str, Any], software: str) -> None:
    edited = change(
        taken="2021-06-03 20:01:10", modified="2021-06-03 20:01:10", software=software, **kept
    )
    assert find_difference(SHOT, edited) is None
    # The next frame of the burst, edited by a program that keeps the date, is another exposure.
    sibling = change(
        taken="2021-05-30 15:56:02",
        modified="2021-06-03 20:01:10",
        software=software,
        subseconds="31",
    )
    assert find_difference(SHOT, sibling) == "date"


def test_firmware_that_writes_both_dates_alike_is_no_editor() -> None:
    later = change(taken="2021-05-30 15:56:04", modified="2021-05-30 15:56:04", subseconds="90")
    assert find_difference(SHOT, later) == "date"


def test_edit_of_google_or_apple_is_no_other_exposure() -> None:
    phone = change(
        make="Google", model="Pixel 7", software="HDR+ 1.0", unique_id="0123456789abcdef0123"
    )
    google = change(phone, software="Google", unique_id="fedcba98765432100123", subseconds=None)
    assert find_difference(phone, google) is None
    iphone = change(make="Apple", model="iPhone 13", software="17.1", content_id="A")
    apple = change(iphone, software="17.1", modified="2021-06-03 20:01:10", aperture=2.8)
    assert find_difference(iphone, apple) is None


def test_other_unique_id_is_another_exposure_unless_it_is_of_the_sensor() -> None:
    ids = ["77c6274bd589ad50395891e84a8b673b", "88c6274bd589ad50395891e84a8b673b"]
    first, second = (change(unique_id=id_, subseconds=None) for id_ in ids)
    assert find_difference(first, second) == "unique id"
    first, second = (change(unique_id=id_, subseconds=None) for id_ in ("F16QLHF", "F16QLHG"))
    assert find_difference(first, second) is None


@pytest.mark.parametrize("device", [{"make": "EPSON"}, {"model": "CanoScan 9000F"}])
def test_two_scans_of_one_print_are_no_two_exposures(device: dict[str, Any]) -> None:
    scan = change(**device)
    assert find_difference(scan, change(scan, taken="2021-06-01 10:00:00", subseconds="3")) is None
    film = change(source="scanner")
    assert find_difference(film, change(film, exposure_time=0.5, subseconds="3")) is None


def test_date_without_a_camera_is_no_difference() -> None:
    """Tools write dates from names into the copies of messengers, which have no other metadata."""
    first = ImageMetadata(Capture(taken="2021-05-30 15:56:01"))
    assert find_difference(first, ImageMetadata(Capture(taken="2021-05-31 08:00:07"))) is None


def test_zeros_of_a_camera_without_subseconds_say_nothing() -> None:
    zeros = change(subseconds="00", image_number=None)
    assert find_difference(zeros, change(zeros, **LATER)) == "date"
    assert not is_same_exposure(zeros, zeros)


TEXTS = st.none() | st.sampled_from(["a", "Canon", "scan", "0123456789abcdef", "2021-05-30"])
NUMBERS = st.none() | st.floats(-1e9, 1e9, allow_nan=False)
CAPTURES = st.builds(
    Capture,
    **{name: TEXTS for name in ("make", "model", "body_serial", "unique_id", "subseconds")},
    taken=st.none() | st.sampled_from(["2021-05-30 15:56:01", "2021-05-30 15:56:02", "nonsense"]),
    **{name: NUMBERS for name in ("exposure_time", "exposure_bias", "aperture", "focal_length")},
    iso=st.none() | st.integers(1, 10**6),
)
METADATA = st.builds(ImageMetadata, CAPTURES, software=TEXTS, modified=TEXTS)


@given(METADATA, METADATA)
def test_order_does_not_matter_and_nothing_differs_from_itself(
    first: ImageMetadata, second: ImageMetadata
) -> None:
    find_difference(first, second)
    assert find_difference(first, first) is None
    assert find_difference(first, NO_METADATA) is None


@given(METADATA, st.sets(st.sampled_from(sorted(Capture.__dataclass_fields__))))
def test_copy_that_lost_fields_is_no_other_exposure(
    metadata: ImageMetadata, lost: set[str]
) -> None:
    assert find_difference(metadata, change(metadata, **dict.fromkeys(lost))) is None


def test_equal_exposures_of_two_files_outweigh_differences_of_others() -> None:
    corrected = change(taken="2021-05-30 15:59:01", subseconds=None, image_number=None)
    exposures = Exposures(
        {
            b"a": [NamedMetadata(SHOT), NamedMetadata(corrected)],
            b"b": [NamedMetadata(SHOT)],
            b"c": [NamedMetadata(change(subseconds="91"))],
            b"d": [NamedMetadata(corrected)],
        }
    )
    assert exposures.find_difference(b"a", b"b") is None
    for pair in ((b"a", b"c"), (b"c", b"a")):
        difference = exposures.find_difference(*pair)
        assert difference and difference.field == "sub-seconds"
        assert exposures.are_apart(*pair)
    assert exposures.are_apart(b"b", b"d")
    assert exposures.find_difference(b"a", b"unknown") is None


@pytest.mark.parametrize(
    ("first", "second", "is_burst"),
    [
        ("00001IMG_00001_BURST20171111030039.jpg", "00002IMG_00002_BURST20171111030039.jpg", True),
        ("00001IMG_00001_BURST20171111030039.jpg", "00002IMG_00002_BURST20171111030041.jpg", False),
        ("IMG_20231014_183246_BURST001_COVER.jpg", "IMG_20231014_183246_BURST002.jpg", True),
        ("DSC_0001_BURST20230709220904977.JPG", "DSC_0035_BURST20230709220904977.JPG", True),
        ("20231207_101605_031.jpg", "20231207_101605_032.jpg", True),
        ("20231207_101605_031.jpg", "20231207_101605_031 (1).jpg", False),
        ("20231207_101605_031.jpg", "20231207_101605_031.webp", False),
        ("20231207_101605.jpg", "20231207_101605_001.jpg", False),
        ("holiday1.jpg", "holiday2.jpg", False),
    ],
)
def test_names_of_one_burst_are_a_hint(first: str, second: str, *, is_burst: bool) -> None:
    dated = change(subseconds=None)
    for metadata, expected in ((NO_METADATA, is_burst), (dated, is_burst), (SHOT, False)):
        files = [NamedMetadata(metadata, [f"/photos/{name}"]) for name in (first, second)]
        difference = compare_files(files[0], files[1])
        assert (difference is not None and not difference.is_certain) is expected
        exposures = Exposures({b"a": files[:1], b"b": files[1:]})
        assert exposures.find_difference(b"a", b"b") == difference
