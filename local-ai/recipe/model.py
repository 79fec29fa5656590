"""The Llama decoder (Touvron et al. 2023) that is trained, with the names of Hugging Face's weights."""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Config:
    vocabulary: int = 2048
    hidden: int = 192
    layers: int = 5
    heads: int = 6
    kv_heads: int = 2
    head_dim: int = 32
    inner: int = 512
    context: int = 512
    theta: float = 10_000.0
    epsilon: float = 1e-5


class Norm(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.hidden))
        self.epsilon = config.epsilon

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.epsilon) * self.weight


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden, queries, bias=False)
        self.k_proj = nn.Linear(config.hidden, keys, bias=False)
        self.v_proj = nn.Linear(config.hidden, keys, bias=False)
        self.o_proj = nn.Linear(queries, config.hidden, bias=False)

    def forward(self, x, angles, past):
        """@param past keys and values of earlier positions, or None. @returns (output, keys and values of all)"""
        batch, length, _ = x.shape
        heads = lambda y: y.view(batch, length, -1, self.config.head_dim).transpose(1, 2)
        q, k, v = rotate(heads(self.q_proj(x)), angles), rotate(heads(self.k_proj(x)), angles), heads(self.v_proj(x))
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        shared = self.config.heads // self.config.kv_heads
        scores = q @ k.repeat_interleave(shared, 1).transpose(-1, -2) / math.sqrt(self.config.head_dim)
        later = torch.ones(length, k.shape[2], dtype=torch.bool, device=x.device).triu(k.shape[2] - length + 1)
        weights = scores.masked_fill(later, -math.inf).softmax(-1)
        y = weights @ v.repeat_interleave(shared, 1)
        return self.o_proj(y.transpose(1, 2).reshape(batch, length, -1)), (k, v)


class Mlp(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden, config.inner, bias=False)
        self.up_proj = nn.Linear(config.hidden, config.inner, bias=False)
        self.down_proj = nn.Linear(config.inner, config.hidden, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = Mlp(config)
        self.input_layernorm = Norm(config)
        self.post_attention_layernorm = Norm(config)

    def forward(self, x, angles, past):
        attended, past = self.self_attn(self.input_layernorm(x), angles, past)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), past


class Decoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocabulary, config.hidden)
        self.layers = nn.ModuleList([Layer(config) for _ in range(config.layers)])
        self.norm = Norm(config)


class Model(nn.Module):
    def __init__(self, config=Config()):
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        frequencies = config.theta ** -(torch.arange(0, config.head_dim, 2).float() / config.head_dim)
        angles = torch.outer(torch.arange(config.context).float(), frequencies).repeat(1, 2)
        self.register_buffer("angles", torch.stack([angles.cos(), angles.sin()]), persistent=False)
        self.initialise()

    def initialise(self):
        """Normal; what writes into the residual stream is smaller the more layers there are (GPT-2)."""
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                continue
            deviation = 0.02 if "embed" in name else 0.7 / math.sqrt(parameter.shape[1])
            if "o_proj" in name or "down_proj" in name:
                deviation /= math.sqrt(2 * self.config.layers)
            nn.init.normal_(parameter, 0, deviation)

    def forward(self, tokens, past=None):
        """@returns (logits, what the next positions need of these)"""
        start = 0 if past is None else past[0][0].shape[2]
        angles = self.angles[:, start : start + tokens.shape[1]]
        x, kept = self.model.embed_tokens(tokens), []
        for index, layer in enumerate(self.model.layers):
            x, keys_and_values = layer(x, angles, None if past is None else past[index])
            kept.append(keys_and_values)
        return self.model.norm(x) @ self.model.embed_tokens.weight.T, kept


def rotate(x, angles):
    """Rotary position embedding, half rotation: dimension i turns with dimension i + head_dim / 2."""
    a, b = x.chunk(2, -1)
    return x * angles[0] + torch.cat([-b, a], -1) * angles[1]
