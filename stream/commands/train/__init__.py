"""``prefstream train``: models fitted on a shop's own log, a module each."""

from stream.commands.train import churn, encoder, ranker, sentiment, sequence
from stream.commands.train.options import train

__all__ = ["churn", "encoder", "ranker", "sentiment", "sequence", "train"]
