from __future__ import annotations

import json
import sys
from importlib.util import find_spec

import pytest

from tests.support.cli import Run


def test_models_lists_names_dimensions_and_sides(run: Run) -> None:
    header, *out = run("models")[1].splitlines()
    assert header.split() == ["model", "dim", "side"]
    assert [line.split() for line in out[:2]] == [
        ["neardup-1", "256", "160"],
        ["neardup-0", "256", "192"],
    ]
    if find_spec("open_clip"):
        assert ["open_clip:ViT-B-32/openai", "512", "224"] in [line.split() for line in out]
    listed = json.loads(run("models", "--json")[1])
    assert [model["name"] for model in listed["models"]] == [line.split()[0] for line in out]
    assert run("models", "nothing")[0] == 2


def test_models_names_missing_extra(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("open_clip"):
        assert run("models")[2] == run("models", "--json")[2] == ""
    monkeypatch.setitem(sys.modules, "open_clip", None)
    message = (
        "neardup: open_clip models need packages that are not installed (open_clip);"
        " run `pip install 'neardup[clip]'`\n"
    )
    for arguments in (["models"], ["models", "--json"]):
        code, out, err = run(*arguments)
        assert (code, err) == (0, message)
        assert "neardup-1" in out
        assert "open_clip" not in out


def test_models_without_open_clip_models_names_no_extra(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("open_clip", reason="the extra clip is not installed")
    monkeypatch.setattr("open_clip.list_pretrained", list)
    assert run("models") == (
        0,
        "model        dim  side\nneardup-1    256   160\nneardup-0    256   192\n",
        "",
    )
