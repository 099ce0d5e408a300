"""The grammar of the names of metrics and image sets, which only this room takes apart."""

from __future__ import annotations

import re
from dataclasses import dataclass

PRIMARY_SCORE = "mcm"  # the OOD score of a name that gives none
NEAR_FAR = ("near", "far")  # instead of an OOD set: the mean over the near or the far ones
PREDICTION = "prediction"  # the family of the names that begin with no family
FAMILIES = ("ood", "shift", "corruption", "spurious", "spectral", "recall")
RESCALED = "rescaled"


@dataclass(frozen=True, kw_only=True)
class MetricName:
    """The name of a metric, taken apart."""

    family: str  # one of FAMILIES, or PREDICTION
    statistic: str = ""  # what is computed: "auroc", "nll", "sqnr_low_rank", "ece.debiased"
    score: str = ""  # the OOD score
    part: str = ""  # what it is measured on, if not all: an image set, a class, a block, other features; or its bins
    rescaled: bool = False  # with the logit scale refitted

    @classmethod
    def parse(cls, text: str) -> MetricName:
        """Take a name apart, whether or not there is such a metric.

        Args:
            text: The name as in a thresholds file: `ood.STATISTIC[.SCORE[.SET]]`, `recall.CLASS`,
                `[rescaled.]STATISTIC[.BINS]`, or `FAMILY.STATISTIC[.PART]`.

        Example:
            >>> MetricName.parse("ood.fpr95.knn.near")
            MetricName(family='ood', statistic='fpr95', score='knn', part='near', rescaled=False)
            >>> MetricName.parse("rescaled.ece.equal_mass.20")
            MetricName(family='prediction', statistic='ece.equal_mass', score='', part='20', rescaled=True)
        """
        first, _, rest = text.partition(".")
        if first not in FAMILIES or not rest:
            rescaled = first == RESCALED and rest != ""
            statistic = rest if rescaled else text
            if bins := re.fullmatch(r"(.+)\.([0-9]+)", statistic, re.DOTALL):
                return cls(family=PREDICTION, statistic=bins[1], part=bins[2], rescaled=rescaled)
            return cls(family=PREDICTION, statistic=statistic, rescaled=rescaled)
        if first == "recall":  # the name of a class may hold dots
            return cls(family=first, part=rest)
        statistic, _, rest = rest.partition(".")
        if first != "ood":
            return cls(family=first, statistic=statistic, part=rest)
        score, _, part = rest.partition(".")
        return cls(family=first, statistic=statistic, score=score or PRIMARY_SCORE, part=part)

    def __str__(self) -> str:
        """Return the name in full, with the OOD score that is meant."""
        family = RESCALED if self.rescaled else "" if self.family == PREDICTION else self.family
        return ".".join(filter(None, (family, self.statistic, self.score, self.part)))


@dataclass(frozen=True)
class SetName:
    """The full name of an image set, taken apart."""

    category: str  # "in_distribution", "calibration", "ood", "shift", "corruption" or "spurious"
    group: str  # "near" or "far" of an OOD set, the kind of a corruption
    name: str  # the set's own name, the severity of a corruption

    @classmethod
    def parse(cls, text: str) -> SetName:
        """Take the full name of an image set apart.

        Example:
            >>> SetName.parse("ood.near.letters")
            SetName(category='ood', group='near', name='letters')
            >>> SetName.parse("shift.sketch")
            SetName(category='shift', group='', name='sketch')
        """
        category, _, rest = text.partition(".")
        group, dot, name = rest.partition(".")
        if category in ("ood", "corruption") and dot:
            return cls(category, group, name)
        return cls(category, "", rest)
