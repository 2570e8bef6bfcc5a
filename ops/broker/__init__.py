"""A single-node broker that speaks the Kafka protocol, for laptops and fast tests."""
