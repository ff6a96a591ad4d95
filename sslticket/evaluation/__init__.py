"""Fixed supervised protocols that score tickets beside random ones."""
