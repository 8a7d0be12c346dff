"""Makes configurations tiny by rules on the names of their settings."""

from __future__ import annotations

import re
from typing import Any

WIDTH, HEADS, HEAD_WIDTH, LAYERS, VOCABULARY, SIDE, PATCH, EXPERTS = 32, 2, 16, 2, 100, 32, 8, 4

# The first rule whose pattern is found in a name decides: a number above its bound becomes its value, any other stays.
# All widths become one width, so that those which must agree go on doing so. No value: the setting stays.
RULES: list[tuple[re.Pattern[str], int, int | None]] = [
    (re.compile(pattern), above, value)
    for pattern, above, value in [
        (r"feat_extract_layers|rate|theta|temperature|buckets|distance|hop|fft|stride|kernel", 0, None),
        (r"vocab_size|^n_words$", 0, VOCABULARY),
        (r"rotary_dim", 8, 8),
        (r"dim_head|d_head|head_?dim|head_size|^d_kv$|kv_channels", 4, HEAD_WIDTH),
        (r"heads?$|heads_per", 1, HEADS),
        (r"experts_per_tok|moe_topk|moe_k$|top_?k$|topk_group|^n_group$|expand", 1, 1),
        (r"experts", EXPERTS, EXPERTS),
        (r"image_size|input_size|img_size|sample_size|resolution", SIDE, SIDE),
        (r"window_size", 4, 4),
        (r"patch_size", PATCH, PATCH),
        (r"mel_bins|num_mels", 16, 16),
        (r"(^|_)(hidden_)?layers?$|depth$|num_blocks$|num_encoder_blocks", LAYERS, LAYERS),
        (r"^depths$|blocks_per_stage|layers_per_block|num_layers_per|stage_num|layer_depths", 1, 1),
        (r"frames", 4, 4),
        (r"position|context_length|max_length|seq_len", 64, 64),
        (r"token|ids?$|seq", 0, None),
        (r"rank$", 8, 8),
        (r"queries|groups", 8, 8),
        (
            r"size|dim|hidden|width|channels|embd|embed|d_model|d_ff|filters|units|features|planes|inner|stem",
            WIDTH,
            WIDTH,
        ),
    ]
]
# What a default configuration may leave open though the model needs it.
OPEN = {"head_dim": HEAD_WIDTH, "num_experts_per_tok": 2}
# They name layers that a small model lacks; without them a configuration chooses by itself.
LEFT_OUT = {"out_features", "out_indices", "stage_names", "transformers_version", "architectures"}


def shrink(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings of a model, and those nested in them, with small numbers.

    Args:
        settings: what a configuration consists of.
    """
    settings = {name: value for name, value in settings.items() if name not in LEFT_OUT}
    small = {name: shrink_setting(name, value) for name, value in settings.items()}
    count = next((n for n in ("num_hidden_layers", "n_layer", "num_layers", "n_layers") if n in settings), None)
    if count and isinstance(settings[count], int):
        small |= keep_each_kind_of_layer(settings, count)
    rope = small.get("rope_parameters")
    if isinstance(rope, dict):
        half = int(HEAD_WIDTH * rope.get("partial_rotary_factor", 1)) // 2
        rope["mrope_section"] = [half // 2, half // 4, half // 4]
    return small


def keep_each_kind_of_layer(settings: dict[str, Any], count: str) -> dict[str, Any]:
    """Return the number of layers, and what lists and tables of layers become, so that each kind of layer remains."""
    old = settings[count]
    lists = {n: v for n, v in settings.items() if isinstance(v, (list, tuple)) and len(v) == old > LAYERS}
    kinds = {n: list(dict.fromkeys(v)) for n, v in lists.items() if all(isinstance(item, str) for item in v)}
    layers = max([LAYERS, *map(len, kinds.values())])
    kept = {n: (kinds[n] * LAYERS)[:layers] if n in kinds else list(v)[:layers] for n, v in lists.items()}
    tables = {n: v for n, v in settings.items() if isinstance(v, dict) and n == "per_layer_config"}
    return {
        count: min(layers, old),
        **kept,
        **{n: {k: shrink(i) for k, i in v.items() if int(k) < layers} for n, v in tables.items()},
    }


def shrink_setting(name: str, value: Any) -> Any:
    """Return a setting's small value by the rule that its name follows."""
    if isinstance(value, dict):
        return shrink(value)
    if isinstance(value, (list, tuple)):
        return type(value)(shrink_setting(name, item) for item in value)
    if value is None:
        return OPEN.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    if re.search(r"token_(id|index)$|_id$", name):
        return value if value < VOCABULARY else 40 + value % 50
    for pattern, above, small in RULES:
        if pattern.search(name):
            return value if small is None or value <= above else small
    return value
