#!/usr/bin/env python3
"""CrossModalTransformer, the network of voca-engine, in plain torch.nn modules.

Its state dict is what `model_state_dict` of a checkpoint holds: the same names in the same order of registration. Needs
PyTorch 1.13 or newer and nothing else, so that the file can be copied beside a script:

    from crossmodal_transformer import load
    model, checkpoint = load("best.pt")
    logit, _, _ = model(visual, audio)  # (B, T, visual_dim), (B, T, audio_dim) -> (B); real = 1, fake = 0

    python3 crossmodal_transformer.py best.pt  # shows that a checkpoint loads strictly
"""

import dataclasses
import sys

import torch
from torch import nn

CONTRASTIVE_WIDTH = 256


@dataclasses.dataclass
class Config:
    """What the network is, by the command-line names of the options; the defaults are those of `train`."""

    visual_dim: int = 512
    audio_dim: int = 512
    hidden: int = 768
    num_layers: int = 4
    num_heads: int = 8
    seq_len: int = 256
    dropout: float = 0.1
    cross_attention: str = "a2v"  # a2v | bidirectional
    positional_encoding: str = "none"  # none | sinusoidal | learned
    num_classes: int = 1  # 1: binary, one logit; K >= 2: softmax


def sinusoidal_encoding(length, hidden):
    """(length, hidden) float64, after Vaswani et al. 2017, 3.5: column 2i holds sin(t / 10000^(2i / hidden)),
    column 2i + 1 the cosine of the same angle; t counts from 0."""
    position = torch.arange(length, dtype=torch.float64)[:, None]
    even = torch.arange(0, hidden, 2, dtype=torch.float64)
    angle = position / torch.pow(torch.tensor(10000.0, dtype=torch.float64), even / hidden)
    table = torch.zeros(length, hidden, dtype=torch.float64)
    table[:, 0::2] = torch.sin(angle)
    table[:, 1::2] = torch.cos(angle[:, : hidden // 2])
    return table


class CrossModalTransformer(nn.Module):
    """`config`: a Config or anything else with its attributes."""

    def __init__(self, config):
        super().__init__()
        hidden, heads, p = config.hidden, config.num_heads, config.dropout
        self.config = config
        if config.positional_encoding == "learned":
            self.pos_embed = nn.Parameter(torch.empty(config.seq_len, hidden))
            nn.init.normal_(self.pos_embed, std=0.02)
        elif config.positional_encoding not in ("none", "sinusoidal"):
            raise ValueError(f"positional_encoding: {config.positional_encoding!r}")
        self.v_proj = nn.Sequential(nn.Linear(config.visual_dim, hidden), nn.LayerNorm(hidden), nn.Dropout(p))
        self.a_proj = nn.Sequential(nn.Linear(config.audio_dim, hidden), nn.LayerNorm(hidden), nn.Dropout(p))
        if config.cross_attention == "a2v":
            self.cross_attn = nn.MultiheadAttention(hidden, heads, dropout=p, batch_first=True)
            self.cross_norm = nn.LayerNorm(hidden)
        elif config.cross_attention == "bidirectional":
            self.a2v_attn = nn.MultiheadAttention(hidden, heads, dropout=p, batch_first=True)
            self.v2a_attn = nn.MultiheadAttention(hidden, heads, dropout=p, batch_first=True)
            self.a2v_norm = nn.LayerNorm(hidden)
            self.v2a_norm = nn.LayerNorm(hidden)
        else:
            raise ValueError(f"cross_attention: {config.cross_attention!r}")
        layer = nn.TransformerEncoderLayer(
            hidden, heads, dim_feedforward=4 * hidden, dropout=p, activation="gelu", batch_first=True, norm_first=False
        )
        # Nested tensors belong to the fused inference path, whose numbers differ in the last bits.
        self.temporal_encoder = nn.TransformerEncoder(layer, config.num_layers, enable_nested_tensor=False)
        self.classifier = nn.Sequential(
            nn.Linear(hidden, hidden // 2), nn.GELU(), nn.Dropout(p), nn.Linear(hidden // 2, config.num_classes)
        )
        self.contrast_proj = nn.Sequential(
            nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, CONTRASTIVE_WIDTH)
        )

    def positions(self, like):
        """(T, H) added to both streams, in the type of `like` (B, T, H), or None."""
        frames = like.shape[1]
        if self.config.positional_encoding == "learned":
            return self.pos_embed[:frames]
        if self.config.positional_encoding == "sinusoidal":
            return sinusoidal_encoding(frames, self.config.hidden).to(like)
        return None

    def forward(self, visual, audio, stages=None):
        """visual (B, T, visual_dim), audio (B, T, audio_dim) -> logits (B) or (B, K), zv and za (B, 256).

        zv and za are the contrastive head's outputs before normalisation. The head sees the projected features
        as they are, without positions. `stages`, a dict, receives the values between the blocks.
        """
        if stages is None:
            stages = {}
        v = stages["v_proj"] = self.v_proj(visual)
        a = stages["a_proj"] = self.a_proj(audio)
        zv = stages["zv"] = self.contrast_proj(v.mean(dim=1))
        za = stages["za"] = self.contrast_proj(a.mean(dim=1))
        positions = self.positions(v)
        if positions is not None:
            v, a = v + positions, a + positions
        if self.config.cross_attention == "a2v":
            x = self.cross_norm(self.cross_attn(a, v, v, need_weights=False)[0] + a)
        else:
            x_a = self.a2v_norm(self.a2v_attn(a, v, v, need_weights=False)[0] + a)
            x_v = self.v2a_norm(self.v2a_attn(v, a, a, need_weights=False)[0] + v)
            x = 0.5 * (x_a + x_v)
        stages["cross"] = x
        for i, layer in enumerate(self.temporal_encoder.layers):
            x = stages[f"layer{i}"] = layer(x)
        pooled = stages["pooled"] = x.mean(dim=1) + x.max(dim=1)[0]
        logits = self.classifier(pooled)
        return (logits[:, 0] if self.config.num_classes == 1 else logits), zv, za


def load(path):
    """The network of a checkpoint that voca-engine wrote, ready to predict, and the checkpoint's dictionary."""
    checkpoint = torch.load(path, map_location="cpu")
    weights, options = checkpoint["model_state_dict"], checkpoint["config"]
    known = {field.name: options[field.name] for field in dataclasses.fields(Config) if field.name in options}
    known["visual_dim"] = weights["v_proj.0.weight"].shape[1]
    known["audio_dim"] = weights["a_proj.0.weight"].shape[1]
    model = CrossModalTransformer(Config(**known))
    model.load_state_dict(weights, strict=True)
    return model.eval(), checkpoint


def main(path):
    model, checkpoint = load(path)
    config = model.config
    with torch.no_grad():
        logits, _, _ = model(
            torch.zeros(1, config.seq_len, config.visual_dim), torch.zeros(1, config.seq_len, config.audio_dim)
        )
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{path}: epoch {checkpoint['epoch']}, {count} parameters, {config}")
    print(f"logits of frames that are zero: {logits.flatten().tolist()}")


if __name__ == "__main__":
    main(sys.argv[1])
