"""Bugs planted on purpose, each in a copy of the project, and the tests that must find them."""
