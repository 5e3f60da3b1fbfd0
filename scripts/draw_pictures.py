"""Draw the pictures of the site and the README: ``docs/pictures/*.svg``.

Run it in the repository's root: ``python scripts/draw_pictures.py``. They are plain SVG, 440 units wide so that a phone shows
the words at a size that can be read, on a ground of their own, light or dark as the reader's system is.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from st_llm2vec import get_recipe
from st_llm2vec.recipe.template import SLOT

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
WIDTH = 440
STYLE = """
text { font: 13px system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; fill: #1f2430; }
.small { font-size: 12px; fill: #565d6d; } .title { font-weight: 600; font-size: 14px; } .code { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: 12px; }
.ground { fill: #f7f8fb; } .cell, .box { fill: #ffffff; stroke: #c3c9d6; } .seen { fill: #b9c4e6; stroke: #c3c9d6; }
.pooled { fill: #e8833a; stroke: #c3c9d6; } .onpooled { fill: #1f1206; } .line { stroke: #565d6d; stroke-width: 1.5; fill: none; } .head { fill: #565d6d; }
@media (prefers-color-scheme: dark) {
text { fill: #e6e9f0; } .small { fill: #a9b1c2; } .ground { fill: #1f2330; } .cell, .box { fill: #2a2f3e; stroke: #474e62; }
.seen { fill: #5a6aa6; stroke: #474e62; } .pooled { stroke: #474e62; } .onpooled { fill: #1f1206; } .line { stroke: #a9b1c2; } .head { fill: #a9b1c2; }
}
"""
TOKENS = ("<s>", "Find it:", "how", "are", "violins", "made")
"""BOS, an instruction in one box, and a text."""
SPANS = ("llm2vec", "nv-embed", "echo", "e5-mistral", "prompteol")
SAID = {
    "llm2vec": "mean of the text",
    "nv-embed": "latent attention over text and end",
    "echo": "mean of the second copy",
    "e5-mistral": "end-of-text token",
    "prompteol": "last token",
}
FILLED = {"{bos}": "<s>", "{eos}": "</s>", "{text}": "a violin", "{instruction}": "Find it:", "{demonstrations}": ""}


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, kind: str = "box", corner: float = 4) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{corner:g}" class="{kind}"/>'


def arrow(x: float, top: float, bottom: float) -> str:
    return f'<path d="M{x:g} {top:g}V{bottom - 6:g}" class="line"/><path d="M{x - 5:g} {bottom - 8:g}h10l-5 8z" class="head"/>'


def svg(title: str, height: float, parts: list[str]) -> str:
    """A picture, with a title for those who do not see it."""
    size = f'width="{WIDTH}" height="{height:g}" viewBox="0 0 {WIDTH} {height:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>\n'
    return head + "\n".join([box(0, 0, WIDTH, height, "ground", 8), *parts]) + "\n</svg>\n"


def attention() -> str:
    """Which tokens each token sees, causally and in both directions, and which states are pooled."""
    side, top, labels = 27, 52, 74
    count = len(TOKENS)
    parts = []
    for left, title, causal, pooled in (
        (labels + 6, "Causal", True, [count - 1]),
        (labels + 6 + side * count + 20, "Bidirectional", False, list(range(2, count))),
    ):
        parts.append(text(left + side * count / 2, 28, title, "title", "middle"))
        for row in range(count):
            for column in range(count):
                seen = column <= row or not causal
                kind = ("pooled" if row in pooled else "seen") if seen else "cell"
                parts.append(box(left + column * side, top + row * side, side - 2, side - 2, kind, 3))
        said = "pooled: the last token" if causal else "pooled: the text's tokens"
        parts.append(text(left + side * count / 2, top + side * count + 20, said, "small", "middle"))
    parts += [text(labels, top + row * side + 18, token, "", "end") for row, token in enumerate(TOKENS)]
    foot = top + side * count + 46
    parts.append(text(16, foot, "A row is a token, and filled is what it sees, from the first", "small"))
    parts.append(text(16, foot + 17, "token to the last. The vector is made of the orange rows.", "small"))
    return svg("Causal and bidirectional attention, and the tokens that are pooled", foot + 32, parts)


def spans() -> str:
    """What some recipes read, and which part of it becomes the vector; the templates are the recipes' own."""
    parts, y = [], 14.0
    for name in SPANS:
        recipe = get_recipe(name)
        parts.append(text(16, y + 14, name, "title"))
        parts.append(text(WIDTH - 16, y + 14, SAID[name], "small", "end"))
        x, y, pooling = 16.0, y + 24, False
        chips = []
        for piece in SLOT.split(recipe.instruction_template or recipe.template):
            if piece in ("{pool}", "{/pool}"):
                pooling = piece == "{pool}"
            elif words := FILLED.get(piece, piece).replace("\n", "\u21b5").strip():
                chips.append((words, pooling))
        if recipe.pooling == "last_token":
            chips = [*((words, False) for words, _ in chips[:-1]), *_last(chips[-1][0])]
        for words, pooled in chips:
            width = 7.3 * len(words) + 9
            if x + width > WIDTH - 12:
                x, y = 16.0, y + 29
            parts.append(box(x, y, width, 25, "pooled" if pooled else "box"))
            parts.append(text(x + width / 2, y + 17, words, "code onpooled" if pooled else "code", "middle"))
            x += width + 4
        y += 42
    return svg("What five recipes read, and what of it is pooled", y, parts)


def _last(words: str) -> list[tuple[str, bool]]:
    """A chip as it is, but for the token at its end: a special one, or the quotation mark behind a colon."""
    if words.startswith("<"):
        return [(words, True)]
    return [(words[:-2], False), (words[-2:], True)]


def folders() -> str:
    """What the two kinds of folders hold, and who reads them."""
    kinds = (
        (
            "Portable",
            ["modules.json: stock modules only", "config.json: is_causal is false", "weights, tokenizer, prompts", "st_llm2vec.json: what it is"],
            ["SentenceTransformer(path)", "st_llm2vec.load(path)"],
        ),
        (
            "Custom",
            ["modules.json: modules of this package", "st_llm2vec_modules.py: their code", "weights, tokenizer, prompts", "st_llm2vec.json: what it is"],
            ["st_llm2vec.load(path), runs no code of it", "SentenceTransformer(path,", "    trust_remote_code=True)"],
        ),
    )  # fmt: skip
    parts, y = [], 14.0
    for title, files, readers in kinds:
        height = 40 + 21 * len(files)
        parts += [box(16, y, WIDTH - 32, height), text(30, y + 22, title, "title")]
        parts += [text(30, y + 46 + 21 * row, words, "code") for row, words in enumerate(files)]
        y += height
        parts.append(arrow(40, y + 2, y + 22 + 18 * (len(readers) - 1)))
        parts += [
            text(58, y + 19 + 18 * row, words.replace(" ", "\u00a0"), "code") for row, words in enumerate(readers)
        ]
        y += 44 + 18 * (len(readers) - 1)
    return svg("Portable and custom folders, and what reads them", y - 8, parts)


def stages() -> str:
    """From a decoder to a published encoder."""
    steps = (
        ("Decoder", "any causal language model", ""),
        ("Encoder", "attention proven, span exact", "convert"),
        ("+ MNTP", "learns to use both directions", "texts"),
        ("+ SimCSE", "learns what is alike, without labels", "sentences"),
        ("+ supervised", "learns which passage answers a query", "pairs"),
        ("Published", "verified without this package", "publish"),
    )
    parts, y = [], 14.0
    for number, (title, said, label) in enumerate(steps):
        if number:
            parts += [arrow(60, y, y + 28), text(76, y + 19, label, "small")]
            y += 32
        parts += [box(16, y, WIDTH - 32, 34, "pooled" if title == "Published" else "box")]
        kind = " onpooled" if title == "Published" else ""
        parts += [text(28, y + 22, title, "title" + kind), text(142, y + 22, said, kind.strip())]
        y += 36
    return svg("Stages, each from a folder to a folder", y + 10, parts)


def pictures() -> dict[str, str]:
    """Every picture by its file's name."""
    return {f"{draw.__name__}.svg": draw() for draw in (attention, spans, folders, stages)}


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for name, drawn in pictures().items():
        (PICTURES / name).write_text(drawn, encoding="utf-8")
