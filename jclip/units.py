"""Formats bytes and durations for people."""


def format_size(count: float) -> str:
    """Formats a number of bytes.

    >>> format_size(1 << 28), format_size(3000), format_size(7)
    ('256 MiB', '2.93 KiB', '7 bytes')
    """
    for power, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 1 << power:
            value = count / (1 << power)
            return f"{value:.0f} {unit}" if value >= 1000 else f"{value:.3g} {unit}"
    return f"{count:.0f} bytes"


def format_duration(seconds: float) -> str:
    """Formats a duration, rounded.

    >>> [format_duration(seconds) for seconds in (0.234, 50.2, 100, 5000, 20000, 1e6)]
    ['0.23 s', '50 s', '2 min', '83 min', '5.6 h', '11.6 days']
    """
    for unit, size in (("days", 2 * 86400), ("h", 2 * 3600)):
        if seconds >= size:
            return f"{2 * seconds / size:,.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.2g} s"
