"""Write docs/spans.md: for each recipe, tokenizer family and way of calling, what is pooled and whether it is exact.

python scripts/write_spans.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from tqdm import tqdm

from st_llm2vec import RECIPES, convert
from st_llm2vec.architectures import tiny_decoder
from st_llm2vec.checkpoints.decoder import wrap_model
from st_llm2vec.demo import largest_cosine_distance
from st_llm2vec.modules import BidirectionalTransformer, SpanPooling, set_attention
from st_llm2vec.tiny_tokenizers import LIKE, TOKENIZERS, tiny_tokenizer

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
    "the old clock in the hall struck seven and " * 12 + "stopped",
]
TARGET = Path(__file__).parents[1] / "docs" / "spans.md"
INTRODUCTION = """# What is pooled, and whether it is exact

Written by `python scripts/write_spans.py`; nothing here is typed by hand.

The specification is `InstructionFormatter`: the whole string is tokenised at once, and a token is pooled when one
of its characters lies between `{{pool}}` and `{{/pool}}` of the recipe's template. Each row below converts a tiny
decoder with a tokenizer of the family, saves it, and compares the vectors of every way of calling with the
specification's, over {texts} texts (one of them cut at the limit). **Exact** means a cosine distance under 1e-6;
otherwise the largest distance is given. nv-embed pools what its template says through latent attention, which has no
second implementation to compare with here; its distances are between this package and the saved folder.

Ways of calling, each through this package (`st_llm2vec.load`) and through plain Sentence Transformers:

| column | call |
|---|---|
| encode | `encode(texts)` |
| query | `encode_query(texts)`, with the saved prompt |
| document | `encode_document(texts)`, with a saved prompt of its own |
| by name | `encode(texts, prompt_name="query")` |
| by value | `encode(texts, prompt=encoder.prompts["query"])`, the prompt as it was saved |
| bare | `encode(texts, prompt="{instruction}")`: a saved instruction, without a blank at its end |
| other | `encode(texts, prompt="{other}")`: an instruction that was never saved, without a blank at its end |

## Where stock modules end

Through this package every way of calling is exact. In a folder of the layout `text` (`llm2vec`, `sgpt`), instruction
and text are one string to plain Sentence Transformers, and no stock setting can mark the border. A saved instruction
that is passed bare is recognised by the saved tokenizer, which puts the blank back, if it ends in punctuation or has
five words or more (shorter ones might begin a text). One that was never saved is glued to the text: end it with a
blank (then it is exact), save it as a prompt, or use this package, which adds the blank. Layouts `message` and `custom`
take bare instructions everywhere.

Limits of the stock layouts, here and through plain Sentence Transformers alike:

- `llm2vec` drops blanks at the end of a text, and a text that holds a special token of the tokenizer as a literal
  string (such as `<s>`) loses the blank before it, and BOS wherever it stands.
- A text that is cut in the layout `message` is cut between two of its tokens, which may fall inside a character of a
  script without blanks, and the tokens of the suffix are put back as they are, where the whole string might have
  merged a full stop with the quotation mark after it. The vector is the same alone and in any batch.
- An empty text has no token where the tokenizer adds no BOS: this package reads it as one padding token, while plain
  Sentence Transformers raises an error if the whole batch is empty.

"""


def cell(first: np.ndarray, second: np.ndarray) -> str:
    found = largest_cosine_distance(first, second)
    return "exact" if found < 1e-6 else f"{found:.2g}"


def specification(decoder: torch.nn.Module, tokenizer: object, encoder: SentenceTransformer) -> SentenceTransformer:
    config = encoder.manifest.config
    transformer = wrap_model(decoder, tokenizer)
    set_attention(transformer.model, config.attention)
    transformer.max_seq_length = encoder.max_seq_length
    module = BidirectionalTransformer.from_transformer(transformer, config.attention, config.formatter_config())
    return SentenceTransformer(modules=[module, SpanPooling(module.get_embedding_dimension(), config.pooling)])


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
    tokenizer = tiny_tokenizer(kind)
    decoder = tiny_decoder("llama", vocab_size=512, max_position_embeddings=256)
    encoder = convert(
        tiny_decoder("llama", vocab_size=512, max_position_embeddings=256), recipe, tokenizer=tokenizer, **overrides
    )
    layout = encoder.manifest.layout
    encoder.save_pretrained(str(folder))
    plain = SentenceTransformer(str(folder), trust_remote_code=layout == "custom")
    exact = encoder if recipe == "nv-embed" else specification(decoder, tiny_tokenizer(kind), encoder)
    pooled = pooled_tokens(exact, None)
    pooled_instructed = pooled_tokens(exact, INSTRUCTION) if instructed else "–"
    cells = []
    for model in (encoder, plain):
        cells.append(cell(model.encode(TEXTS), exact.encode(TEXTS)))
        if not instructed:
            cells += ["–"] * 6
            continue
        query, document = exact.encode(TEXTS, prompt=INSTRUCTION), exact.encode(TEXTS, prompt=DOCUMENT)
        cells.append(cell(model.encode_query(TEXTS), query))
        cells.append(cell(model.encode_document(TEXTS), document))
        cells.append(cell(model.encode(TEXTS, prompt_name="query"), query))
        cells.append(cell(model.encode(TEXTS, prompt=model.prompts["query"]), query))
        cells.append(cell(model.encode(TEXTS, prompt=INSTRUCTION), query))
        cells.append(cell(model.encode(TEXTS, prompt=OTHER), exact.encode(TEXTS, prompt=OTHER)))
    ours = "exact" if set(cells[:7]) <= {"exact", "–"} else ", ".join(cells[:7])
    return f"| {recipe} | {layout} | {pooled} | {pooled_instructed} | {ours} | {' | '.join(cells[7:])} |"


def main() -> None:
    lines = [INTRODUCTION.format(texts=len(TEXTS), instruction=INSTRUCTION, other=OTHER)]
    header = (
        "| recipe | layout | pooled of `Hello` | … with an instruction | this package, every way "
        "| plain: encode | query | document | by name | by value | bare | other |\n" + "|---" * 12 + "|"
    )
    with tempfile.TemporaryDirectory() as folder:
        for kind in TOKENIZERS:
            lines.append(f"## Tokenizer family: {kind} ({LIKE[kind]})\n\n{header}")
            for recipe in tqdm(RECIPES, desc=kind):
                lines[-1] += "\n" + row(
                    recipe, kind, Path(folder) / f"{kind}_{recipe}".replace("-", "_").replace("+", "_")
                )
            lines[-1] += "\n"
    TARGET.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
