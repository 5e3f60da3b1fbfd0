"""Tiny decoders with random weights, one for every family the package is proven on.

They answer what a family's code does with its attention, which does not depend on size or training, in milliseconds
and without a download. ``scripts/write_architectures.py`` makes ``docs/architectures.md`` from them.
"""

from __future__ import annotations

import inspect
from copy import deepcopy
from typing import Any, Literal

import torch
from transformers import CONFIG_MAPPING, AutoModel, PretrainedConfig, PreTrainedModel

COMMON: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "n_group": 1,
    "topk_group": 1,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "mamba_d_state": 8,
    "mamba_n_heads": 4,
    "mamba_d_head": 32,
    "mamba_chunk_size": 16,
    "state_size": 8,
}
"""Values for the fields a family's configuration class has; the others are left out."""

# Families in which only some layers use a sliding window need both kinds, as their checkpoints have them.
_SLIDING: dict[str, Any] = {"layer_types": ["sliding_attention", "full_attention"]}
_LINEAR: dict[str, Any] = {"num_hidden_layers": 4, "layer_types": ["linear_attention"] * 3 + ["full_attention"]}
_CONV: dict[str, Any] = {"num_hidden_layers": 4, "layer_types": ["conv", "conv", "full_attention", "conv"]}

_PLAIN = """
    apertus arcee biogpt bitnet bloom cohere diffllama doge dots1 ernie4_5 ernie4_5_moe falcon falcon_mamba
    flex_olmo gemma glm glm4 glm4_moe gpt2 gpt_bigcode gpt_neox gpt_neox_japanese granite granitemoe helium
    hunyuan_v1_dense hunyuan_v1_moe hy_v3 internlm3 jais2 llama mamba minimax_m2 ministral3 mistral mixtral nanochat
    nemotron olmo olmo2 olmoe openai-gpt persimmon phi phi3 phimoe qwen2 qwen2_moe qwen3 rwkv seed_oss smollm3
    solar_open stablelm starcoder2
""".split()

FAMILIES: dict[str, dict[str, Any]] = {
    **{family: {} for family in _PLAIN},
    # Every layer has attention over all tokens before it.
    "codegen": {"rotary_dim": 8},
    "ctrl": {"dff": 128},
    "deepseek_v2": {"num_key_value_heads": 4},
    "deepseek_v3": {"num_key_value_heads": 4},
    "dbrx": {
        "d_model": 64,
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "glm4_moe_lite": {"num_key_value_heads": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 8},
    "granitemoeshared": {"shared_intermediate_size": 32},
    "jetmoe": {"kv_channels": 16},
    "longcat_flash": {"num_layers": 1, "num_key_value_heads": 4, "head_dim": 8, "zero_expert_num": 2},
    "minicpm3": {"num_key_value_heads": 4},
    "mistral4": {"num_key_value_heads": 4},
    "mpt": {"max_seq_len": 64},
    "opt": {"ffn_dim": 128, "word_embed_proj_dim": 64},
    "qwen3_moe": {"decoder_sparse_step": 1},
    "xglm": {"ffn_dim": 128},
    "youtu": {"num_key_value_heads": 4},
    # Some layers see only a window of tokens.
    "afmoe": _SLIDING,
    "cohere2": _SLIDING,
    "cwm": _SLIDING,
    "exaone4": _SLIDING,
    "exaone_moe": _SLIDING,
    "gemma2": _SLIDING,
    "gemma3_text": _SLIDING,
    "gemma3n_text": {**_SLIDING, "num_kv_shared_layers": 0, "hidden_size_per_layer_input": 8, "laurel_rank": 8},
    "gemma4_text": {**_SLIDING, "global_head_dim": 16, "hidden_size_per_layer_input": 8},
    "gpt_oss": _SLIDING,
    "granite_swa": _SLIDING,
    "mimo_v2_flash": _SLIDING,
    "ministral": _SLIDING,
    "modernbert-decoder": {**_SLIDING, "cls_token_id": 1, "sep_token_id": 2},
    "olmo3": _SLIDING,
    "vaultgemma": _SLIDING,
    "llama4_text": {
        "num_hidden_layers": 4,
        "intermediate_size_mlp": 128,
        "attention_chunk_size": 32,
        "num_experts_per_tok": 1,
    },
    # Some layers are recurrent or convolutional, or every layer is so in part.
    "bailing_hybrid": {**_LINEAR, "num_key_value_heads": 4},
    "bamba": {"num_hidden_layers": 4, "attn_layer_indices": [2]},
    "falcon_h1": {"mamba_d_ssm": 128},
    "granitemoehybrid": {**_LINEAR, "shared_intermediate_size": 32},
    "jamba": {"num_hidden_layers": 4, "attn_layer_period": 4, "attn_layer_offset": 2},
    "kimi_linear": {**_LINEAR, "num_key_value_heads": 4, "linear_head_dim": 8, "linear_num_heads": 4},
    "lfm2": {**_CONV, "block_multiple_of": 16},
    "lfm2_moe": _CONV,
    "minimax": {"layer_types": ["linear_attention", "full_attention"], "block_size": 16},
    "nemotron_h": {
        "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"],
        "ssm_state_size": 8,
        "mamba_num_heads": 4,
        "mamba_head_dim": 32,
        "n_groups": 1,
        "chunk_size": 16,
        "moe_shared_expert_intermediate_size": 32,
    },
    "olmo_hybrid": _LINEAR,
    "qwen3_5_moe_text": _LINEAR,
    "qwen3_5_text": _LINEAR,
    "qwen3_next": _LINEAR,
    "recurrent_gemma": {"num_hidden_layers": 3},
    "zamba": {"num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid"] * 2},
    "zamba2": {
        "num_hidden_layers": 3,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention"],
        "n_mamba_heads": 4,
        "chunk_size": 16,
    },
    # No layer has attention.
    "mamba2": {"num_heads": 4, "head_dim": 32, "n_groups": 1, "chunk_size": 16},
    "xlstm": {"num_heads": 4, "chunk_size": 16},
}
"""For each family (``config.model_type``), the configuration's values that :data:`COMMON` does not give."""


def tiny_decoder(
    model_type: str,
    attn_implementation: Literal["eager", "sdpa"] | None = None,
    vocab_size: int = 256,
    seed: int = 0,
    **overrides: Any,
) -> PreTrainedModel:
    """Build a decoder of a family, without its output head, a few layers deep and with random weights.

    Args:
        model_type: The family, a key of :data:`FAMILIES`.
        attn_implementation: ``"eager"`` or ``"sdpa"``; Transformers' choice for the family if not given.
        vocab_size: Number of tokens in the vocabulary.
        seed: Seed of the weights; PyTorch's own random state is left as it was.
        **overrides: Any field of the family's configuration, e.g. ``num_hidden_layers=4``.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: If the family is unknown, here or to the installed Transformers, or does not have the
            attention implementation.

    Example:
        >>> type(tiny_decoder("stablelm", "sdpa")).__name__
        'StableLmModel'
    """
    config = tiny_config(model_type, vocab_size=vocab_size, **overrides)
    options = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModel.from_config(config, **options).eval()


def tiny_config(model_type: str, vocab_size: int = 256, **overrides: Any) -> PretrainedConfig:
    """Build the configuration of :func:`tiny_decoder`.

    Args:
        model_type: The family, a key of :data:`FAMILIES`.
        vocab_size: Number of tokens in the vocabulary.
        **overrides: Any field of the family's configuration.

    Returns:
        The configuration.

    Raises:
        ValueError: If the family is unknown, here or to the installed Transformers.
    """
    if model_type not in FAMILIES:
        raise ValueError(
            f"There is no tiny decoder of the family {model_type!r}. Known: {', '.join(sorted(FAMILIES))}."
        )
    if model_type not in CONFIG_MAPPING:
        raise ValueError(f"The installed Transformers has no {model_type!r} models. Install a newer one.")
    config_class = CONFIG_MAPPING[model_type]
    fields = {*inspect.signature(config_class).parameters, *config_class.attribute_map}
    sizes = {"vocab_size": vocab_size, "vocab_size_per_layer_input": vocab_size}
    common = {name: value for name, value in {**COMMON, **sizes}.items() if name in fields}
    return config_class(**{**common, **deepcopy(FAMILIES[model_type]), **overrides})
