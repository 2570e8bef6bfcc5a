"""The service layer: what ops do, as functions that print nothing; the command line calls them."""
