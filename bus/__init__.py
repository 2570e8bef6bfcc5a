"""The engine on Kafka: consuming, order within a ticket, offsets, publishing, dead letters."""
