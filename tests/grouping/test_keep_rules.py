from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists, permutations, sampled_from

from indexes.records import FileStat, Image
from pipeline.decode.readers.pillow import ALLOWED_FORMATS
from pipeline.errors import InvalidKeepRule
from pipeline.grouping.alterations import Alteration
from pipeline.grouping.assets import AssetPart, PartRole
from pipeline.grouping.keep_rules import (
    FORMAT_RANK,
    KEEP_RULES,
    KeepRules,
    LibraryFile,
)
from pipeline.grouping.losses import Losses
from pipeline.grouping.provenance import Provenance

RECENT_NS = 1_600_000_000 * 10**9  # in 2020; a time before 1990 is no date
PLAIN = LibraryFile(
    "/photos/plain.jpg",
    FileStat(1000, RECENT_NS + 50, 0, 1, 1),
    Image(b"1", b"1", 100, 100, "JPEG", 1000, False),
)
OVERRULED = "oldest, although another is likely the original"
RULE_NAMES = [*KEEP_RULES, "folder:Albums"]


def make_file(
    path: str = "/photos/other.jpg", mtime: int = 50, is_missing: bool = False, **fields: object
) -> LibraryFile:
    image = replace(PLAIN.image, **fields)  # type: ignore[arg-type] # of any field
    return LibraryFile(path, FileStat(1000, RECENT_NS + mtime, 0, 2, 1), image, is_missing)


def replace_image(file: LibraryFile, **fields: object) -> LibraryFile:
    return replace(file, image=replace(file.image, **fields))  # type: ignore[arg-type] # as above


def make_part(role: PartRole, *, is_missing: bool = False) -> AssetPart:
    return AssetPart("/photos/part", PLAIN.stat, role, is_missing=is_missing)


def choose(
    first: LibraryFile, second: LibraryFile, keep_rules: KeepRules, *provenances: Provenance
) -> LibraryFile:
    """The file that the rules keep; `provenances` are those of the first and of the second."""
    of_first, of_second = provenances or (Provenance(), Provenance())
    first_key = keep_rules.make_rank_key(first, of_first)
    return first if first_key < keep_rules.make_rank_key(second, of_second) else second


# For each rule, a file that this rule alone prefers to PLAIN.
BETTER = {
    "resolution": make_file(width=200),
    "format": make_file(format="NEF"),
    "parts": replace(make_file(), parts=(make_part(PartRole.VIDEO),)),
    "metadata": make_file(metadata_kinds=("date", "place")),
    "date": make_file(mtime=40),
    "bytes": make_file(size=2000),
    "folder:Albums": make_file("/photos/Albums/2019/other.jpg"),
    "path": make_file("/p/other.jpg"),
}


@pytest.mark.parametrize("name", BETTER)
def test_rule_alone_decides_and_names_its_reason(name: str) -> None:
    keep_rules = KeepRules([name])
    better = BETTER[name]
    assert choose(PLAIN, better, keep_rules) == choose(better, PLAIN, keep_rules) == better
    reasons = {
        "resolution": "most pixels",
        "format": "richest format",
        "parts": "most parts",
        "metadata": "most metadata",
        "date": "oldest",
        "bytes": "most bytes",
        "folder:Albums": "in Albums",
        "path": "shortest path",
    }
    keeper_key, other_key = (
        keep_rules.make_rank_key(file, Provenance()) for file in (better, PLAIN)
    )
    assert keep_rules.explain_choice(keeper_key, [other_key]) == reasons[name]


@pytest.mark.parametrize(
    "pattern",
    [
        "Albums",
        "photos/Albums",
        "Albums/2019",
        "/photos/Albums",
        "*/Albums",
        "Alb*",
        "phot*/Albums/",
    ],
)
def test_folder_rule_matches_name_or_end_of_path(pattern: str) -> None:
    keep_rules = KeepRules([f"folder:{pattern}"])
    paths = [PLAIN.path, BETTER["folder:Albums"].path]
    assert choose(PLAIN, BETTER["folder:Albums"], keep_rules) == BETTER["folder:Albums"]
    assert keep_rules.find_unused(paths) == []
    assert keep_rules.find_unused(paths[:1]) == [f"folder:{pattern}"]


@pytest.mark.parametrize(
    "pattern", ["albums", "Album", "hotos/Albums", "/Albums", "2019/other.jpg"]
)
def test_folder_rule_without_match_is_unused(pattern: str) -> None:
    keep_rules = KeepRules([f"folder:{pattern}", "date"])
    assert keep_rules.find_unused([BETTER["folder:Albums"].path]) == [f"folder:{pattern}"]


@given(order=permutations(list(BETTER)))
def test_rule_named_first_decides(order: list[str]) -> None:
    keep_rules = KeepRules(order)
    for position, name in enumerate(order):
        for later in order[position + 1 :]:
            # A file in a folder has a longer path.
            if "folder:Albums" not in (name, later) or "path" not in order[: position + 1]:
                winner = choose(BETTER[name], BETTER[later], keep_rules)
                assert winner == BETTER[name], (name, later)


@given(names=lists(sampled_from(RULE_NAMES), unique=True), missing=integers(0, 1))
def test_present_and_undamaged_file_is_kept_under_any_rules(names: list[str], missing: int) -> None:
    keep_rules = KeepRules(names)
    worse = make_file(
        "/Albums/a",
        1,
        bool(missing),
        width=900,
        flags=("damaged",),
        format="NEF",
        metadata_kinds=("date",),
        size=9000,
    )
    assert choose(PLAIN, worse, keep_rules) == PLAIN
    # Rules that are not named follow.
    assert sorted({*keep_rules.names} | {"folder:Albums"}) == sorted(RULE_NAMES)


def test_derived_upscaled_or_padded_image_is_not_kept() -> None:
    large, no_hints = make_file(width=900), Provenance()
    derived, padded = Provenance(is_derived=True), Provenance(is_padded=True)
    default, resolution = KeepRules(), KeepRules(["resolution"])
    assert choose(PLAIN, large, default, no_hints, derived) == PLAIN
    assert choose(PLAIN, large, default, no_hints, Provenance(is_upscaled=True)) == PLAIN
    assert choose(PLAIN, large, default, no_hints, padded) == PLAIN
    assert choose(PLAIN, large, default, derived, padded) == large
    # `original` comes first unless it is named.
    assert choose(PLAIN, large, resolution, no_hints, derived) == PLAIN
    original_last = KeepRules(["resolution", "original"])
    assert choose(PLAIN, large, original_last, no_hints, derived) == large


def test_richer_format_is_kept() -> None:
    order = ["NEF", "TIFF", "JPEG", "WEBP", "GIF"]
    for richer, poorer in zip(order, order[1:], strict=False):
        winner = choose(make_file(format=poorer), make_file(format=richer), KeepRules())
        assert winner.image.format == richer
    # An HEIC of a camera comes before a JPEG, another one was made from it.
    for format_ in ("HEIF", "AVIF"):
        converted = make_file(format=format_, size=9000, metadata_kinds=("date",))
        assert choose(PLAIN, converted, KeepRules()) == PLAIN
        of_camera = replace_image(converted, metadata_kinds=("camera", "date"))
        assert choose(PLAIN, of_camera, KeepRules()) == of_camera
    tiff, heif = make_file(format="TIFF", size=1), make_file(format="HEIF", size=2)
    assert choose(tiff, heif, KeepRules(["bytes"])).image.size == 2
    # A PNG ranks beside a JPEG.
    png = make_file("/a.png", format="PNG")
    assert choose(png, PLAIN, KeepRules(["date", "path"])).path == "/a.png"


@pytest.mark.parametrize(
    ("losses", "reason"),
    [
        (Losses(is_strongly_compressed=True), "not compressed more strongly"),
        (Losses(is_resaved=True), "not saved from a JPEG"),
        (Losses(has_lost_colors=True), "more colors"),
        (Losses(lost_bits=8), "more bits per color"),
    ],
)
def test_what_is_in_a_file_outranks_its_format(losses: Losses, reason: str) -> None:
    keep_rules, poorer = KeepRules(), make_file("/a.tiff", format="TIFF", size=9000)
    full, less = Provenance(), Provenance(losses=losses)
    assert choose(PLAIN, poorer, keep_rules, full, full) == poorer
    assert choose(PLAIN, poorer, keep_rules, full, less) == PLAIN
    # More pixels outrank it.
    assert choose(PLAIN, replace_image(poorer, width=900), keep_rules, full, less) != PLAIN
    keys = [
        keep_rules.make_rank_key(file, provenance)
        for file, provenance in ((PLAIN, full), (poorer, less))
    ]
    assert keep_rules.explain_choice(keys[0], keys[1:]) == reason


@pytest.mark.parametrize(
    ("names", "of_keeper", "of_other", "reason"),
    [
        (["date", "original"], Provenance(is_derived=True), Provenance(), OVERRULED),
        (
            ["date", "original"],
            Provenance(alterations=frozenset({Alteration.TURNED})),
            Provenance(is_derived=True),
            OVERRULED,
        ),
        (["date"], Provenance(is_upscaled=True), Provenance(), OVERRULED),
        (["date", "original"], Provenance(), Provenance(is_derived=True), "oldest"),
        (["date", "original"], Provenance(), Provenance(), "oldest"),
        (
            ["original", "date"],
            Provenance(),
            Provenance(is_derived=True),
            "not derived from another",
        ),
    ],
)
def test_rule_of_the_user_that_overrules_provenance_says_so(
    names: list[str], of_keeper: Provenance, of_other: Provenance, reason: str
) -> None:
    keep_rules, older = KeepRules(names), make_file(mtime=40)
    keys = [
        keep_rules.make_rank_key(older, of_keeper),
        keep_rules.make_rank_key(PLAIN, of_other),
    ]
    assert keys[0] < keys[1]
    assert keep_rules.explain_choice(keys[0], keys[1:]) == reason


def test_keeper_that_ranks_after_a_member_overrules_no_provenance() -> None:
    """A member in doubt by itself joins by its copies, whatever its rank."""
    keep_rules = KeepRules()
    keys = [
        keep_rules.make_rank_key(PLAIN, Provenance(is_derived=True)),
        keep_rules.make_rank_key(make_file(), Provenance()),
    ]
    assert keys[1] < keys[0]
    assert "likely the original" not in keep_rules.explain_choice(keys[0], keys[1:])


def test_rules_before_all_others_overrule_no_provenance() -> None:
    """That a file is missing is no choice of the user."""
    keep_rules, missing = KeepRules(["date", "original"]), make_file(is_missing=True)
    keys = [
        keep_rules.make_rank_key(PLAIN, Provenance(is_derived=True)),
        keep_rules.make_rank_key(missing, Provenance()),
    ]
    assert keep_rules.explain_choice(keys[0], keys[1:]) == "not missing or changed"


def test_date_rule_prefers_time_taken_to_modification_time() -> None:
    camera = make_file("/long name.jpg", mtime=90 * 10**9, taken_at=10)
    copy, by_date = make_file(mtime=20 * 10**9), KeepRules(["date"])
    assert choose(camera, copy, by_date) == camera
    winner = choose(make_file(mtime=5, taken_at=10), replace(camera, path="/"), by_date)
    assert winner.stat.mtime_ns == RECENT_NS + 5


def test_among_equal_pixels_lossy_file_with_most_metadata_is_kept() -> None:
    keep_rules = KeepRules()
    resaved, stripped = (
        make_file(format="PNG", metadata_kinds=("date",)),
        make_file("/p.jpg", mtime=1),
    )
    complete = make_file("/photos/complete.jpg", metadata_kinds=("camera", "date"))
    ranked = sorted([resaved, stripped, complete], key=keep_rules.make_equal_pixels_rank_key)
    assert ranked == [complete, stripped, resaved]
    keys = [keep_rules.make_equal_pixels_rank_key(file) for file in (complete, resaved, stripped)]
    reason = keep_rules.explain_choice(keys[0], keys[1:], equal_pixels=True)
    assert reason == "not a lossless copy, most metadata"


@pytest.mark.parametrize(
    ("pattern", "path", "is_in"),
    [
        ("Albums", "/x/Albums/2019/a.jpg", True),
        ("Alb*", "/x/Albums/a.jpg", True),
        ("albums", "/x/Albums/a.jpg", False),
        ("a.jpg", "/x/a.jpg", False),  # the file is not a folder
        ("/x/Albums", "/x/Albums/2019/a.jpg", True),
        ("/x/Albums/", "/x/Albums/2019/a.jpg", True),
        ("/x/*/2019", "/x/Albums/2019/a.jpg", True),
        ("/x/Alb", "/x/Albums/a.jpg", False),
        ("~/Albums", "/home/someone/Albums/a.jpg", True),
    ],
)
def test_folder_rule_prefers_files_below_matching_folder(
    pattern: str, path: str, is_in: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    newer, older = make_file(path, mtime=99), make_file("/b.jpg", mtime=1)
    assert choose(newer, older, KeepRules([f"folder:{pattern}"])) == (newer if is_in else older)


@pytest.mark.parametrize(
    "names",
    [
        ["size"],
        [""],
        ["folder:"],
        ["folder:/"],
        ["date", "date"],
        ["Date"],
        ["resolution ", "date"],
    ],
)
def test_unknown_or_repeated_rule_is_refused(names: list[str]) -> None:
    with pytest.raises(InvalidKeepRule, match="rule"):
        KeepRules(names)


def test_raw_file_counts_more_than_other_parts_and_a_missing_one_not_at_all() -> None:
    raw, sidecar = make_part(PartRole.RAW), make_part(PartRole.SIDECAR)
    with_raw = replace(PLAIN, parts=(raw,))
    with_sidecars = replace(make_file(), parts=(sidecar, sidecar))
    assert choose(with_sidecars, with_raw, KeepRules(["parts"])) is with_raw
    assert choose(PLAIN, with_sidecars, KeepRules(["parts"])) is with_sidecars
    away = replace(make_file(), parts=(make_part(PartRole.RAW, is_missing=True),))
    assert choose(away, with_sidecars, KeepRules(["parts"])) is with_sidecars


def test_photo_with_its_raw_file_ranks_as_that_by_format() -> None:
    with_raw = replace(PLAIN, parts=(make_part(PartRole.RAW),))
    heic = make_file(format="HEIF", metadata_kinds=("camera",))
    assert choose(PLAIN, heic, KeepRules()) is heic
    assert choose(with_raw, heic, KeepRules()) is with_raw
    raw = make_file(format="RAW")
    assert choose(with_raw, raw, KeepRules()) is with_raw


def test_larger_lossless_copy_of_a_good_jpeg_is_kept_for_its_metadata_alone() -> None:
    png = make_file(format="PNG", size=5000)
    described = make_file(format="PNG", metadata_kinds=("date",))
    rules, lossless = KeepRules(), Provenance(losses=Losses(is_lossless_copy=True))
    keys = [rules.make_rank_key(file, lossless) for file in (png, described)]
    jpeg_key = rules.make_rank_key(PLAIN, Provenance())
    assert keys[1] < jpeg_key < keys[0]
    assert rules.explain_choice(jpeg_key, [keys[0]]) == "not a lossless copy"


def test_path_is_the_last_rule_and_every_other_has_an_example() -> None:
    """Paths differ always, so that a rule after `path` would decide nothing by default."""
    assert list(KEEP_RULES)[-1] == "path"
    assert {"original", "lossy", *BETTER} >= set(KEEP_RULES)


def test_every_format_that_is_not_raw_has_a_rank() -> None:
    """Without one it would count as raw, and beat every JPEG."""
    assert {*ALLOWED_FORMATS, "HEIF", "JXL"} <= set(FORMAT_RANK)


def test_time_before_1990_is_no_date() -> None:
    dated, by_date = make_file("/dated, with a long path.jpg", mtime=99), KeepRules(["date"])
    for mtime in (0, 315_532_800 * 10**9):  # the epochs of Unix and FAT
        reset = make_file("/reset.jpg", mtime=mtime - RECENT_NS)
        assert choose(reset, dated, by_date) == dated
        assert choose(reset, replace(reset, path="/b.jpg"), by_date).path == "/b.jpg"
