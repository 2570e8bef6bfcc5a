"""A local HTTP server that speaks both model providers' APIs, with scripted faults and a ledger."""
