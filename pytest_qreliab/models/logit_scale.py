"""One rule for every logit scale, whichever model or recording it comes from."""

from __future__ import annotations

import math

from pytest_qreliab.errors import InputError

LARGEST = 1e4  # a hundred times CLIP's; a larger "factor" is exp of what is the factor already
SMALLEST_USUAL = 5.0  # CLIP's training begins at 1 / 0.07 = 14.3
LOGARITHMS = {math.log(100): "100", -math.log(0.07): "1 / 0.07"}  # of the factors that training begins and ends with
MEND = "give the factor from cosines to logits, as in 100.0"


def check_factor(factor: float, where: str) -> str | None:
    """Return a warning if a factor from cosines to logits is unusually small.

    Args:
        factor: The factor, about 100 for CLIP and 117 for SigLIP.
        where: What holds it, at the start of the message, as in "model 'x': logit_scale".

    Returns:
        The warning in one line, None if there is nothing to say.

    Raises:
        InputError: The factor is not finite, not above 0, beyond 1e4, or the logarithm of a usual factor.
    """
    if not 0 < factor < math.inf:
        raise InputError(f"{where} is {factor:g}; {MEND}")
    if factor > LARGEST:
        raise InputError(f"{where} is {factor:g}, beyond {LARGEST:g}; {MEND}")
    for logarithm, of in LOGARITHMS.items():
        if abs(factor - logarithm) < 1e-3:
            raise InputError(f"{where} is {factor:g}, the logarithm of {of}; {MEND}")
    if factor < SMALLEST_USUAL:
        return (
            f"{where} is {factor:.4g}, and CLIP's is about 100: if that is a logarithm, give its exponential; "
            "as it stands, all confidences are near 1 / classes"
        )
    return None


def check_logarithm(logarithm: float, where: str) -> str | None:
    """Return a warning if a learned logit scale, a logarithm, is unusually small.

    Args:
        logarithm: The natural logarithm of the factor from cosines to logits, as CLIPs learn it.
        where: What holds it, at the start of the message.

    Returns:
        The warning in one line, None if there is nothing to say.

    Raises:
        InputError: Its exponential is no factor that `check_factor` takes.
    """
    if not logarithm <= math.log(LARGEST):  # NaN too
        at = f"; as it stands, the factor would be exp({logarithm:g})"
        raise InputError(f"{where} is {logarithm:g}, which is no logarithm of a factor{at}; {MEND}")
    return check_factor(math.exp(logarithm), where)
