"""Tiny open_clip models with random weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("open_clip", reason="the extra clip is not installed")

import open_clip
import torch
from safetensors.torch import save_file

TINY = "neardup-test-vit"
COCA = "neardup-test-coca"
LITE = "neardup-test-lite0"

SIZE = 64  # px
DIM = 32

VISION = {"image_size": SIZE, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16}
TEXT = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
CONFIGS: dict[str, dict[str, Any]] = {
    TINY: {"embed_dim": DIM, "vision_cfg": VISION, "text_cfg": TEXT},
    COCA: {
        "embed_dim": DIM,
        "vision_cfg": {
            **VISION,
            "attentional_pool": True,
            "attn_pooler_heads": 2,
            "attn_pooler_queries": 4,
            "output_tokens": True,
        },
        "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {**TEXT, "attn_pooler_heads": 2},
        "custom_text": True,
    },
    LITE: {
        "embed_dim": 1280,
        "vision_cfg": {
            "timm_model_name": "tf_efficientnet_lite0",
            "timm_pool": "avg",
            "timm_proj": "none",
            "image_size": 224,
        },
        "text_cfg": TEXT,
    },
}


@contextmanager
def register_architectures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Register the architectures above with open_clip, and hide the GPU.

    On the CPU, two computations of one row differ least.
    """
    registry = open_clip.factory
    configs, paths = dict(registry._MODEL_CONFIGS), list(registry._MODEL_CONFIG_PATHS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        for name, config in CONFIGS.items():
            path = tmp_path_factory.mktemp("configs") / f"{name}.json"
            path.write_text(json.dumps(config))
            open_clip.add_model_config(path)
        yield
    registry._MODEL_CONFIGS, registry._MODEL_CONFIG_PATHS = configs, paths


@pytest.fixture(scope="module", autouse=True)
def architectures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Register the architectures for a module; see register_architectures()."""
    with register_architectures(tmp_path_factory):
        yield


def build_clip_model(arch: str = TINY, seed: int = 0) -> torch.nn.Module:
    """Build a CLIP model with random weights, its text tower included."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: torch.nn.Module = open_clip.create_model(arch)
    return model.eval()


def save_weights(path: Path, model: torch.nn.Module) -> Path:
    """Save the weights in the format of the suffix, .safetensors or .pt; return `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path
