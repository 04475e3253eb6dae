"""Fitting models on what a log says, offline; knows nothing of logs or of Kafka."""
