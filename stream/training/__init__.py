"""Behaviour logs -> what models/training fits models on."""
