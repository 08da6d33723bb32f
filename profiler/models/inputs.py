"""A head and a shape -> the tensors that the model is fed.

Tokens are cut from real text on the host, at places drawn from a generator of their own, so that the same seed gives the same batches
whatever else is random in the run, and whatever the micro-batches.
"""

from __future__ import annotations

from random import Random
from typing import Any

import torch
from torch import Tensor

from profiler.models.config import ConfigFacts, Head
from profiler.models.text import language_reference

IGNORED_LABEL = -100
_FIRST_TOKEN = 2
"""Ids 0 and 1 are padding in the encoder families; batches are full."""
_MASKED_SHARE = 0.15
"""Of the tokens of masked language modelling (Devlin et al. 2018, section 3.1)."""


def make_tokens(facts: ConfigFacts, batch: int, seq: int, random: Random) -> Tensor:
    """Return token ids of real text, one a byte, batch x seq, int64 on the host."""
    text = language_reference()
    text *= -(-2 * seq // len(text))  # long enough for any place to begin at
    places = [random.randrange(len(text) - seq + 1) for _ in range(batch)]
    first = min(_FIRST_TOKEN, facts.vocab_size - 1)
    num_ids = facts.vocab_size - first
    return torch.tensor([[first + byte % num_ids for byte in text[place : place + seq]] for place in places], dtype=torch.int64)


def training_batch(facts: ConfigFacts, tokens: Tensor, generator: torch.Generator, device: torch.device) -> dict[str, Tensor]:
    """Return what a training forward is called with, on ``device``: ids and labels, batch x seq.

    Causal and recurrent models predict the next of the same tokens, so ids and labels are one tensor; masked ones predict 15 % of them,
    hidden behind the last id of the vocabulary; encoder-decoder ones as many tokens as they read.
    """
    if facts.head is Head.MASKED_LM:
        masked = torch.rand(tokens.shape, generator=generator) < _MASKED_SHARE
        labels = tokens.masked_fill(~masked, IGNORED_LABEL)
        return {"input_ids": tokens.masked_fill(masked, facts.vocab_size - 1).to(device), "labels": labels.to(device)}
    tokens = tokens.to(device)
    return {"input_ids": tokens, "labels": tokens}


def prompt_inputs(facts: ConfigFacts, tokens: Tensor) -> dict[str, Any]:
    """Return what the forward over a prompt is called with; an encoder-decoder model reads the prompt and starts its answer."""
    if facts.head is Head.MASKED_LM:
        return {"input_ids": tokens}
    inputs: dict[str, Any] = {"input_ids": tokens, "use_cache": True}
    if facts.head is Head.SEQ2SEQ:
        inputs["decoder_input_ids"] = tokens.new_zeros((tokens.shape[0], 1))
    return inputs


def next_inputs(facts: ConfigFacts, token: Tensor, outputs: Any) -> dict[str, Any]:
    """Return what the forward of one more token (batch x 1) is called with, from the outputs of the forward before."""
    if facts.head is Head.SEQ2SEQ:
        return {
            "encoder_outputs": (outputs.encoder_last_hidden_state,),
            "decoder_input_ids": token,
            "past_key_values": outputs.past_key_values,
            "use_cache": True,
        }
    return {"input_ids": token, "past_key_values": outputs.past_key_values, "use_cache": True}
