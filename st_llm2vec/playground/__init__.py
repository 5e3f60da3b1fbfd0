"""A page to try recipes side by side: nearest passages, what is read and pooled, and what words alone would give."""
