"""Padding-free passes: texts side by side in one row, attention among the tokens of each."""
