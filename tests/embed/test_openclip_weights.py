"""Weights of open_clip models: refusals, unsafe files and downloads."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.strategies import integers, sampled_from

pytest.importorskip("torch", reason="the extra clip is not installed")

import torch

from pipeline.decode.preprocess import Preprocess
from pipeline.embed.embedder import load_embedder
from pipeline.errors import MissingExtra, UnknownModel, UnusableModel
from tests.support import clip_models
from tests.support.clip_models import (
    COCA,
    CONFIGS,
    SIZE,
    TINY,
    build_clip_model,
    save_weights,
)
from tests.support.http import serve_http

architectures = clip_models.architectures  # an autouse fixture


@pytest.fixture(scope="module")
def weights(architectures: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors", build_clip_model())


# Refusals


@pytest.mark.parametrize(
    "name",
    [
        "",
        "clip",
        "open_clip:",
        "open_clip:ViT-B-32",
        "open_clip:ViT-B-32/",
        "open_clip:ViT-B-32@",
        "open_clip:@w.pt",
    ],
)
def test_invalid_name_is_refused_without_loading(name: str) -> None:
    with pytest.raises(
        UnknownModel, match="open_clip:ARCH/PRETRAINED.*open_clip:ARCH@WEIGHTS_FILE"
    ):
        load_embedder(name)


@pytest.mark.parametrize("arch", ["ViT-B-33", "hf-hub:owner", "local-dir:"])
def test_unknown_architecture_is_refused(arch: str) -> None:
    with pytest.raises(UnknownModel, match="open_clip knows no architecture"):
        _ = load_embedder(f"open_clip:{arch}/laion2b").space


def test_unknown_tag_is_refused_with_a_list_of_known_tags() -> None:
    with pytest.raises(
        UnknownModel, match=r"no weights 'nope' for ViT-B-32; it has: openai, laion"
    ):
        _ = load_embedder("open_clip:ViT-B-32/nope").space


def test_missing_weights_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableModel, match=r"gone\.pt does not exist"):
        _ = load_embedder(f"open_clip:{TINY}@{tmp_path / 'gone.pt'}").space


class Payload:
    """An object whose unpickling creates a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("is_hidden", [True, False])
@pytest.mark.parametrize("is_zipped", [True, False])
def test_pickle_with_code_is_refused_and_not_executed(
    tmp_path: Path, suffix: str, is_hidden: bool, is_zipped: bool
) -> None:
    created_folder, path = tmp_path / "it ran", tmp_path / "weights.pt"
    content = (
        {**build_clip_model().state_dict(), "visual.more": Payload(created_folder)}
        if is_hidden
        else Payload(created_folder)
    )
    torch.save(content, path, _use_new_zipfile_serialization=is_zipped)
    torch.load(path, weights_only=False)
    assert created_folder.is_dir()  # the payload is live
    created_folder.rmdir()
    path = path.rename(path.with_suffix(suffix))
    with pytest.raises(
        UnusableModel,
        match=r"more than tensors: .*GLOBAL posix\.mkdir"
        if suffix == ".pt"
        else "not a valid safetensors",
    ) as refused:
        _ = load_embedder(f"open_clip:{TINY}@{path}").space
    assert not created_folder.exists()
    assert "weights_only" not in str(refused.value)  # torch's advice to trust the file


def test_checkpoint_with_training_options_is_refused_with_their_type(tmp_path: Path) -> None:
    torch.save(
        {"state_dict": build_clip_model().state_dict(), "args": Namespace(lr=0.1)},
        tmp_path / "run.pt",
    )
    with pytest.raises(
        UnusableModel,
        match="more than tensors: .*GLOBAL argparse.Namespace was not an allowed global",
    ) as refused:
        _ = load_embedder(f"open_clip:{TINY}@{tmp_path / 'run.pt'}").space
    assert "safe_globals" not in str(refused.value)


@pytest.mark.parametrize("file", ["tiny.safetensors", "tiny.pt"])
@pytest.mark.parametrize("kept_share", [0, 7, 0.5, 0.999])
def test_truncated_weights_are_refused(tmp_path: Path, file: str, kept_share: float) -> None:
    path = save_weights(tmp_path / file, build_clip_model())
    content = path.read_bytes()
    path.write_bytes(
        content[: int(kept_share * len(content)) if kept_share < 1 else int(kept_share)]
    )
    with pytest.raises(
        UnusableModel, match=rf"{file} is (not a valid safetensors file|damaged or holds more)"
    ):
        _ = load_embedder(f"open_clip:{TINY}@{path}").space


@settings(deadline=None, max_examples=60)
@given(seed=integers(0, 2**32 - 1), is_zipped=sampled_from([True, False]))
@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
def test_damaged_pickle_is_refused(
    tmp_path_factory: pytest.TempPathFactory, seed: int, is_zipped: bool
) -> None:
    """torch's parser raises exceptions of many classes."""
    buffer = io.BytesIO()
    torch.save({"visual.proj": torch.zeros(2)}, buffer, _use_new_zipfile_serialization=is_zipped)
    content, rng = np.frombuffer(buffer.getvalue(), np.uint8).copy(), np.random.default_rng(seed)
    content[rng.integers(len(content), size=5)] = rng.integers(256, size=5)
    path = tmp_path_factory.getbasetemp() / "damaged.pt"
    path.write_bytes(content[: rng.integers(len(content) + 1)].tobytes())
    with pytest.raises(
        UnusableModel
    ):  # if the damage is not detected, the one tensor still is no tower
        _ = load_embedder(f"open_clip:{TINY}@{path}").space


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {1: torch.zeros(2)}, torch.zeros(2)])
def test_file_without_weights_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(UnusableModel, match="does not hold the weights of a model"):
        _ = load_embedder(f"open_clip:{TINY}@{tmp_path / 'other.pt'}").space


def test_weights_of_another_architecture_are_refused(weights: Path) -> None:
    with pytest.raises(UnusableModel, match=f"does not fit {COCA}: .*attn_pool"):
        _ = load_embedder(f"open_clip:{COCA}@{weights}").space


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        '{"model_cfg": {}}',
        '{"preprocess_cfg": []}',
        '{"preprocess_cfg": {"interpolation": "lanczos7"}}',
        '{"preprocess_cfg": {"resize_mode": "fill"}}',
        '{"preprocess_cfg": {"mean": [1, 2]}}',
        '{"preprocess_cfg": {"std": "one"}}',
    ],
)
def test_invalid_config_is_refused_before_an_image_is_read(tmp_path: Path, config: str) -> None:
    path = save_weights(tmp_path / "tiny.safetensors", build_clip_model())
    (tmp_path / "open_clip_config.json").write_text(config)
    with pytest.raises(UnusableModel, match=str(tmp_path)):
        _ = load_embedder(f"open_clip:{TINY}@{path}").preprocess


@pytest.mark.parametrize("module", ["open_clip", "torch"])
def test_missing_package_is_named_with_the_install_command(
    weights: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    embedder = load_embedder(f"open_clip:{TINY}@{weights}")  # loads nothing yet
    assert embedder.name == f"open_clip:{TINY}@{weights}"
    with pytest.raises(MissingExtra, match=rf"\({module}\); run `pip install 'neardup\[clip\]'`"):
        _ = embedder.space


# Weights that open_clip downloads


@dataclass
class Hub:
    """A server with the part of the Hugging Face hub's protocol that downloads need.

    It holds commits of one repository, each with one weights file.
    """

    commits: dict[str, bytes]
    main: str
    requests: list[str] = field(default_factory=list)
    url: str = ""

    def find(self, path: str) -> tuple[str, bytes] | None:
        """Return the commit and the content of a URL path."""
        match path.removeprefix("/").split("/"):
            case ["tests", "tiny", "resolve", revision, "open_clip_model.safetensors"]:
                commit = self.main if revision == "main" else revision
                return (commit, self.commits[commit]) if commit in self.commits else None
        return None

    @contextmanager
    def serve(self) -> Iterator[Hub]:
        """Serve on a local port."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                hub.requests.append(f"{self.command} {self.path}")
                if weights := hub.find(self.path):
                    commit, content = weights
                    self.send_response(200)
                    self.send_header("X-Repo-Commit", commit)
                    self.send_header("ETag", f'"{commit}-etag"')
                else:
                    content = b""
                    self.send_response(404)
                    self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        with serve_http(Handler) as self.url:
            yield self


# The hub's client reads its address and cache from the environment when it is imported, so each
# case runs in a new process.
LOAD_CODE = """
import json, sys, time
from pathlib import Path
import open_clip
from pipeline.embed.embedder import load_embedder
from pipeline.errors import PipelineError

time.sleep = lambda seconds: None  # the hub's client waits longer after each failed attempt
open_clip.add_model_config(Path(sys.argv[1]))
arch = Path(sys.argv[1]).stem
open_clip.pretrained._PRETRAINED[arch] = {
    "main": {"hf_hub": "tests/tiny/", "resize_mode": "squash", "interpolation": "bilinear",
             "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
    "lost": {"hf_hub": "tests/lost/"},
}
answers = []
for model in sys.argv[2:]:
    try:
        embedder = load_embedder(model)
        answers.append([embedder.name, embedder.space.weights, str(embedder.preprocess)])
    except PipelineError as error:
        answers.append([type(error).__name__, str(error), ""])
print(json.dumps(answers))
"""


def load_in_new_process(hub: Hub, cache: Path, *models: str) -> list[list[str]]:
    """Load models in a new process.

    Returns the name, weights and preprocessing of each, or the class and text of its error.
    """
    config = cache / f"{TINY}.json"
    cache.mkdir(exist_ok=True)
    config.write_text(json.dumps(CONFIGS[TINY]))
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("HF_") and not name.lower().endswith("_proxy")
    }
    environment = {
        **inherited,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
    }
    completed = subprocess.run(
        [sys.executable, "-c", LOAD_CODE, str(config), *models],
        cwd=Path(__file__).resolve().parent.parent.parent,
        env={**environment, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert completed.returncode == 0, completed.stderr
    answers: list[list[str]] = json.loads(completed.stdout)
    return answers


def test_name_of_downloaded_weights_pins_their_commit(tmp_path: Path) -> None:
    old, new = "1a" * 20, "2b" * 20
    commits = {
        commit: save_weights(
            tmp_path / f"{commit}.safetensors", build_clip_model(seed=seed)
        ).read_bytes()
        for seed, commit in enumerate((old, new))
    }
    local = {
        commit: load_embedder(
            f"open_clip:{TINY}@{tmp_path / f'{commit}.safetensors'}"
        ).space.weights
        for commit in commits
    }
    tag, preprocess = f"open_clip:{TINY}/main", str(Preprocess(SIZE, "squash", "bilinear"))
    with Hub(commits, main=old).serve() as hub:
        by_tag, by_commit = load_in_new_process(hub, tmp_path / "cache", tag, f"{tag}@{new}")
        assert by_tag == [f"{tag}@{old}", local[old], preprocess]
        assert by_commit == [f"{tag}@{new}", local[new], preprocess]
        assert f"HEAD /tests/tiny/resolve/{new}/open_clip_model.safetensors" in hub.requests

    # Without the server, cached weights are used and others are refused.
    cached, missing = load_in_new_process(
        hub, tmp_path / "cache", f"{tag}@{old}", f"open_clip:{TINY}/lost"
    )
    assert cached == [f"{tag}@{old}", local[old], preprocess]
    assert missing[0] == "UnusableModel"
    assert f"the weights of {TINY}/lost cannot be downloaded" in missing[1]
    assert f"use open_clip:{TINY}@FILE" in missing[1]
