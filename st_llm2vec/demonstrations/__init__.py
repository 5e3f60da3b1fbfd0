"""Which in-context examples make a decoder's vectors best: candidates, dev sets, and the search among them."""
