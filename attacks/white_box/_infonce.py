"""InfoNCE with a discrete label, without batches.

With free vectors g(y) the scores of an example are s_y = f(z)ᵀ g(y), and in a batch in which the
labels have frequencies p_y the InfoNCE objective (IDI §4.1) is

    mean log [ exp(s_y) / Σ_v p_v exp(s_v) ]  =  H(p) − cross-entropy of softmax(s + log p).

So it is a classifier with a log-prior offset: the size of the batch does not matter beyond its
composition, and the bound H(Y) is that of the labels. Everything here is in nats.
"""

from __future__ import annotations

import numpy as np

from unaudit.evidence import FloatArray, IntArray


def frequencies(labels: IntArray) -> FloatArray:
    """(C,) share of each label 0 … C − 1; each must occur."""
    return np.asarray(np.bincount(labels) / len(labels))


def entropy(prior: FloatArray) -> float:
    """Of a distribution without zeros."""
    return float(-(prior * np.log(prior)).sum())


def losses(scores: FloatArray, labels: IntArray, prior: FloatArray) -> FloatArray:
    """(n,) cross-entropy of softmax(scores + log prior), in nats.

    Args:
        scores: (n, C) of the critic, without the prior.
    """
    logits = scores + np.log(prior)
    top = logits.max(axis=1)
    total = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return np.asarray(total - logits[np.arange(len(labels)), labels])


def infonce(scores: FloatArray, labels: IntArray) -> float:
    """The objective in a batch with these labels: a lower bound on I(Z; Y) on fresh examples."""
    prior = frequencies(labels)
    return entropy(prior) - float(losses(scores, labels, prior).mean())
