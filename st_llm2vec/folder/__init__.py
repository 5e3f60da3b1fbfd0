"""Folders: load a decoder, save and load an encoder."""
