"""Progress: rate, time left, and how often it is reported."""

from jclip.search.progress import Meter, Progress


def test_rate_and_time_left():
    now, seen = [100.0], []
    meter = Meter(seen.append, total=50, done=10, skipped=1, interval=1.0, clock=lambda: now[0])
    for _ in range(20):  # 4 a second
        now[0] += 0.25
        meter.advance()
    assert seen[0] == Progress(10, 50, 1, 0.0, None)
    assert [each.done for each in seen] == [10, 14, 18, 22, 26, 30]
    assert seen[-1] == Progress(30, 50, 1, 4.0, 5.0)
    for _ in range(20):
        meter.advance(skipped=1)
    meter.finish()
    assert seen[-1] == Progress(50, 50, 21, 4.0, 0.0)


def test_no_watcher():
    meter = Meter(None, total=1)
    meter.advance()
    meter.finish()
