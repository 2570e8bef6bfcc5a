"""Each port's promises, tested once and on every backend."""
