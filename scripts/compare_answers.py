"""Compare the groups of another revision with those of this checkout, one by one.

    python scripts/compare_answers.py 888f4dd PHOTOS [MORE PHOTOS ...]

Runs `neardup dedupe --json` of both on each folder, each with a store of its own, and prints for
each folder how many groups, keepers, members and relations are equal, and every difference.
Verdicts are compared by value in the order of their fields, so renamed JSON fields are no
difference. Exit code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def run_dedupe(checkout: Path, folder: Path, store: Path) -> list[dict[str, Any]]:
    """Run `neardup dedupe` of the code in `checkout` on `folder`; returns its groups."""
    command = [
        sys.executable,
        "-m",
        "pipeline.cli",
        "dedupe",
        str(folder),
        "--store",
        str(store),
        "--json",
    ]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):  # 3: some files could not be read
        raise SystemExit(f"{' '.join(command)} in {checkout} failed:\n{done.stderr}")
    groups: list[dict[str, Any]] = json.loads(done.stdout)["groups"]
    return groups


def flatten(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Reduce JSON to its values in order, without field names; "" and null are equal."""
    if isinstance(value, dict):
        return [flatten(inner) for inner in value.values()]
    if isinstance(value, list):
        return [flatten(inner) for inner in value]
    return None if value == "" else value


def describe_group(group: dict[str, Any]) -> dict[str, Any]:
    """Describe a group by all that must not change.

    That is its keeper, how many criteria decided for it (their words may change), members with
    relation, score and verdict, and related files.
    """
    members = {
        member["path"]: [
            member["relation"],
            member["score"],
            flatten(member.get("verdict", member.get("evidence"))),
        ]
        for member in group["members"]
    }
    related = {
        file["path"]: [file.get("member", file.get("to")), file["relation"], file["score"]]
        for file in group["related"]
    }
    return {
        "keeper": group["keeper"]["path"],
        "criteria": len(group["keeper"]["reason"].split(", ")),
        "members": members,
        "related": related,
    }


def find_differences(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each difference between two lists of groups."""
    old = {group["id"]: describe_group(group) for group in before}
    new = {group["id"]: describe_group(group) for group in after}
    for group_id in sorted(old.keys() | new.keys()):
        if group_id not in old or group_id not in new:
            yield f"group {group_id} only {'before' if group_id in old else 'after'}"
            continue
        for part in ("keeper", "criteria", "members", "related"):
            if old[group_id][part] != new[group_id][part]:
                before, after = old[group_id][part], new[group_id][part]
                yield f"group {group_id}: {part} was {before}, is {after}"


def main() -> None:
    """Compare on each folder that is given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("revision", help="the git revision to compare with")
    parser.add_argument("folders", nargs="+", type=Path)
    options = parser.parse_args()
    differs = False
    with tempfile.TemporaryDirectory() as scratch:
        checkout = Path(scratch) / "checkout"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run(
            [*git, "add", "--quiet", "--detach", str(checkout), options.revision], check=True
        )
        try:
            for number, folder in enumerate(options.folders):
                before = run_dedupe(checkout, folder.resolve(), Path(scratch) / f"before-{number}")
                after = run_dedupe(ROOT, folder.resolve(), Path(scratch) / f"after-{number}")
                differences = list(find_differences(before, after))
                members = sum(len(group["members"]) for group in after)
                print(
                    f"{folder}: {len(before)} groups before, {len(after)} after,"
                    f" {members} members; {len(differences)} differences"
                )
                for line in differences:
                    print(f"  {line}")
                differs = differs or bool(differences)
        finally:
            subprocess.run([*git, "remove", "--force", str(checkout)], check=True)
    sys.exit(differs)


if __name__ == "__main__":
    main()
