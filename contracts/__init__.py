"""The shared language: events, ticket, shop, errors, ports and the topic catalogue."""
