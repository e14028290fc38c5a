"""The reference: CrossModalTransformer (docs/crossmodal_transformer.py), its losses and its training recipe.

Every number the engine produces is held against these two files. Runs on torch 1.13 and newer.

Label convention: real = 1, fake = 0; the logit is the log-odds of real.
"""

import dataclasses
import math
import os
import sys

import torch
from torch.nn import functional as F

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../docs"))
import crossmodal_transformer  # noqa: E402: found beside the documents
from crossmodal_transformer import CrossModalTransformer  # noqa: E402, F401

TEMPERATURE = 0.07
MIN_LEARNING_RATE = 1e-6


@dataclasses.dataclass
class Config(crossmodal_transformer.Config):
    """Options by their command-line names; the defaults are those of the recipe."""

    use_contrastive: bool = False
    contrastive_weight: float = 0.5
    label_smoothing: float = 0.0
    pos_weight: float = 1.0


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
