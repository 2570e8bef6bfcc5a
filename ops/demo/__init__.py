"""The demo: a shop of our own invention, its customers' letters, and what became of them."""
