#!/usr/bin/python3
"""Writes metrics.json next to itself: scores, labels and what scikit-learn says of them (python3-sklearn).

    /usr/bin/python3 tests/golden/metrics/make_goldens.py

Label 1 is real. Scores have few decimals on purpose: ties are frequent.
"""

import json
import os

import numpy as np
import sklearn
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

BINS = 15


def rates(labels, taken):
    """Of decisions (1 = taken for real)."""
    tn, fp, fn, tp = sk.confusion_matrix(labels, taken, labels=[0, 1]).ravel()
    return {
        "acc": sk.accuracy_score(labels, taken),
        "balanced_acc": sk.balanced_accuracy_score(labels, taken) if len(set(labels)) == 2 else None,
        "precision_real": sk.precision_score(labels, taken) if tp + fp else None,
        "recall_real": sk.recall_score(labels, taken) if tp + fn else None,
        "f1_real": sk.f1_score(labels, taken) if 2 * tp + fp + fn else None,
        "precision_fake": sk.precision_score(labels, taken, pos_label=0) if tn + fn else None,
        "recall_fake": sk.recall_score(labels, taken, pos_label=0) if tn + fp else None,
        "f1_fake": sk.f1_score(labels, taken, pos_label=0) if 2 * tn + fp + fn else None,
        "confusion": [int(tp), int(fn), int(fp), int(tn)],
    }


def binary(name, scores, labels, threshold):
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    both = len(set(labels.tolist())) == 2
    expected = {
        "ap_real": sk.average_precision_score(labels, scores) if (labels == 1).any() else None,
        "ap_fake": sk.average_precision_score(1 - labels, -scores) if (labels == 0).any() else None,
        "auc": sk.roc_auc_score(labels, scores) if both else None,
        "at_half": rates(labels, (scores >= 0.5).astype(int)),
        "at_threshold": rates(labels, (scores >= threshold).astype(int)),
    }
    if both:
        fpr, tpr, _ = sk.roc_curve(labels, scores, drop_intermediate=False)
        i = np.nanargmin(np.abs(fpr - (1 - tpr)))
        expected["eer"] = (fpr[i] + 1 - tpr[i]) / 2
        # Of points with one FPR interp() takes the last at that FPR itself, and the first as the end of a line.
        for key, at in (("tpr_at_fpr_1pct", 0.01), ("tpr_at_fpr_01pct", 0.001)):
            expected[key] = np.interp(at, fpr, tpr)
        true, predicted = calibration_curve(labels, scores, n_bins=BINS)
        expected["fraction_real"] = list(map(float, true))  # non-empty bins only
        expected["mean_prob_real"] = list(map(float, predicted))
    return {"name": name, "scores": scores.tolist(), "labels": labels.tolist(), "threshold": threshold, "expected": expected}


def classes(name, probabilities, labels):
    k = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    return {
        "name": name, "classes": k, "probabilities": probabilities.reshape(-1).tolist(), "labels": labels.tolist(),
        "expected": {
            "acc": sk.accuracy_score(labels, predicted),
            "balanced_acc": sk.balanced_accuracy_score(labels, predicted),
            "auc": np.mean([sk.roc_auc_score(labels == c, probabilities[:, c]) for c in range(k)]),
            "recall": sk.recall_score(labels, predicted, labels=list(range(k)), average=None).tolist(),
            "confusion": sk.confusion_matrix(labels, predicted, labels=list(range(k))).tolist(),
        },
    }


def main():
    random = np.random.default_rng(7)

    def draw(n, share, shift, decimals):
        labels = (random.random(n) < share).astype(int)
        return np.round(1 / (1 + np.exp(-random.normal(shift * (2 * labels - 1), 1.0))), decimals), labels

    cases = [
        binary("balanced, fine scores", *draw(200, 0.5, 0.7, 4), 0.43),
        binary("balanced, one decimal", *draw(150, 0.5, 0.5, 1), 0.6),
        binary("few reals", *draw(400, 0.03, 1.0, 3), 0.8),
        binary("few fakes", *draw(300, 0.95, 1.0, 2), 0.2),
        binary("worse than chance", *draw(120, 0.4, -0.8, 3), 0.5),
        binary("perfect", [0.1, 0.2, 0.3, 0.7, 0.8], [0, 0, 0, 1, 1], 0.75),
        binary("inverted", [0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1], 0.15),
        binary("one score for all", [0.5] * 7, [1, 0, 1, 1, 0, 0, 1], 0.9),
        binary("two samples", [0.25, 0.75], [1, 0], 0.5),
        binary("reals only", [0.2, 0.9, 0.6], [1, 1, 1], 0.7),
        binary("fakes only", [0.2, 0.9, 0.6], [0, 0, 0], 0.7),
        binary("saturated", [0.0, 0.0, 1.0, 1.0, 1.0, 0.0], [0, 1, 1, 1, 0, 0], 1.0),
    ]
    logits = np.round(random.normal(size=(180, 4)), 2)
    labels = random.integers(0, 4, 180)
    logits[np.arange(180), labels] += 0.8
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    several = [classes("four classes", np.round(probabilities, 3), labels)]

    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "metrics.json")
    with open(path, "w") as out:
        out.write('{"sklearn":' + json.dumps(sklearn.__version__) + ',"binary":[\n')
        out.write(",\n".join(json.dumps(c, separators=(",", ":")) for c in cases))
        out.write('\n],"classes":[\n' + ",\n".join(json.dumps(c, separators=(",", ":")) for c in several) + "\n]}\n")


if __name__ == "__main__":
    main()
