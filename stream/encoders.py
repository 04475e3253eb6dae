"""The encoder that the settings name: workers, training and evaluations read texts the same way."""

from __future__ import annotations

from models.bert_encoder import BertEncoder
from models.weights import resolve
from stream.settings import Settings


def open_encoder(settings: Settings) -> BertEncoder:
    """Load the encoder, which takes seconds; raises BadDevice, ModelError, EncoderUnavailable."""
    return BertEncoder(
        resolve(settings.encoder, sha256=settings.encoder_sha256),
        device=settings.encoder_device,
        runtime=settings.encoder_runtime,
        batch_size=settings.encoder_batch,
        max_tokens=settings.encoder_max_tokens,
    )
