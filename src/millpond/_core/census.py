"""Slots that may be nobody's: find them, and free their room.

Why: whoever holds a slot owns it, so one that nobody holds dies, and its finalizer says so (see states.py).  Two things
make that less simple than it sounds.  The collector finalizes what is garbage in any order, so *finalized* is not
*lost*: whatever held the lease may have given it back first, and somebody else have taken it since.  And a signal that
strikes in a finalizer silences it, so *not heard of* is not *alive*.

Rules: nobody outside of this module writes to what a :class:`Census` keeps.  A finalized slot is let go of before it is
asked whether anybody else holds it, so that no frame in here may keep a name for it.  Who gets the room, or the
connection that was put back, is no matter of the census: the ledger decides.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, cast

from .pace import HOUSEKEEPING_S
from .states import GONE, LEASED, Reason, Slot

if TYPE_CHECKING:
    from .ledger import Ledger

AT_ONCE = 256  # slots counted in one tick; a signal would have to strike in a finalizer for one to be missing


class Census:
    """What is known of slots that may be nobody's."""

    def __init__(self) -> None:
        self.undead: dict[int, Slot] = {}  # finalized and alive: copies of such slots, for when they die after all
        self.missing: set[int] = set()  # of these, the last count has found no trace
        self.uncounted: deque[int] = deque()  # slots that this count has still to look at

    @property
    def is_open(self) -> bool:
        """Is there a slot of which the next tick may know more?"""
        return bool(self.undead or self.missing)

    def strike_off(self, number: int) -> None:
        """Forget a slot: its room belongs to somebody else."""
        self.bring_back(number)
        self.missing.discard(number)

    def bring_back(self, number: int) -> bool:
        """Forget that a slot was finalized; False if it was not."""
        twin = self.undead.pop(number, None)
        if twin is None:
            return False
        twin.lay_down()
        return True

    def next_numbers(self, everybody: Iterable[int]) -> Iterator[int]:
        """Say which slots to count now; all of *everybody* have their turn."""
        if not self.uncounted:
            self.uncounted.extend(everybody)
        for _ in range(min(len(self.uncounted), AT_ONCE)):
            yield self.uncounted.popleft()

    def misses_again(self, number: int) -> bool:
        """Note that a slot was not found; was that so the last time, too?"""
        if number in self.missing:
            return True
        self.missing.add(number)
        return False


# ---------------------------------------------------------------------- finalized
def take_in(ledger: Ledger, now: float) -> None:
    """Take in the next slot that was finalized: it is lost when nothing else holds it."""
    slot = cast("Slot", ledger.lost.found.popleft())  # nobody else may hold it in here
    if slot.state is GONE:  # reclaimed, or cut, meanwhile
        ledger.close_disowned(slot)
        return
    number, twin = slot.number, slot.twin()
    for shelf in (ledger.idle, ledger.settling, ledger.untended):
        if slot in shelf:
            ledger.withdraw(slot, shelf)
    in_books = number in ledger.slots
    reference = weakref.ref(slot)
    del slot
    if reference() is None:
        bury(ledger, twin, now)
    elif in_books:
        ledger.slots[number] = reference
        ledger.census.undead[number] = twin
        ledger.arm(now + HOUSEKEEPING_S)
    else:
        twin.lay_down()


def bury_undead(ledger: Ledger, now: float) -> None:
    """Ask of those that were finalized and alive whether they have died since."""
    undead = ledger.census.undead
    for number, twin in list(undead.items()):
        if ledger.slots[number]() is None:
            del undead[number]
            bury(ledger, twin, now)


def bury(ledger: Ledger, slot: Slot, now: float) -> None:
    """Nobody holds a connection any more: give it up."""
    if slot.state is LEASED:
        ledger.counts["dropped"] += 1
        slot.uses += 1
        slot.busy_s += now - slot.leased_at
        ledger.report("dropped", slot=slot, held_s=now - slot.leased_at)
    if slot.number not in ledger.slots:  # counted out between its death and its finalizer
        slot.state = GONE
        ledger.close_disowned(slot)
        return
    ledger.slots[slot.number] = weakref.ref(slot)
    ledger.counts["lost"] += 1
    slot.reason = Reason.UNCLEAN
    # Nobody can say what its last holder left in it, and a finalizer cannot wait for a reset: it is given up.
    ledger.discard(slot, Reason.UNCLEAN)


# ---------------------------------------------------------------------- given back by a finalizer
def was_garbage(ledger: Ledger, slot: Slot) -> bool:
    """Say whether the garbage collector has had this slot in hand: it clears references before it finalizes."""
    reference = ledger.slots.get(slot.number)
    return reference is not None and reference() is None


def reclaim(ledger: Ledger, slot: Slot, *, left: bool) -> Slot | None:
    """Return a new body for a slot that finalizers may have seen, or may see yet; None if it is nobody's by now.

    A generator that the garbage collector closes gives back what is garbage with it.

    Args:
        left: it was put aside by whoever the collector has closed; if it was finalized as well, it was dropped.
    """
    while ledger.lost.found:
        ledger.recover(ledger.clock())
    if slot.state is GONE:
        ledger.close_disowned(slot)
        return None
    heir = slot.heir()
    ledger.slots[heir.number] = weakref.ref(heir)
    if ledger.census.bring_back(heir.number) and left:
        bury(ledger, heir, ledger.clock())
        return None
    return heir


# ---------------------------------------------------------------------- died without a word
def count_slots(ledger: Ledger, now: float) -> None:
    """Free the room of slots that died without a word; so many a tick, all of them in turn.

    That takes a signal handler that raises in a finalizer, where Python drops what is raised.  One is counted out when
    it was missing twice: the collector clears references before it finalizes, and may be at that just now.
    """
    if ledger.lost.found:  # one that died in a cycle has lost its references as well, and is in there
        return
    census = ledger.census
    for number in census.next_numbers(ledger.slots):
        reference = ledger.slots.get(number)
        if reference is None or reference() is not None or number in census.undead:
            census.missing.discard(number)
        elif census.misses_again(number):
            ledger.counts["lost"] += 1
            ledger.retired[Reason.UNCLEAN] += number not in ledger.dialing
            ledger.strike_off(number)
            ledger.room_freed(now)
        else:
            ledger.arm(now + HOUSEKEEPING_S)
