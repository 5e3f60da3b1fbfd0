"""Where Sentence Transformers and Transformers offer no public way: what is done instead."""
