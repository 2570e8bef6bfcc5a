"""Readers of evaluation data, scorers and their reports."""
