"""The whole stack from pip alone: PostgreSQL, Valkey, broker, model stand-in and agents."""
