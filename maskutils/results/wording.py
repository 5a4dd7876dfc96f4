"""How numbers are written in sentences and tables."""


def points(fraction: float) -> str:
    """A fraction as "95.1 %"."""
    return f"{100 * fraction:.1f} %"


def interval(middle: float, low: float, high: float, sign: str = "") -> str:
    """Fractions in points as "4.1 [3.1, 5.2]"; `sign` "+" writes the plus of positive ones too."""
    return "{} [{}, {}]".format(*(f"{100 * value:{sign}.1f}" for value in (middle, low, high)))
