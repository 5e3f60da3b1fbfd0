"""What an encoder is, as data."""
