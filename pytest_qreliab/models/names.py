"""Names of the models that the package ships."""

TINY_DIGITS = "tiny-digits"
