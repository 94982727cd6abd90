"""The commands in the docstrings of the benchmark scripts, run on small drawn folders.

Each command runs as its docstring states it, from the repository root, with drawn images in the
place of PHOTOS and the like, and with small sizes appended: argparse takes the last of an option.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from ast import get_docstring, parse
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.calibrate.synthetic_copies import EVERYDAY_EDITS
from tests.support.images import draw_scene, draw_textured_image, save_image

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPTS = sorted(path.stem for path in (ROOT / "scripts").glob("bench_*.py"))
COMMAND = re.compile(r"^ +(python (?:-m scripts\.|scripts/)\w+.*)$", re.MULTILINE)

IMAGE_SIZE = (160, 120)
FOLDER_NAMES = (
    "CALIBRATION",
    "FOLDER",
    "FRAMES",
    "LOOKALIKES",
    "OVERLAYS",
    "PHOTOS",
    "TRAIN",
)
IMAGES_PER_FOLDER = 4

# Stands for the Python of an environment that has fastdup: it lists every file as a component.
FASTDUP_STUB = """#!{python}
import sys
from pathlib import Path

if len(sys.argv) > 3:  # -c SCRIPT FOLDER WORK_FOLDER
    folder, work_folder = Path(sys.argv[3]), Path(sys.argv[4])
    work_folder.mkdir()
    paths = sorted(folder.iterdir())
    features = [f"{{number}},{{path}}" for number, path in enumerate(paths)]
    features_file = work_folder / "atrain_features.dat.csv"
    features_file.write_text("\\n".join(["index,filename", *features]))
    components = [f"{{number}},0" for number, _ in enumerate(paths)]
    components_file = work_folder / "connected_components.csv"
    components_file.write_text("\\n".join(["__id,component_id", *components]))
"""


@dataclass(frozen=True)
class Table:
    """A Markdown table: its header and the first cells of its rows."""

    header: str
    first_cells: list[str]


@pytest.fixture(scope="module")
def replacements(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return what stands in the place of each capital word, and of the Python with fastdup."""
    base = tmp_path_factory.mktemp("folders")
    paths: dict[str, str] = {}
    for index, name in enumerate(FOLDER_NAMES):
        for number in range(IMAGES_PER_FOLDER):
            image = draw_scene(IMAGES_PER_FOLDER * index + number, IMAGE_SIZE)
            save_image(base / name / f"theme_{number}.jpg", image, quality=90)
        paths[name] = str(base / name)
    paths["ARENA"] = str(draw_arena(base / "arena"))
    stub = base / "fastdup-python"
    stub.write_text(FASTDUP_STUB.format(python=sys.executable))
    stub.chmod(0o755)
    return paths | {"PYTHON": str(stub), "/tmp/fastdup/bin/python": str(stub)}


def draw_arena(folder: Path) -> Path:
    """Draw an arena with one set: a photo, its copy, two shots of a scene."""
    rows = ["a.jpg,a,original,", "b.jpg,a,copy:resize,", "c.jpg,c,burst,s", "d.jpg,d,burst,s"]
    for row, seed, width in zip(rows, (1, 1, 2, 3), (320, 240, 320, 320), strict=True):
        image = draw_textured_image(seed).resize((width, width * 2 // 3))
        save_image(folder / "drawn" / row.split(",")[0], image, quality=90)
    (folder / "drawn" / "truth.csv").write_text("\n".join(["file,group,kind,scene", *rows]))
    (folder / "sets.csv").write_text("set,role,files,groups\ndrawn,fit,4,3\nother,check,0,0\n")
    return folder


def read_commands(script: str) -> list[str]:
    """Read the commands in the docstring of a script."""
    docstring = get_docstring(parse((ROOT / "scripts" / f"{script}.py").read_text()), clean=False)
    assert docstring is not None
    return [match[1] for match in COMMAND.finditer(docstring)]


def run_command(command: str, small_sizes: str, replacements: dict[str, str]) -> list[Table]:
    """Run a command from the repository root; return the tables that it prints."""
    words = [replacements.get(word, word) for word in shlex.split(command)]
    assert words[0] == "python"
    run = subprocess.run(
        [sys.executable, *words[1:], *small_sizes.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return parse_tables(run.stdout)


def parse_tables(markdown: str) -> list[Table]:
    """Parse all Markdown tables of a text."""
    tables: list[Table] = []
    lines = markdown.splitlines()
    for number, line in enumerate(lines):
        if not re.fullmatch(r"\|( -+:? \|)+", line):
            continue
        rows: list[str] = []
        for row in lines[number + 1 :]:
            if not row.startswith("| "):
                break
            assert row.count(" |") == line.count(" |"), row
            rows.append(row.split(" | ")[0].removeprefix("| "))
        tables.append(Table(lines[number - 1], rows))
    return tables


def run_only_command(script: str, small_sizes: str, replacements: dict[str, str]) -> list[Table]:
    """Run the one command of a script."""
    (command,) = read_commands(script)
    return run_command(command, small_sizes, replacements)


def test_every_bench_script_states_its_commands_and_is_run_here() -> None:
    for script in SCRIPTS:
        commands = read_commands(script)
        assert commands, script
        forms = (f"python -m scripts.{script} ", f"python scripts/{script}.py ")
        assert all(command.startswith(forms) for command in commands)
        assert f"test_{script}_" in Path(__file__).read_text()


def test_bench_arena_scores_pairs_kinds_and_groups_of_each_set(
    replacements: dict[str, str],
) -> None:
    pairs, kinds, groups = run_only_command("bench_arena", "--errors", replacements)
    assert pairs.header.startswith("| set | copy | neighbor | shot | template | stranger |")
    assert pairs.header.endswith("| wrong relations |")
    assert pairs.first_cells == ["drawn", "all"]
    assert kinds == Table("| copies | found |", ["resize"])
    assert groups == Table("| set | files | in wrong company | copies found |", ["drawn"])


def test_bench_arena_counts_pairs_that_cannot_be_read(tmp_path: Path) -> None:
    arena = draw_arena(tmp_path)
    (arena / "drawn" / "d.jpg").write_bytes(b"no picture")
    pairs, _ = run_command("python -m scripts.bench_arena ARENA", "", {"ARENA": str(arena)})
    assert pairs.header.endswith("| wrong relations | unread |")


def test_bench_bursts_prints_the_outcomes_of_each_kind_of_copy(
    replacements: dict[str, str],
) -> None:
    (table,) = run_only_command("bench_bursts", "--copied 1", replacements)
    assert table.header == (
        "| copies | with their own frame alone | with it and others | without it |"
    )
    assert len(table.first_cells) == 7


def test_bench_copies_prints_models_other_tools_and_each_kind_of_copies(
    replacements: dict[str, str],
) -> None:
    summary, tools, kinds = run_only_command(
        "bench_copies",
        "--sources 1 --strangers 2 --classes everyday phone screens",
        replacements,
    )
    assert summary.header == (
        "| model | candidates | accepted as copies | pairs in groups | wrong | precision"
        " | candidate everyday | candidate phone | candidate screens"
        " | grouped everyday | grouped phone | grouped screens"
        " | originals kept | pairs/s | share of verify | share of crops |"
    )
    assert summary.first_cells == ["neardup-1"]
    assert tools.header == (
        "| compared with | pairs | wrong | precision | everyday | phone | screens |"
    )
    hashed = ["perceptual hash, 64 bits, distance up to 10"] * bool(
        importlib.util.find_spec("imagehash")
    )
    assert tools.first_cells == [*hashed, "fastdup, defaults"]
    assert kinds.header == "| copies | neardup-1, candidates | neardup-1 |"
    assert len(kinds.first_cells) == len(EVERYDAY_EDITS) + 7 + 8
    assert {"jpeg 60", "phone: sent", "screens: article"} <= set(kinds.first_cells)


def test_bench_provenance_prints_keepers_and_links(replacements: dict[str, str]) -> None:
    (table,) = run_only_command(
        "bench_provenance", "--sources 1 --strangers 1 --classes phone", replacements
    )
    assert table.header == "|  | neardup |"
    assert table.first_cells == [
        "originals kept",
        "groups a photo",
        "pairs in groups that are right",
        "with their original, phone",
        "links",
        "other keepers",
        "provenance of chains",
    ]


def test_bench_cpu_paths_prints_every_runtime_that_is_installed(
    replacements: dict[str, str],
) -> None:
    (table,) = run_only_command("bench_cpu_paths", "--repeat 1", replacements)
    assert table.header == (
        "| runtime | images/s | relative to shipped | mean drift | 99th percentile | maximum |"
    )
    openvino_rows = 4 if importlib.util.find_spec("openvino") else 0
    assert len(table.first_cells) == 6 + openvino_rows


def test_bench_embedder_prints_four_tables_and_the_speed(replacements: dict[str, str]) -> None:
    summary, copies, pairs, normalized, speed = run_only_command(
        "bench_embedder", "--bases 1 --lookalike-bases 1 --repeat 1", replacements
    )
    assert summary.header == (
        "| model | size | dim | uAP everyday | uAP hard | R@P99 everyday | R@P99 hard"
        " | R@P90 everyday | R@P90 hard | floor | look-alikes above the floor |"
    )
    assert summary.first_cells == ["neardup-1"]
    assert copies.header.startswith("| copies | R@P99 | R@P90 | >= 0.30 | >= 0.35 |")
    assert len(copies.first_cells) == 5 + 40
    assert pairs.header.startswith("| different images | pairs | highest | >= 0.30 |")
    assert pairs.first_cells == ["photos", "theme", "across these", "copies and others"]
    assert normalized.header == (
        "| model | share | uAP everyday | uAP hard | floor | look-alikes above the floor"
        " | everyday | hard |"
    )
    assert normalized.first_cells == ["neardup-1"] * 3
    assert speed == Table("| model | size | images/s |", ["neardup-1"])


def test_bench_extremes_prints_pairs_groups_and_costs(replacements: dict[str, str]) -> None:
    for command in read_commands("bench_extremes"):
        (table,) = run_command(command, "--count 5", replacements)
        assert table.header == (
            "| library | files | pairs | pairs per file | groups | files of the largest"
            " | members with their keeper | in wrong company | seconds | MB |"
        )
        assert table.first_cells == [command.split()[3]]


def test_bench_fastdup_prints_both_rates_and_their_ratio(replacements: dict[str, str]) -> None:
    (table,) = run_only_command("bench_fastdup", "--repeat 1", replacements)
    assert table.header == (
        "| neardup dedupe | fastdup | ratio | pairs verified per file | MB of neardup |"
    )
    assert len(table.first_cells) == 1
    assert "nan" not in table.first_cells[0]


def test_bench_fastdup_without_fastdup_times_neardup_alone(
    replacements: dict[str, str], tmp_path: Path
) -> None:
    no_python = {**replacements, "/tmp/fastdup/bin/python": str(tmp_path / "python")}
    (table,) = run_only_command("bench_fastdup", "--repeat 1", no_python)
    assert re.fullmatch(r"[\d.]+ images/s", table.first_cells[0])


def test_bench_histories_counts_the_histories_that_differ(replacements: dict[str, str]) -> None:
    drawn, of_folder = read_commands("bench_histories")
    for command in (drawn, of_folder):
        (table,) = run_command(command, "--histories 1 --uncached-every 1", replacements)
        assert table.header == (
            "| histories | ingests | complete | stopped | killed | groups at the end"
            " | compared uncached | differ | seconds |"
        )
        assert table.first_cells == ["1"]


def test_bench_ingest_prints_speed_and_growth(replacements: dict[str, str]) -> None:
    speed, made, growth = read_commands("bench_ingest")
    for command, small_sizes in ((speed, "--repeat 1"), (made, "--made 1 --repeat 1")):
        (table,) = run_command(command, small_sizes, replacements)
        assert table.header == (
            "| decode alone | embed alone | limit | ingest, whole process | of the limit |"
        )
        assert len(table.first_cells) == 1
    (table,) = run_command(growth, "--files 6 --repeat 1", replacements)
    assert table.header == (
        "| files | first ingest | its memory | nothing changed | 1 % replaced |"
    )
    assert table.first_cells == ["6"]


def test_bench_join_prints_the_comparison_with_faiss_and_the_growth(
    replacements: dict[str, str],
) -> None:
    comparison, growth, *_ = read_commands("bench_join")
    (table,) = run_command(comparison, "--rows 2000 --dim 16 --repeat 1", replacements)
    assert table.header.startswith("| vectors | dim | threshold | pairs | bound | FAISS s |")
    assert table.first_cells == ["isotropic", "CLIP-like"]
    sizes = "--grow 1000 2000 3000 --dim 16"
    (table,) = run_command(growth, sizes, replacements)
    assert table.header.startswith("| vectors | rows | exact s | IVF s | pairs |")
    assert [cell.split()[0] for cell in table.first_cells] == ["isotropic"] * 3


def test_bench_regions_prints_regions_of_hosts_and_photos_and_what_they_propose(
    replacements: dict[str, str],
) -> None:
    hosts, plain, pairs, unrelated = run_only_command("bench_regions", "--count 4", replacements)
    assert hosts.header == "| host | photos found | hosts with one found | regions |"
    assert len(hosts.first_cells) == 13
    assert plain.header == "| plain | images | regions | with any | ms |"
    assert plain.first_cells == ["photos", "LOOKALIKES"]
    assert pairs.header.startswith("| pair | whole images | and five crops | and regions |")
    assert pairs.first_cells == [
        *hosts.first_cells,
        "crop 60 %",
        "crop 40 %",
        "two hosts of a photo",
    ]
    assert unrelated.first_cells == ["hosts"]


def test_bench_store_prints_every_cost_of_a_store(replacements: dict[str, str]) -> None:
    fill, *_ = read_commands("bench_store")
    (table,) = run_command(fill, "--rows 2000 --night 200", replacements)
    assert table.header == "| what | measured |"
    assert table.first_cells[0] == "filled"
    assert len(table.first_cells) == 15


def test_bench_review_prints_the_times_of_pages(replacements: dict[str, str]) -> None:
    _, small = read_commands("bench_review")
    (table,) = run_command(small, "", replacements)
    assert table.header == "| filter | groups | first page, ms | next page, ms | count, ms |"
    assert table.first_cells[0] == "none"
    assert len(table.first_cells) == 8


def test_bench_verify_prints_costs_relations_and_rates(replacements: dict[str, str]) -> None:
    growth, _ = read_commands("bench_verify")
    costs, relations, rates = run_command(growth, "--files 3 6 --again 4", replacements)
    assert costs.header == (
        "| files | read and embed | join | crops | verify | pairs | pairs per file"
        " | share of verify | share of crops | memory |"
    )
    assert relations.header == (
        "| files | same picture | derived | another shot | same template | overlaps | similar"
        " | unrelated | not verifiable |"
    )
    assert rates.header == (
        "| files | pairs verified again | unrelated among them | pairs/s, stored features"
        " | pairs/s, without them |"
    )
    assert costs.first_cells == relations.first_cells == rates.first_cells == ["3", "6"]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the git repository")
def test_bench_verify_compares_this_code_with_a_revision(replacements: dict[str, str]) -> None:
    _, against = read_commands("bench_verify")
    small_sizes = "--files 6 --again 4 --copied 1"
    *_, comparison = run_command(against, small_sizes, replacements | {"REVISION": "HEAD"})
    assert comparison.header == (
        "| pairs | number | ms before | ms now | ratio | copies before | copies now |"
    )
    assert comparison.first_cells == ["strangers", "copies"]
