"""Refuse words and openings that do not read like plain English; part of scripts/check.

    python scripts/check_prose.py [FILE ...]

Without arguments, checks every tracked Python, Markdown, TOML and shell file. Prints a line
for each hit and exits with 1 if there is one.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUFFIXES = {".py", ".md", ".toml", ".sh", ""}
NOT_PROSE = {
    "scripts/check_prose.py",  # this list itself
    "indexes/catalog/schema.py",  # the SQL of old migrations, which never changes
    "LICENSE",
    "NOTICE",
}
# Each hides who does what, or stands in the place of a term that docs/glossary.md has.
# "laid over another" names a synthetic copy; the name seeds the copy and stands in benchmarks.
BANNED = re.compile(
    r"\b(told|nobody|anew|said|looked (at|for|into)|is looked|go(es)? by|taken for|of which"
    r"|laid (on|over)(?! another\b)|makes known|as is meant|come to lie|what for)\b",
    re.IGNORECASE,
)
SEEN = re.compile(r"\bseen\b", re.IGNORECASE)
SEEN_BY_A_SCAN = re.compile(
    r"\bfiles? (?:were |was )?seen\b|\bevery file seen\b|\.seen\b|[\"'`]seen[\"'`]|\bseen[:=]"
)
# A docstring starts with what the function does or what the class is.
BAD_OPENINGS = re.compile(r"(What|Whether|How|Which|Those|As |Some |One who|Says|Tells)\b")


def list_files() -> list[Path]:
    """List the tracked files that hold prose."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    names = (name for name in listed if Path(name).suffix in SUFFIXES and name not in NOT_PROSE)
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def find_banned_words(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line number and the word of each banned word."""
    for number, line in enumerate(text.splitlines(), 1):
        for match in BANNED.finditer(line):
            yield number, match[0]
        if SEEN.search(SEEN_BY_A_SCAN.sub("", line)):
            yield number, "seen"


def find_bad_openings(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line number and first words of each docstring without a verb or noun in front."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            docstring = ast.get_docstring(node)
            if docstring and BAD_OPENINGS.match(docstring):
                line = node.body[0].lineno
                yield line, f"docstring opens with {' '.join(docstring.split()[:3])!r}"


def main() -> None:
    """Check the files that are given, or all."""
    files = [Path(name).resolve() for name in sys.argv[1:]] or list_files()
    hits = 0
    for file in files:
        try:
            text = file.read_text()
        except UnicodeDecodeError:
            continue
        found = list(find_banned_words(text))
        if file.suffix == ".py":
            found += find_bad_openings(text)
        hits += len(found)
        for number, what in sorted(found):
            print(f"{file.relative_to(ROOT)}:{number}: {what}")
    if hits:
        print(f"{hits} hits; say it in plain English, see CONTRIBUTING.md", file=sys.stderr)
    sys.exit(hits > 0)


if __name__ == "__main__":
    main()
