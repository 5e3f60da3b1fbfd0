"""From a decoder and a recipe to a text encoder."""
