"""Searches for tickets; each reads like its paper's algorithm box."""
