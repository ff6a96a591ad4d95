"""Images: which ones, where they lie, and how they reach the network."""
