"""A decoder's hyperparameters and weights as llama.cpp reads them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from st_llm2vec.modules.attention import configured_attention
from st_llm2vec.serving.exportable import CannotExport

ARCHITECTURES = {"llama": "LLAMA", "mistral": "LLAMA", "qwen2": "QWEN2", "qwen3": "QWEN3", "gemma3_text": "GEMMA3"}
"""llama.cpp's architecture by Transformers' ``model_type``."""
ACTIVATIONS = {"gemma3_text": "gelu_pytorch_tanh"}
PERMUTED = ("q_proj.weight", "k_proj.weight", "q_proj.bias", "k_proj.bias")
GEMMA_PATTERN = 6
"""Every sixth layer of Gemma 3 has no window; llama.cpp knows this pattern without being told."""


def architecture(model: PreTrainedModel) -> Any:
    """llama.cpp's architecture.

    Gemma 3 in both directions is one of its own there, the one whose window is symmetric.

    Args:
        model: The decoder.

    Returns:
        A member of ``gguf.MODEL_ARCH``.

    Raises:
        CannotExport: If there is none, or it computes something else than this model.
    """
    import gguf

    config = model.config
    name = ARCHITECTURES.get(config.model_type)
    if name is None:
        raise CannotExport(f"decoders of the type {config.model_type} are not exported; {', '.join(ARCHITECTURES)} are")
    if name == "GEMMA3" and configured_attention(model) == "bidirectional":
        name = "GEMMA_EMBEDDING"
    activation = getattr(config, "hidden_act", None) or getattr(config, "hidden_activation", None)
    if activation != ACTIVATIONS.get(config.model_type, "silu"):
        raise CannotExport(f"llama.cpp's {name} has another activation than {activation}")
    _require_known_rotation(config)
    _require_known_scale(config)
    return gguf.MODEL_ARCH[name]


def require_window(model: PreTrainedModel, longest: int) -> None:
    """Raise if a layer of the model has a window that is shorter than the longest input, and llama.cpp has not.

    Args:
        model: The decoder.
        longest: The longest input in tokens.

    Raises:
        CannotExport: If there is one.
    """
    config = model.config
    kinds = getattr(config, "layer_types", None)
    if config.model_type == "gemma3_text":
        pattern = [
            "sliding_attention" if (layer + 1) % GEMMA_PATTERN else "full_attention"
            for layer in range(config.num_hidden_layers)
        ]
        if kinds != pattern:
            raise CannotExport("its layers with a window do not alternate as llama.cpp's Gemma 3 does")
        return
    window = getattr(config, "sliding_window", None)
    slides = (
        "sliding_attention" in kinds if kinds else window is not None and getattr(config, "use_sliding_window", True)
    )
    if slides and window is not None and window < longest:
        raise CannotExport(
            f"its window of {window} tokens, which llama.cpp does not have, is shorter than its longest input of {longest}: "
            f"set encoder.max_seq_length to {window} at most"
        )


def hyperparameters(model: PreTrainedModel, writer: Any, longest: int) -> None:
    """Write a decoder's hyperparameters.

    Args:
        model: The decoder.
        writer: A ``gguf.GGUFWriter``.
        longest: The longest input in tokens, which llama.cpp refuses to exceed as the context's length.
    """
    config = model.config
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_context_length(longest)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(getattr(config, "num_key_value_heads", None) or heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_vocab_size(config.vocab_size)
    rotation = _rotation(config)
    writer.add_rope_freq_base(rotation["rope_theta"])
    if rotation["rope_type"] == "linear":
        import gguf

        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rotation["factor"])
    if config.model_type == "gemma3_text":
        writer.add_rope_freq_base_swa(config.rope_parameters["sliding_attention"]["rope_theta"])
        # Transformers reads the window to either side, and llama.cpp halves it.
        both = configured_attention(model) == "bidirectional"
        writer.add_sliding_window(2 * config.sliding_window if both else config.sliding_window)


def weights(model: PreTrainedModel, arch: Any) -> Iterator[tuple[str, np.ndarray]]:
    """The weights by llama.cpp's names, in float32, one at a time.

    Args:
        model: The decoder.
        arch: Its architecture, of ``gguf.MODEL_ARCH``.

    Yields:
        Names and values.

    Raises:
        CannotExport: If llama.cpp has no place for a weight.
    """
    import gguf

    config = model.config
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        found = names.get_name(f"model.{name}", try_suffixes=(".weight", ".bias"))
        if found is None:
            raise CannotExport(f"llama.cpp has no place for its weight {name}")
        values = tensor.detach().float().cpu()
        if arch == gguf.MODEL_ARCH.LLAMA and name.endswith(PERMUTED):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            values = _interleaved(values, heads)
        if config.model_type == "gemma3_text" and name.endswith("norm.weight"):
            values = values + 1  # Transformers adds the one in the layer
        yield found, values.numpy()
    factors = _frequency_factors(model)
    if factors is not None:
        yield "rope_freqs.weight", factors


def _interleaved(values: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows in the order of llama.cpp, which rotates neighbours where Transformers rotates halves."""
    rows = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return rows.swapaxes(1, 2).reshape(values.shape).contiguous()


def _rotation(config: Any) -> dict[str, Any]:
    parameters = config.rope_parameters
    return dict(parameters.get("full_attention", parameters))


def _require_known_rotation(config: Any) -> None:
    known = {"default", "linear"} | (set() if config.model_type == "gemma3_text" else {"llama3"})
    found = {_rotation(config)["rope_type"]}
    if config.model_type == "gemma3_text" and config.rope_parameters["sliding_attention"]["rope_type"] != "default":
        found = {"scaled in its layers with a window"}
    if not found <= known or config.__dict__.get("partial_rotary_factor", 1.0) not in (None, 1.0):
        raise CannotExport(f"its rotary positions ({', '.join(found)}) are not exported")


def _require_known_scale(config: Any) -> None:
    scalar, width = getattr(config, "query_pre_attn_scalar", None), getattr(config, "head_dim", None)
    if scalar is not None and scalar != width:
        raise CannotExport(
            f"its attention is scaled by query_pre_attn_scalar={scalar}, and llama.cpp's by its heads' width of {width}"
        )
    if getattr(config, "attn_logit_softcapping", None) is not None:
        raise CannotExport("its attention is soft-capped, which llama.cpp's is not for this architecture")


def _frequency_factors(model: PreTrainedModel) -> np.ndarray | None:
    """By what Llama 3's scaling divides each frequency; nothing where it does not scale."""
    config: Any = model.config
    rotation = _rotation(config)
    if rotation["rope_type"] != "llama3":
        return None
    actual = model.rotary_emb.inv_freq.float().cpu().numpy()  # type: ignore[union-attr, operator]
    steps = np.arange(0, 2 * len(actual), 2, dtype=np.float64) / (2 * len(actual))
    return (rotation["rope_theta"] ** -steps / actual).astype(np.float32)
