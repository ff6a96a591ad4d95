"""Tickets of others: their checkpoints and masks in, tickets out that say what is not known of them."""
