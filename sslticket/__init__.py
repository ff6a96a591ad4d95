"""Lottery tickets from limited or no supervision."""
