"""The lookout: who is told, and when, that a stream no longer vouches for a reading."""

import pytest

from server.models import Kind, Part, Reading, Topic
from server.realtime.lookout import Lookout

TICKER, WALLET = Topic(Kind.TICKER, "BTCUSDT"), Topic(Kind.WALLET)


class Scene:
    """Topics with what is known of them, a clock, and what the lookout has told."""

    def __init__(self) -> None:
        self.now = 100.0
        self.parts = {TICKER: self.part(), WALLET: self.part()}
        self.lost: list[Topic] = []
        self.lookout = Lookout(
            lambda: self.parts,
            self.parts.__getitem__,
            self.lost.append,
            stale_after_s=3.0,
            clock=lambda: self.now,
        )

    def part(self, *, age_s: float = 0.0, is_kept: bool = True, error: Exception | None = None) -> Part:
        """A part of that age now."""
        asked_at = self.now - age_s
        return Part(Reading("1", asked_at, asked_at, 0), error, False, asked_at, is_kept)


@pytest.fixture
def scene() -> Scene:
    """Two topics that a stream keeps."""
    return Scene()


def test_what_a_stream_keeps_is_vouched_for(scene: Scene) -> None:
    """Young readings that a stream keeps are vouched for; others never are, and nobody is told of those."""
    scene.parts[WALLET] = scene.part(is_kept=False)
    scene.lookout.look()
    assert scene.lookout.vouched == {TICKER}
    scene.lookout.look()
    assert scene.lost == []


@pytest.mark.parametrize(
    "change", [{"is_kept": False}, {"age_s": 3.001}, {"error": TimeoutError()}], ids=["broken", "old", "failed"]
)
def test_each_loss_is_told_once(scene: Scene, change: dict[str, object]) -> None:
    """A line that breaks, a reading over its age and one that failed are told of once, and again after they healed."""
    for _ in range(2):
        scene.parts[TICKER] = scene.part()
        scene.lookout.look()
        scene.parts[TICKER] = scene.part(**change)  # type: ignore[arg-type]
        scene.lookout.look()
        scene.lookout.look()
        assert scene.lookout.vouched == {WALLET}
    assert scene.lost == [TICKER, TICKER]


def test_age_counts_to_the_limit(scene: Scene) -> None:
    """At exactly the age from which on it is stale a reading is still vouched for."""
    scene.now += 3.0
    scene.lookout.look()
    assert scene.lookout.vouched == {TICKER, WALLET}
