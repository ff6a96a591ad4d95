"""Campaigns: sweeps over recipes, where they run, what they cost, and the figures of the papers."""
