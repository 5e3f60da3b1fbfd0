"""Contenders beside each other: each in a process of its own, taking turns on the same weights and texts."""
