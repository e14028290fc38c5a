"""The reference: CrossModalTransformer, its losses and its training recipe, in plain torch.nn modules.

Every number the engine produces is held against this file. Runs on torch 1.13 and newer. Parameter names and
their order of registration are those of the checkpoint; `CrossModalTransformer(config).state_dict()` is what
`model_state_dict` holds.

Label convention: real = 1, fake = 0; the logit is the log-odds of real.
"""

import dataclasses
import math

import torch
from torch import nn
from torch.nn import functional as F

TEMPERATURE = 0.07
CONTRASTIVE_WIDTH = 256
MIN_LEARNING_RATE = 1e-6


@dataclasses.dataclass
class Config:
    """Options by their command-line names; the defaults are those of the recipe."""

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
    use_contrastive: bool = False
    contrastive_weight: float = 0.5
    label_smoothing: float = 0.0
    pos_weight: float = 1.0


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


def classification_loss(config, logits, labels):
    """Mean over the batch. Binary: smoothed target y(1-s) + s/2; K classes: (1-s) onehot + s/K."""
    s = config.label_smoothing
    if config.num_classes == 1:
        target = labels.to(logits) * (1.0 - s) + 0.5 * s
        weight = torch.tensor(config.pos_weight, dtype=logits.dtype, device=logits.device)
        return F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight)
    return F.cross_entropy(logits, labels.long(), label_smoothing=s)


def info_nce(zv, za, labels):
    """-mean_i [log sum_j M_ij e^S_ij - log(sum_j e^S_ij + 1e-8)], visual to audio; the row maximum is taken out
    of both logarithms, which changes nothing but the range."""
    similarity = F.normalize(zv, dim=1) @ F.normalize(za, dim=1).t() / TEMPERATURE
    weights = (labels[:, None] == labels[None, :]).to(similarity)
    weights = weights + torch.eye(len(labels), dtype=weights.dtype, device=weights.device)
    top = similarity.detach().max(dim=1, keepdim=True)[0]
    exponentials = torch.exp(similarity - top)
    positive = torch.log((weights * exponentials).sum(dim=1))
    everything = torch.log(exponentials.sum(dim=1) + 1e-8 * torch.exp(-top[:, 0]))
    return -(positive - everything).mean()


def losses(config, outputs, labels):
    """Total, classification and contrastive loss; the last is zero where it is off."""
    logits, zv, za = outputs
    classification = classification_loss(config, logits, labels)
    if not config.use_contrastive:
        return classification, classification, torch.zeros_like(classification)
    contrastive = info_nce(zv, za, labels)
    return classification + config.contrastive_weight * contrastive, classification, contrastive


def learning_rate(base, position, warmup, total, minimum=MIN_LEARNING_RATE):
    """At `position` of `total` (epochs, or steps in the step form), the first `warmup` of them warming up."""
    if position < warmup:
        return base * (0.1 + 0.9 * position / warmup)
    return minimum + (base - minimum) * (1.0 + math.cos(math.pi * (position - warmup) / (total - warmup))) / 2.0


def make_optimizer(model, lr, weight_decay=1e-4, **options):
    """AdamW on every parameter. Gradients start as zeros, so that a parameter no loss reaches (the contrastive
    head where it is off) decays like every other instead of being skipped."""
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    return torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=weight_decay, **options)


def train_step(model, optimizer, lr, visual, audio, labels, max_grad_norm=1.0):
    """One step of the recipe; returns (total, classification, contrastive) and the gradient norm before clipping."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=False)
    parts = losses(model.config, model(visual, audio), labels)
    parts[0].backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
    optimizer.step()
    return parts, norm
