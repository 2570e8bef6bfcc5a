"""The embedded broker: one node, one process, one directory, the Kafka protocol. For laptops and fast tests."""
