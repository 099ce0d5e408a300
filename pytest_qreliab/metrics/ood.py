"""OOD scores and detection metrics. One convention: a higher score means more out-of-distribution."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax, logsumexp
from scipy.stats import rankdata

Floats = npt.NDArray[np.float64]


def scores(cosines: Floats, logit_scale: float, logit_bias: float = 0.0) -> dict[str, Floats]:
    """OOD scores from cosines, (n, classes), each of shape (n,).

    With logits = logit_scale * cosines + logit_bias:
    `msp` is minus the largest softmax probability of the logits (Hendrycks & Gimpel 2017), `maxlogit` minus the
    largest logit, `energy` -logsumexp(logits) (Liu et al. 2020), and `mcm` minus the largest softmax
    probability of the cosines at temperature 1 (Ming et al. 2022). `msp` and `mcm` are log probabilities, which
    order the samples alike and do not tie near 1.
    """
    logits = logit_scale * cosines + logit_bias
    return {
        "msp": -log_softmax(logits, axis=1).max(axis=1),
        "maxlogit": -logits.max(axis=1),
        "energy": -logsumexp(logits, axis=1),
        "mcm": -log_softmax(cosines, axis=1).max(axis=1),
    }


def placements(id_scores: Floats, ood_scores: Floats) -> tuple[Floats, Floats]:
    """DeLong's structural components, OOD being the positive class.

    For each OOD sample the share of ID samples below it, for each ID sample the share of OOD samples above
    it, ties counting one half: shapes (n_ood,), (n_id,). The mean of either is the AUROC. By midranks in
    O(n log n) (Sun & Xu 2014).
    """
    n_id, n_ood = len(id_scores), len(ood_scores)
    ranks = rankdata(np.concatenate([ood_scores, id_scores]))
    of_ood = (ranks[:n_ood] - rankdata(ood_scores)) / n_id
    of_id = 1.0 - (ranks[n_ood:] - rankdata(id_scores)) / n_ood
    return of_ood, of_id


def auroc(id_scores: Floats, ood_scores: Floats) -> float:
    """P(OOD score > ID score) + P(equal) / 2: sklearn's `roc_auc_score` with OOD positive."""
    return float(placements(id_scores, ood_scores)[0].mean())


def fpr_at_95(
    id_scores: Floats,
    ood_scores: Floats,
    id_counts: npt.NDArray[np.integer] | None = None,
    ood_counts: npt.NDArray[np.integer] | None = None,
) -> Floats:
    """Share of OOD samples accepted as ID at the first threshold that accepts 95 % of the ID samples.

    ID is the positive class and is accepted at scores at or below the threshold, the convention of MCM and
    OpenOOD's papers. (With OOD positive the value differs: .318 against .971 on the same scores.)

    `id_counts` and `ood_counts`, (replicates, n), say how often each sample occurs in each replicate; the
    threshold is found anew in each. The result has shape (replicates,), or () without them.
    """
    id_order = np.argsort(id_scores, kind="stable")
    ood_order = np.argsort(ood_scores, kind="stable")
    id_weights = np.ones((1, len(id_scores))) if id_counts is None else id_counts[:, id_order]
    ood_weights = np.ones((1, len(ood_scores))) if ood_counts is None else ood_counts[:, ood_order]
    accepted = id_weights.cumsum(axis=1)
    needed = 0.95 * accepted[:, -1:]
    at = (accepted < needed - 1e-9).sum(axis=1)
    threshold = id_scores[id_order][at]
    below = np.searchsorted(ood_scores[ood_order], threshold, side="right")
    cumulative = np.concatenate([np.zeros((len(ood_weights), 1)), ood_weights.cumsum(axis=1)], axis=1)
    result: Floats = cumulative[np.arange(len(below)), below] / cumulative[:, -1]
    return result if id_counts is not None else result[0]
