"""Examples of customers' messages for triage, written for this project."""
