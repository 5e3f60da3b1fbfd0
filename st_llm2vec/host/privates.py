"""What this package takes of its hosts that they do not promise to keep, each with the reason and the test that would fail.

``tests/host/test_privates.py`` holds this list against the code, both ways, and against the installed hosts.
"""

from __future__ import annotations

from typing import NamedTuple


class Private(NamedTuple):
    """A part of a host's own.

    Args:
        owner: Where it is, as ``module:class``.
        name: Its name.
        reason: What it is taken for, where no public way leads.
        test: The tests that fail without it, below ``tests/``.
    """

    owner: str
    name: str
    reason: str
    test: str


ENCODER = "sentence_transformers:SentenceTransformer"
MODULE = "sentence_transformers.base.modules:Transformer"
TRAINER = "sentence_transformers:SentenceTransformerTrainer"
MODEL = "transformers:PreTrainedModel"
CONFIG = "transformers:PretrainedConfig"
LAYER = "torch.nn:Module"

PRIVATES = (
    Private(ENCODER, "_inference", "batches by tokens, where encode's own are by texts", "encoding/test_batches.py"),
    Private(ENCODER, "_resolve_inference_device", "the device that encode would choose", "encoding/test_batches.py"),
    Private(ENCODER, "_resolve_prompt", "the saved instruction that a call would have", "encoding/test_text_reader.py"),
    Private(
        ENCODER,
        "_load_with_module_classes",
        "the trainer reloads checkpoints by it, which is told of this package's modules here",
        "training/test_resume.py",
    ),
    Private(MODULE, "_load_model", "a Transformer around a model that is in memory", "layouts/test_choose.py"),
    Private(MODULE, "_configure_use_cache", "the same", "layouts/test_choose.py"),
    Private(
        MODULE, "_prompt_length_mapping", "lengths that were counted with another tokenizer", "layouts/test_choose.py"
    ),
    Private(TRAINER, "init_hf_repo", "the first step of each upload, which is refused", "host/test_trainer_uploads.py"),
    Private(TRAINER, "_load_from_checkpoint", "the weights of a run that was over already", "training/test_resume.py"),
    Private(
        "mteb:ModelMeta",
        "_from_sentence_transformer_model",
        "what MTEB writes of a model beside its results, by MTEB's own reading of it",
        "evaluation/test_mteb_encoder.py",
    ),
    Private(CONFIG, "_attn_implementation", "the attention that is in use", "packed/test_enable.py"),
    Private(CONFIG, "_name_or_path", "where a loaded model came from", "conversion/test_convert.py"),
    Private(MODEL, "_can_set_attn_implementation", "whether attention can be exchanged", "packed/test_enable.py"),
    Private(MODEL, "_supports_sdpa", "whether eager attention was chosen or is all there is", "packed/test_enable.py"),
    Private(
        MODEL,
        "_keys_to_ignore_on_load_unexpected",
        "weights that a family's checkpoints hold and its model does not use",
        "folder/test_folders.py",
    ),
    Private(MODEL, "_hf_peft_config_loaded", "that no adapter is left after a merge", "folder/test_merge.py"),
    Private(MODEL, "_weight_conversions", "names of weights are those of the model", "folder/test_merge.py"),
    Private(LAYER, "_modules", "another first module in the place of the one that was", "folder/test_merge.py"),
    Private(
        LAYER, "_compiled_call_impl", "a layer that could not be compiled runs as it was", "encoding/test_accelerate.py"
    ),
    Private(
        "torch._dynamo:OptimizedModule", "_orig_mod", "the model in a compiled one", "packed/test_compiled_training.py"
    ),
    Private(
        "torch:cpu", "_is_amx_tile_supported", "whether half precision is fast on this CPU", "packed/test_attention.py"
    ),
    Private(
        "torch:ops.aten",
        "_scaled_dot_product_flash_attention_for_cpu",
        "the fused kernel with its sums of exponentials",
        "packed/test_attention.py",
    ),
    Private(
        "torch:ops.aten",
        "_scaled_dot_product_flash_attention_for_cpu_backward",
        "its gradients, from what was kept of a row",
        "packed/test_attention.py",
    ),
)
