"""What the rivals train: tests/golden/model/reference.py at the recipes' sizes. Import after the environment of the
BLAS is set: it loads torch."""

import dataclasses
import importlib.util
import os
import sys


def load_reference():
    here = os.path.dirname(os.path.abspath(__file__))
    path = os.path.join(here, "..", "..", "tests", "golden", "model", "reference.py")
    spec = importlib.util.spec_from_file_location("reference", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # torch.compile imports it again by its name
    spec.loader.exec_module(module)
    return module


reference = load_reference()


@dataclasses.dataclass(frozen=True)
class Size:
    batch: int
    options: dict  # of reference.Config

    def config(self, cross_attention):
        """With every loss on, as the guide trains."""
        return reference.Config(cross_attention=cross_attention, use_contrastive=True, label_smoothing=0.1, **self.options)


SIZES = {
    "base": Size(64, {"hidden": 768, "num_layers": 4, "num_heads": 8, "seq_len": 256, "dropout": 0.1}),
    "large": Size(80, {"hidden": 1024, "num_layers": 6, "num_heads": 16, "seq_len": 320, "dropout": 0.15}),
    # To see that all of it runs; its times mean nothing.
    "tiny": Size(4, {"hidden": 64, "num_layers": 2, "num_heads": 4, "seq_len": 16, "dropout": 0.1,
                     "visual_dim": 32, "audio_dim": 24}),
}

# What the engine's network has (tests/model/architecture_test.cpp).
PARAMETERS = {
    ("base", "a2v"): 32_589_569,
    ("base", "bidirectional"): 34_953_473,
    ("large", "a2v"): 82_669_825,
    ("large", "bidirectional"): 86_870_273,
    ("tiny", "a2v"): 143_617,
    ("tiny", "bidirectional"): 160_385,
}


def make_model(size, cross_attention):
    """The network of one size, checked to be the engine's by its number of parameters."""
    model = reference.CrossModalTransformer(SIZES[size].config(cross_attention))
    count = sum(parameter.numel() for parameter in model.parameters())
    if count != PARAMETERS[size, cross_attention]:
        raise AssertionError(f"{size} {cross_attention} has {count} parameters, not {PARAMETERS[size, cross_attention]}")
    return model


def flops_per_step(config, batch):
    """Of the matrix products, counting the backward pass as two forward passes."""
    frames, hidden = batch * config.seq_len, config.hidden
    attentions = config.num_layers + (1 if config.cross_attention == "a2v" else 2)
    weights = (config.visual_dim + config.audio_dim) * hidden + attentions * 4 * hidden**2 + config.num_layers * 8 * hidden**2
    return 3 * (2 * frames * weights + attentions * 4 * frames * config.seq_len * hidden)
