"""Padding-free passes: texts side by side in one packed sequence, attention among the tokens of each."""
