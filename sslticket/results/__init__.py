"""What searches, evaluations and analyses measured: rows of JSON, their keys, and all of them as one table."""
