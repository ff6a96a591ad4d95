"""Masks: which weights may be pruned, which survive, and how the survivors meet the forward pass."""
