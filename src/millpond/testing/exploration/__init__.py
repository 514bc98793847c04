"""Search the core for histories in which its promises do not hold: seeds, every answer to every verb, planted faults.

``python -m millpond.testing.exploration --seconds 60`` explores with fresh seeds and prints them; ``--seed N`` begins
with a certain one.  See ``docs/simulation.md``.
"""

from .coverage import Seen
from .parts import Violation
from .planting import REAL, Core, Plant, planted
from .seeds import Failure, explore
from .world import World

__all__ = ["REAL", "Core", "Failure", "Plant", "Seen", "Violation", "World", "explore", "planted"]
