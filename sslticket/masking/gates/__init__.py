"""Gates of several kinds: modules that stand between one weight and the layer that uses it."""
