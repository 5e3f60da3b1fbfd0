"""Encoders in servers: what each server makes of a folder, and files for those that read another format."""
