"""What tickets are like, beyond what they score: each analysis makes rows from finished tickets."""
