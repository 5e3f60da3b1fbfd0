"""Models beside each other on one page."""
