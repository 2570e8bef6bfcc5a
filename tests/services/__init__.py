"""Real services for the tests: Apache Kafka, PostgreSQL and Redis or Valkey, in containers or as native processes."""
