"""Storage: files that are written whole, locks and leases, and safetensors files with a header."""
