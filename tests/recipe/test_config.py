from __future__ import annotations

from pathlib import Path

import pytest

from st_llm2vec import RECIPES, Demonstration, EncoderConfig, get_recipe
from st_llm2vec.recipe.template import Template


def test_every_recipe_names_its_paper() -> None:
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        assert "arXiv" in recipe.paper


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_survive_yaml(tmp_path: Path, name: str) -> None:
    RECIPES[name].to_yaml(tmp_path / "recipe.yaml")
    assert EncoderConfig.from_yaml(tmp_path / "recipe.yaml") == RECIPES[name]


def test_a_yaml_file_may_start_from_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base: llm2vec\npooling: weighted_mean\nprompts: {query: 'Find it:'}\n")
    recipe = get_recipe(tmp_path / "mine.yaml")
    assert recipe.name == "mine"
    assert (recipe.pooling, recipe.template) == ("weighted_mean", RECIPES["llm2vec"].template)


def test_demonstrations_are_written_out() -> None:
    recipe = get_recipe("prompteol").replace(
        demonstrations=[Demonstration("A dog runs.", "Run"), {"text": "Snow fell.", "response": "Winter"}]
    )
    assert recipe.formatter_config()["template"] == (
        '{bos}This sentence : "A dog runs." means in one word:"Run".'
        'This sentence : "Snow fell." means in one word:"Winter".'
        'This sentence : "{text}" means in one word:"'
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooling": "max"}, "pooling='max' is not one of mean"),
        ({"pooling": "eos_token"}, "latent_attention: llm2vec's eos_token is last_token here"),
        ({"pooling": "bos_token"}, "of a template that marks {pool}{bos}{/pool}"),
        ({"attention": "sideways"}, "attention='sideways'"),
        ({"template": "no slot"}, "no {text} slot"),
        ({"max_length": 0}, "max_length=0"),
        ({"layer": 3}, "layer=3 must be negative"),
        ({"layer": "x"}, "layer='x' must be of type int"),
        ({"prompts": None}, "prompts=None must be of type Mapping"),
        ({"prompts": {"query": 5}}, "must map names to instructions"),
        ({"max_length": "abc"}, "max_length='abc' must be of type"),
        ({"latent_attention": None}, "latent_attention=None must be"),
        ({"latent_attention": {"heads": 2}}, "latent_attention has heads=2; it may hold num_latents, num_heads"),
        ({"latent_attention": {"num_heads": 0}}, "latent_attention has num_heads=0"),
        ({"demonstrations": [{"bad": 1}]}, "A demonstration needs text and response"),
        ({"poling": "mean"}, "no field 'poling'; did you mean 'pooling'"),
        ({"default_prompt_name": "query"}, "not among the prompts"),
        ({"demonstrations": [Demonstration("a", "b")]}, "no demonstration_template"),
    ],
)
def test_bad_fields_are_refused_in_a_sentence(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("{", r"\{")):
        get_recipe("llm2vec").replace(**changes)


def test_what_is_no_recipe_is_refused() -> None:
    with pytest.raises(ValueError, match="not int"):
        get_recipe(5)


def test_prompts_need_a_place() -> None:
    with pytest.raises(ValueError, match="takes no instruction"):
        get_recipe("prompteol").replace(prompts={"query": "Find it"})


@pytest.mark.parametrize(
    "words", ["f'{name}'", "{text}", "{eos}", "{bos} {pool}x{/pool}", "{response}", "{demonstrations}", "{}", "{ a }"]
)
def test_a_demonstration_stands_in_the_template_as_it_is(words: str) -> None:
    """Braces in it open no slot, whatever they hold."""
    bare = EncoderConfig(
        demonstrations=[Demonstration(words, "")], demonstration_template="{text}", template="{demonstrations}{text}"
    )
    assert Template.parse(bare.formatter_config()["template"]).render("a cat", "")[0] == f"{words}a cat"
    for recipe in ("prompteol", "bge-en-icl"):
        shown = Demonstration(words, words, words)
        config = get_recipe(recipe).replace(demonstrations=[shown], prompts={})
        config = EncoderConfig.from_dict(config.to_dict())
        templates = config.formatter_config()
        string = templates["instruction_template"] or templates["template"]
        written = Template.parse(string).render("the text", "the instruction")[0]
        meant = (
            (config.demonstration_template or "")
            .replace("{text}", "\0")
            .replace("{response}", "\0")
            .replace("{instruction}", "\0")
        )
        assert meant.replace("\0", words) in written
        assert written.count("the text") == 1


@pytest.mark.parametrize("name", ["llm2vce", "no-such-thing", "missing.yaml"])
def test_unknown_recipes_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"There is no recipe"):
        get_recipe(name)
    if name == "llm2vce":
        with pytest.raises(ValueError, match="did you mean 'llm2vec'"):
            get_recipe(name)


def test_a_yaml_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    with pytest.raises(ValueError, match="must hold a mapping"):
        get_recipe(tmp_path / "list.yaml")


@pytest.mark.parametrize(
    ("name", "here"), [("bidirectional", "here it is attention="), ("pooling_mode", "here it is pooling")]
)
def test_fields_of_llm2vec_are_refused_with_their_name_here(name: str, here: str) -> None:
    with pytest.raises(ValueError, match=f"no field '{name}': {here}"):
        get_recipe("llm2vec").replace(**{name: True})
