"""The arrangements of modules that say an encoder: stock ones with prompts (``text``), stock ones with a chat template (``message``), and this package's own (``custom``)."""
