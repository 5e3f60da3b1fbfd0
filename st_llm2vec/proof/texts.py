"""Texts and instructions that proofs are made on: scripts, blanks, marks and lengths where tokenizers differ."""

from __future__ import annotations

INSTRUCTIONS = (
    "Retrieve stories that match the query:",
    "Given a question, retrieve passages that answer it",
    "Find the capital.",
    "Represent this (short) text",
    "Which of these 3",
    "the cat sat on a",
    "Étant donné une question :",
)
TEXTS = (
    "Once upon a time there was a little girl.",
    "a",
    "I",
    "the man was in the house",
    "12 drummers, 3.5 kg",
    "(brackets) first",
    '"Quoted," she said: "yes."',
    "'s apostrophe",
    "...and dots",
    "- a dash",
    "#hashtag @name",
    "http://example.org/a?b=c",
    "élan vital",
    "北京是中国的首都",
    "اللغة العربية",
    "🙂 an emoji",
    "_ underscore",
    "two\nlines",
    "\ttab first",
    " leading blank",
    "UPPER CASE",
    "camelCaseWord",
    "a blank at the end ",
    "a line \nand another",
    "two  blanks,   three",
    "a <b>bold</b> word",
    "Ġanni u Ġorġ",
    "x" * 70,
    "word " * 30 + "end",
)

FEW_TEXTS = ("the man was in the house", "(brackets) first")
"""Where each costs time: at every load, and where a whole model runs in float32."""
