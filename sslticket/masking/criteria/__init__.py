"""Scores by which weights are kept, one file each; a criterion only scores, `Mask.top` selects."""
