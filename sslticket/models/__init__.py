"""The networks of the papers, by name."""
