"""Let a world come to rest, and assert what must hold in the end.

First nothing goes wrong any more: the server answers, everybody gives back, every notice is delivered.  Then everybody
who still waits must be served, by a certain time; whoever is not has been forgotten by the pool.  Then the pool is
closed, and nothing may be left.
"""

from __future__ import annotations

from millpond._core.states import FOREVER

from .parts import Violation, must
from .world import World

ROUNDS = 3_000  # more than enough; a pool that has not come to rest by then goes round in circles
PATIENCE_S = 30.0  # who may wait so long must be served: an overdue dial, then the longest pause between probes
QUIET_FOR_S = 5.0  # housekeeping happens once a second: after so long, nothing is left undone
PROMPT_S = 3.0  # a notice that was lost is made good within so long
DIAL_S = 0.01
LONG_S = 100.0  # longer than any finite wait


def come_to_rest(world: World) -> None:
    """Let everything end that can, and assert that nobody was forgotten."""
    for talk in [talk for talk in world.hung if talk.verb == "park"]:  # threads that were stopped go on
        world.hung.remove(talk)
        world.talks.append(talk)
    if everybody_can_be_served(world):
        world.served_after = world.now + PATIENCE_S
    settle_down(world)
    world.served_after = FOREVER
    check_rest(world)


def everybody_can_be_served(world: World) -> bool:
    """Is there nothing left that could rightly keep a caller waiting?"""
    limits = world.limits
    held = sum(talk.verb != "open" for talk in world.hung)
    dials = len(world.hung) - held
    return (
        not world.ledger.closed
        and limits.fail_after_s == FOREVER
        and held < limits.max_size
        and dials < limits.max_dialing
    )


def settle_down(world: World) -> None:
    """Let time pass until nothing happens any more."""
    quiet_after = world.now + QUIET_FOR_S
    prompt_until = world.now + PROMPT_S
    in_vain_after = world.now + LONG_S
    for _ in range(ROUNDS):
        if play_on(world):
            world.check()
            continue
        if world.now > in_vain_after and world.talks:
            # Unless drivers that do not answer have the connections, or credentials were refused: no more can be asked.
            in_vain = world.served_after == FOREVER or world.barred
            must(in_vain, "somebody waits, and nothing stands in the way")
            world.answer(0, "cancel")
            continue
        next_at = min([world.alarm_at, *(talk.until for talk in world.talks)])
        if not world.talks and ((world.now >= quiet_after and not world.ledger.dialing) or next_at == FOREVER):
            return
        if next_at == FOREVER:
            waiting = ", ".join(f"{talk.kind}: {talk.verb}" for talk in world.talks)
            raise Violation(f"nothing will ever happen again, and somebody waits ({waiting})")
        if world.now > prompt_until:
            check_nobody_oversleeps(world)
        world.now = max(world.now, next_at)
    raise Violation(f"the pool does not come to rest: {[(talk.kind, talk.verb) for talk in world.talks]}")


def check_nobody_oversleeps(world: World) -> None:
    """What was lost on the way to somebody is made good by one of the next ticks."""
    for ticket in filter(None, [reference() for reference in world.ledger.granted]):
        asleep = not ticket.waiter.woken and any(talk.subject is ticket for talk in world.talks)
        must(not asleep, "somebody was served and sleeps on")
    for number in world.ledger.unanswered:
        waits_s = world.now - world.ledger.dialing[number]
        must(waits_s < PROMPT_S, "a dial was decided and nobody was asked for it again")


def play_on(world: World) -> bool:
    """Take one step that somebody is ready for; False if nobody is."""
    world.deliver()
    if world.ghosts:
        world.haunt(0)
    elif world.pushes:
        world.push_on(0)
    elif world.pops:
        world.pop_on(0)
    elif world.jobs:
        world.begin_job(0)
    elif world.tick_is_due:
        world.tell("tick")
        world.tick()
    elif world.leases:
        world.give_back(0, "push")
    else:
        return play_talk(world)
    return True


def play_talk(world: World) -> bool:
    """Answer one conversation, as well as can be."""
    for index, talk in enumerate(world.talks):
        if talk.verb == "open":
            world.pass_time(DIAL_S)
        elif talk.verb == "park" and not talk.subject.waiter.woken:
            if talk.until > world.now:
                continue
            world.tell(f"{talk.kind}: the time is up")
            world.answer(index, "late")
            return True
        world.tell(f"{talk.kind}: {talk.verb}", talk.subject, "is answered")
        world.answer(index, "ok")
        return True
    return False


def check_rest(world: World) -> None:
    """Assert that nothing is in between."""
    ledger = world.ledger
    must(not ledger.tickets, "a ticket is left in the queue")
    must(not len(ledger.granted), "somebody was granted a connection and never picked it up")
    must(not ledger.watchers, "a watcher is left")
    must(not ledger.lost.found, "a slot was lost and not taken in")
    must(not ledger.untended or world.hung, "a connection was taken out of idle and forgotten")
    hung = {talk.subject.number for talk in world.hung}
    must(hung >= {slot.number for slot in ledger.abandoned}, "a dial counts as abandoned, and is none")
    if world.hung or ledger.closed:
        return
    held = list(ledger.live())  # what died without a word may be in the books until it is counted
    must(len(ledger.idle) == len(held), f"a slot is not idle: {held}")
    if len(held) < len(ledger.slots):
        return
    may_dial = not (ledger.callers_dial or ledger.rule.barred or ledger.rule.failures)
    must(len(ledger.idle) >= world.limits.min_idle or not may_dial, "the pool does not fill up to min_idle")


def close_down(world: World) -> None:
    """Close the pool, let everybody give back, and assert that nothing is left."""
    ledger = world.ledger
    if not ledger.closed:
        world.close()
    world.watch(1.0, empty=True)
    settle_down(world)
    if ledger.slots:
        world.cut()
    late = False
    for talk in [talk for talk in world.hung if talk.verb != "open" or (late := not late)]:
        world.hung.remove(talk)
        world.talks.append(talk)
        world.answer(len(world.talks) - 1, "ok" if talk.verb == "open" else "error")
    settle_down(world)
    ledger.rest()
    check_end(world)


def check_end(world: World) -> None:
    """Assert that everything that was opened is closed, and counted so."""
    ledger = world.ledger
    world.check()
    check_rest(world)
    must(not ledger.slots, f"slots are left after close: {list(ledger.live())}")
    must(not world.open, f"connections are left after close: {list(world.open.values())}")
    must(all(conn.closed for conn in world.conns), "a connection was given up and not closed")
    must(ledger.counts["opened"] == len(world.conns), "not every connection that was opened was counted")
    retired = sum(ledger.retired.values())
    must(retired == len(world.conns), f"{len(world.conns)} connections were opened, {retired} counted out")
    world.saw("a replacement was dialled before the end of a lifetime", ledger.counts["renewed"])
    for reason, count in ledger.retired.items():
        world.seen.reasons[reason.value] += count
    must(ledger.counts["lost"] <= world.drops, "a slot was lost that nobody had dropped")
    hung = {talk.subject.number for talk in world.hung}
    must(hung == {slot.number for slot in ledger.abandoned}, "the count of abandoned dials is wrong")
    must(not (ledger.dialing or ledger.young or ledger.unanswered), "a dial is left in the books")
