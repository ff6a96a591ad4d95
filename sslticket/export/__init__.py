"""Tickets for others: a folder for the Hugging Face Hub, and plain state dicts."""
