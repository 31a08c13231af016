"""Edits of texts on the host, by rules."""
