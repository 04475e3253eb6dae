"""Learning and retrieval; knows nothing of Kafka."""
