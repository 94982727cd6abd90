"""The text of groups, and the count of the files close to them."""

from __future__ import annotations

from dataclasses import replace

from indexes.records import FileStat, Image
from pipeline.grouping.assets import AssetPart, PartRole
from pipeline.grouping.cluster import Group, RelatedFile
from pipeline.grouping.keep_rules import LibraryFile
from pipeline.grouping.match import Match
from pipeline.report.groups import format_groups, format_related
from pipeline.verify.relation import Relation


def make_file(name: str) -> LibraryFile:
    image = Image(name.encode(), name.encode(), 100, 100, "JPEG", 1000, False)
    return LibraryFile(f"/photos/{name}.jpg", FileStat(1000, 0, 0, 1, 1), image)


def make_group(keeper: str, members: str, related: dict[str, Relation]) -> Group:
    file = make_file(keeper)
    return Group(
        keeper,
        file,
        tuple(Match(make_file(name), Relation.DERIVED, 0.9) for name in members),
        "most pixels",
        tuple(RelatedFile(make_file(name), file, how, 0.8) for name, how in related.items()),
    )


def test_text_names_the_parts_and_what_the_keeper_lacks() -> None:
    """A name is text from outside; parts that stay with another photo or are away free nothing."""
    stat = FileStat(500, 0, 0, 1, 1)
    raw = AssetPart("/photos/b.CR3", stat, PartRole.RAW)
    sidecars = [
        AssetPart("/photos/b\x1b.xmp", stat, PartRole.SIDECAR, is_shared=True),
        AssetPart("/photos/b.aae", stat, PartRole.SIDECAR, is_missing=True),
    ]
    file = replace(make_file("b"), parts=(raw, *sidecars))
    group = make_group("a", "", {})
    whole = replace(group, members=(Match(file, Relation.IDENTICAL_BYTES, 1.0),))
    assert list(format_groups([whole])) == [
        "keep  /photos/a.jpg   100 x 100, 1 kB   most pixels",
        "      /photos/b.jpg   100 x 100, 1 kB + b.CR3, b\\x1b.xmp, b.aae   identical bytes",
        "",
        "1 group, 1 near-duplicate besides the keepers, 2 kB to free",
    ]
    lacking = replace(whole.members[0], without_counterpart=("/photos/b.CR3",))
    lines = list(format_groups([replace(group, members=(lacking,))]))
    assert lines[1].endswith("not to be given up: b.CR3 has no copy beside the keeper")
    assert lines[-1].endswith("0 B to free")


def test_files_close_to_groups_count_once_by_their_closest_relation() -> None:
    first = make_group(
        "a", "b", {"c": Relation.DERIVED, "x": Relation.SIMILAR, "y": Relation.SIMILAR}
    )
    second = make_group("c", "d", {"b": Relation.SIMILAR, "x": Relation.ANOTHER_SHOT})
    assert format_related([first, second]) == (
        "2 photos are in none of these groups, but close to one:"
        " 1 another shot, 1 similar (listed in --json)"
    )
    assert format_related([first]) == (
        "3 photos are in none of these groups, but close to one:"
        " 1 derived from a member, 2 similar (listed in --json)"
    )


def test_files_of_other_groups_are_not_close_to_any() -> None:
    groups = [
        make_group("a", "b", {"c": Relation.SIMILAR}),
        make_group("c", "d", {"a": Relation.SIMILAR}),
    ]
    assert format_related(groups) is None
