"""Formats bytes, FLOPs and durations for people."""


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


def format_flops(count: float) -> str:
    """Formats a number of floating-point operations.

    >>> format_flops(1.2345e13), format_flops(4e21), format_flops(7)
    ('12.3 TFLOP', '4,000 EFLOP', '7 FLOP')
    """
    for power, prefix in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M")):
        if count >= 10**power:
            value = count / 10**power
            return f"{value:,.0f} {prefix}FLOP" if value >= 1000 else f"{value:.3g} {prefix}FLOP"
    return f"{count:,.0f} FLOP"


def format_duration(seconds: float) -> str:
    """Formats a duration, rounded.

    >>> [format_duration(seconds) for seconds in (5e-6, 0.00123, 0.234, 50.2, 100, 5000, 20000, 1e6)]
    ['5 µs', '1.2 ms', '0.23 s', '50 s', '2 min', '83 min', '5.6 h', '11.6 days']
    """
    for unit, size in (("µs", 1e-6), ("ms", 1e-3)):
        if 0 < seconds < 10 * size:
            return f"{seconds / size:.2g} {unit}"
    for unit, size in (("days", 2 * 86400), ("h", 2 * 3600)):
        if seconds >= size:
            return f"{2 * seconds / size:,.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.2g} s"
