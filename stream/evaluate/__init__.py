"""``prefstream evaluate``: how good the models are, on real data, beside what they must beat."""
