"""Write docs/spans.md: for each recipe, tokenizer class and way of calling, what is pooled and whether it is exact.

python scripts/write_spans.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from tqdm import tqdm

from st_llm2vec import RECIPES, convert, load
from st_llm2vec.conversion.decoder import load_transformer
from st_llm2vec.modules import BidirectionalTransformer, SpanPooling, set_attention
from st_llm2vec.proof.distance import largest_cosine_distance
from st_llm2vec.proof.tolerances import VECTORS
from tests.stand_ins import STAND_INS, stand_in

INSTRUCTION = "Retrieve stories that match the query:"
DOCUMENT = "Represent the story"
OTHER = "Given a question, retrieve passages that answer it:"
TEXTS = [
    "Once upon a time there was a little girl.",
    "Hello",
    "...dots first",
    "(brackets)",
    "12 ships left the harbour",
    "Étude",
    " one blank first",
    "a blank at the end ",
    "the old clock in the hall struck seven and " * 12 + "stopped",
]
TARGET = Path(__file__).parents[1] / "docs" / "spans.md"
INTRODUCTION = """# What is pooled, and whether it is exact

Written by `python scripts/write_spans.py`; nothing here is typed by hand.

The specification is `InstructionFormatter` over the decoder's own tokenizer: the whole string is tokenised at once, and a
token is pooled when one of its characters lies between `{{pool}}` and `{{/pool}}` of the recipe's template. Each row below
converts a tiny decoder with a tokenizer of one of Transformers' classes, saves it, and compares the vectors of every way
of calling with the specification's, over {texts} texts (one begins with a blank, one ends with one, one is cut at the
limit). **Exact** means a cosine distance under 1e-6; otherwise the largest distance is given. nv-embed pools what its
template says through latent attention, which has no second implementation to compare with here; its distances are between
this package and the saved folder.

Ways of calling, each through the encoder in memory, through `st_llm2vec.load` and through plain Sentence Transformers:

| column | call |
|---|---|
| encode | `encode(texts)` |
| query | `encode_query(texts)`, with the saved prompt |
| document | `encode_document(texts)`, with a saved prompt of its own |
| by name | `encode(texts, prompt_name="query")` |
| by value | `encode(texts, prompt=encoder.prompts["query"])`, the prompt as it was saved |
| bare | `encode(texts, prompt="{instruction}")`: a saved instruction, without a blank at its end |
| other, blank | `encode(texts, prompt="{other} ")`: an instruction that was never saved, with a blank at its end |
| other | `encode(texts, prompt="{other}")`: the same without the blank |

## Where stock modules end

Through this package every way of calling is exact. In a folder of the layout `text` (`llm2vec`, `sgpt`), instruction
and text are one string to plain Sentence Transformers, and no stock setting can mark the border. A saved instruction
that is passed bare is recognised by the saved tokenizer, which puts the blank back, if it ends in punctuation or has
five words or more (shorter ones might begin a text), and the text does not begin with a token
that the tokenizer was given as a whole (in Gemma a tab, a line break or a tag such as `<b>`). Short ones (`convert` and `save` warn of them)
and those that were never saved are glued to the text: end them with a blank (then they are exact, but for those that were
never saved before texts that begin with blanks), or use this package, which adds the blank. Layouts `message` and `custom` take bare instructions everywhere.

In a folder of the layout `prefix` (`mean`, `last-token`) the tokenizer stays the decoder's own, so that servers read what is
read here: what is encoded is the prompt, which ends in one blank, and the text as it is. Plain Sentence Transformers glues an
instruction that is passed bare to the text, a saved one too: end it with a blank, or use the prompt's name.

An instruction for each text needs `st_llm2vec.load` in the layouts `prefix`, `text` and `message`. Plain Sentence Transformers raises
an error for `encode(texts, prompt=[...])`, and in the layout `message` for `encode([[instruction, text], ...])` too; in the
layout `text` it reads each of these as a sentence pair, without the blank and with the instruction pooled, silently.
Nothing that a tokenizer can be saved with refuses pairs: an empty template for them is lost by the classes that make
theirs anew (GPT-NeoX's), and gives zero vectors where pairs and texts are mixed.

Behind an instruction that nothing but a blank separates from the text, blanks that the text begins with are left out:
`"Find it: " + "a text"` and `"Find it:" + " a text"` are one string.

What a folder reads is proven after a reload, since Transformers' own tokenizer classes build normalizer and
pre-tokenizer anew when they are loaded. Folders of the layout `text` are saved with the one class that keeps them
(`TokenizersBackend`); where Transformers loads another all the same, as for Qwen2's decoders, `llm2vec` and
`sgpt` with saved prompts are `custom`.

Limits of the stock layouts, here and through plain Sentence Transformers alike:

- In `llm2vec`, a text that holds BOS as a literal string (such as `<s>`) loses it from the mean, and the character by
  which the vocabulary writes a blank (`▁` or `Ġ`), standing alone in a text, is read as a token of its own.
- A text that is cut in the layout `message` is cut between two of its tokens, which may fall inside a character of a
  script without blanks, and the tokens of the suffix are put back as they are, where the whole string might have
  merged a full stop with the quotation mark after it. The vector is the same alone and in any batch.
- An empty text behind an instruction is the zero vector in `llm2vec`, and that of a blank through plain Sentence
  Transformers.
- An empty text has no token where the tokenizer adds no BOS: this package reads it as one padding token, while plain
  Sentence Transformers raises an error if the whole batch is empty, and gives it zeros beside others where it pools a mean.

"""


def cell(first: np.ndarray, second: np.ndarray) -> str:
    found = largest_cosine_distance(first, second)
    return "exact" if found < VECTORS.full else f"{found:.2g}"


def specification(decoder: str, encoder: SentenceTransformer) -> SentenceTransformer:
    config = encoder.manifest.config
    transformer = load_transformer(decoder, None, None, {})
    set_attention(transformer.model, config.attention)
    transformer.tokenizer.pad_token = transformer.tokenizer.pad_token or transformer.tokenizer.eos_token
    transformer.max_seq_length = encoder.max_seq_length
    module = BidirectionalTransformer.from_transformer(transformer, config.attention, config.formatter_config())
    pooling = SpanPooling(module.get_embedding_dimension(), config.pooling)
    return SentenceTransformer(modules=[module, pooling], device="cpu")


def pooled_tokens(model: SentenceTransformer, prompt: str | None) -> str:
    features = model.preprocess(["Hello"], prompt=prompt)
    kept = features["input_ids"][0][features["pooling_mask"][0] == 1].tolist()
    text = model.tokenizer.decode(kept)
    if len(text) > 40:
        text = f"{text[:14]} … {text[-14:]}"
    return "`" + text.replace("\n", "\\n") + "`"


def row(recipe: str, kind: str, folder: Path) -> str:
    overrides = {"latent_attention": {"num_latents": 4, "num_heads": 2, "head_dimension": 8}}
    overrides = overrides if recipe == "nv-embed" else {}
    instructed = RECIPES[recipe].instruction_template is not None
    if instructed:
        overrides["prompts"] = {"query": INSTRUCTION, "document": DOCUMENT}
    decoder = stand_in(kind, folder / "decoder", torch.float32, max_position_embeddings=256)
    encoder = convert(decoder, recipe, device="cpu", **overrides)
    layout = encoder.manifest.layout
    encoder.save_pretrained(str(folder / "saved"))
    loaded = load(folder / "saved", device="cpu")
    plain = SentenceTransformer(str(folder / "saved"), trust_remote_code=layout == "custom", device="cpu")
    exact = encoder if recipe == "nv-embed" else specification(decoder, encoder)
    pooled = pooled_tokens(exact, None)
    pooled_instructed = pooled_tokens(exact, INSTRUCTION) if instructed else "–"
    told = {text: exact.encode(TEXTS, prompt=text) for text in (INSTRUCTION, DOCUMENT, OTHER)} if instructed else {}
    ours = {*cells(encoder, exact, told), *cells(loaded, exact, told)} - {"–"}
    through_package = "exact" if ours == {"exact"} else ", ".join(sorted(ours))
    through_plain = " | ".join(cells(plain, exact, told))
    return f"| {recipe} | {layout} | {pooled} | {pooled_instructed} | {through_package} | {through_plain} |"


def cells(model: SentenceTransformer, exact: SentenceTransformer, told: dict[str, np.ndarray]) -> list[str]:
    found = [cell(model.encode(TEXTS), exact.encode(TEXTS))]
    if not told:
        return [*found, *["–"] * 7]
    ways = [
        (model.encode_query(TEXTS), INSTRUCTION),
        (model.encode_document(TEXTS), DOCUMENT),
        (model.encode(TEXTS, prompt_name="query"), INSTRUCTION),
        (model.encode(TEXTS, prompt=model.prompts["query"]), INSTRUCTION),
        (model.encode(TEXTS, prompt=INSTRUCTION), INSTRUCTION),
        (model.encode(TEXTS, prompt=f"{OTHER} "), OTHER),
        (model.encode(TEXTS, prompt=OTHER), OTHER),
    ]
    return [*found, *(cell(vectors, told[instruction]) for vectors, instruction in ways)]


def main() -> None:
    lines = [INTRODUCTION.format(texts=len(TEXTS), instruction=INSTRUCTION, other=OTHER)]
    header = (
        "| recipe | layout | pooled of `Hello` | … with an instruction | this package, every way "
        "| plain: encode | query | document | by name | by value | bare | other, blank | other |\n" + "|---" * 13 + "|"
    )
    with tempfile.TemporaryDirectory() as folder:
        for kind, made in STAND_INS.items():
            lines.append(f"## {made.tokenizer.__name__} (a tiny {made.model_type}: `{kind}`)\n\n{header}")
            for recipe in tqdm(RECIPES, desc=kind):
                lines[-1] += "\n" + row(recipe, kind, Path(folder) / f"{kind}_{recipe}".replace("-", "_"))
            lines[-1] += "\n"
    TARGET.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
