"""Faults to plant in the core: each is one that a pool has had, or that this one could have.

A plant names a piece of the core's source, and what stands there instead.  When the core is written anew, so that a
piece is no longer there, the plant must follow: the tests say which.
"""

# ruff: noqa: E501  lines of the core, quoted with what they are indented by

from __future__ import annotations

from millpond.testing.exploration import Plant

PLANTS = (
    Plant(
        "a grant is not recorded: the ticket stays in the queue",
        "ledger",
        "        ticket, _ = self.tickets.popitem(last=False)\n",
        "        ticket = next(iter(self.tickets))\n",
    ),
    Plant(
        "the newest caller is served first",
        "ledger",
        "        ticket, _ = self.tickets.popitem(last=False)\n",
        "        ticket, _ = self.tickets.popitem(last=True)\n",
    ),
    Plant(
        "nobody looks at what was shelved before a ticket was seen",
        "ledger",
        "            self.match(now)  # a shell may have shelved a slot before it could see this ticket\n",
        "            pass\n",
    ),
    Plant(
        "the second look after a return looks at nothing",
        "ledger",
        "            self.retire_idle(slot, slot.reason)\n        self.match(now)\n",
        "            self.retire_idle(slot, slot.reason)\n",
    ),
    Plant(
        "a wake-up that was lost is not repeated by a tick",
        "upkeep",
        "            ledger.outbox.append((Notice.WAKE, ticket))  # the first one may have been lost to a signal\n",
        "            pass\n",
    ),
    Plant(
        "a dial that nobody took up is not asked for again",
        "upkeep",
        "            ledger.outbox.append((Notice.DIAL, slot))\n",
        "            pass\n",
    ),
    Plant(
        "a connection is given up, and its room to nobody",
        "ledger",
        "        self.give_up(slot, reason)\n        self.room_freed(self.clock())\n",
        "        self.give_up(slot, reason)\n",
    ),
    Plant(
        "a connection that a check found dead is not closed",
        "ledger",
        "            self.outbox.append((Notice.CLOSE, slot.conn))\n            slot.conn = None\n            self.retire(slot, reason)\n",
        "            if reason is not Reason.DEAD:\n                self.outbox.append((Notice.CLOSE, slot.conn))\n"
        "            slot.conn = None\n            self.retire(slot, reason)\n",
    ),
    Plant(
        "who is called away after a grant keeps the connection",
        "ledger",
        "        slot = self.pick_up(ticket)\n        if slot is not None:\n            self.put_back(slot, self.clock())\n",
        "        self.granted.discard(weakref.ref(ticket))\n",
    ),
    Plant(
        "who is called away after a grant passes on a connection that nobody has proved",
        "ledger",
        "            self.move(slot, IDLE)\n            self.idle.append(slot)\n            self.match(now)\n\n    def is_over",
        "            self.shelve(slot, now)\n\n    def is_over",
    ),
    Plant(
        "who is called away after a grant passes on an unread answer as if it were read",
        "ledger",
        "        elif slot.state is COLLECTING:\n            self.settle_later(slot)\n        elif self.is_over",
        "        elif self.is_over",
    ),
    Plant(
        "a check that was broken off costs the connection",
        "ledger",
        "        slot.best_before = RETIRED\n        self.untended.append(slot)\n        self.match(now)\n        self.tend(now)\n",
        "        self.discard(slot, Reason.DEAD)\n",
    ),
    Plant(
        "a check that was broken off is left to nobody who waits",
        "ledger",
        "        self.untended.append(slot)\n        self.match(now)\n        self.tend(now)\n",
        "        self.untended.append(slot)\n        self.tend(now)\n",
    ),
    Plant(
        "a connection whose check was broken off is handed out unproved",
        "ledger",
        "        self.untended.append(slot)\n        self.match(now)\n        self.tend(now)\n",
        "        self.shelve(slot, now)\n",
    ),
    Plant(
        "who was served something dead goes to the end of the queue",
        "ledger",
        "        self.take_place(ticket)\n        self.arm(now + HOUSEKEEPING_S)\n        self.match(now)\n",
        "        self.tickets[ticket] = None\n        self.arm(now + HOUSEKEEPING_S)\n        self.match(now)\n",
    ),
    Plant(
        "who finds the pool closed after a check waits in its queue",
        "ledger",
        "        if self.closed:  # meanwhile: this caller was proving a connection, and it was dead\n"
        "            raise self.ports.closed()\n",
        "",
    ),
    Plant(
        "a dial that lands after it was given up is not closed",
        "dials",
        "uses=0, age=0.0)\n    ledger.outbox.append((Notice.CLOSE, conn))\n",
        "uses=0, age=0.0)\n",
    ),
    Plant(
        "a dial that was given up is entered as if it had not been",
        "dials",
        "    if slot.state is GONE:  # given up before: overdue, or the pool was closed\n"
        "        late_arrival(ledger, slot, conn)\n        return\n    enter(ledger, slot, conn, now)\n",
        "    enter(ledger, slot, conn, now)\n",
    ),
    Plant(
        "a dial in the caller is entered twice",
        "conversations",
        "    enter(ledger, slot, conn, ledger.clock())\n    ledger.move(slot, LEASED)\n",
        "    enter(ledger, slot, conn, ledger.clock())\n    enter(ledger, slot, conn, ledger.clock())\n"
        "    ledger.move(slot, LEASED)\n",
    ),
    Plant(
        "a dial that was given up counts as abandoned for ever",
        "dials",
        '    ledger.abandoned.discard(slot)\n    ledger.counts["opened"] += 1\n',
        "    ledger.counts[\"opened\"] += 1\n    ledger.kept = [*getattr(ledger, 'kept', ()), slot]\n",
    ),
    Plant(
        "a drain forgets the connections that are settling",
        "ledger",
        "        while self.resting:\n            self.give_up_oldest(reason)\n",
        "        while self.idle:\n            self.give_up(self.idle.popleft(), reason)\n",
    ),
    Plant(
        "a drain forgets the dials in flight",
        "dials",
        "    if slot.expires_at > now:  # else it was drained while it was dialled\n",
        "    if True:\n",
    ),
    Plant(
        "a drained connection is handed out when its check is good",
        "conversations",
        "    if alive and slot.state is not GONE and not ledger.is_over(slot, now):\n",
        "    if alive and slot.state is not GONE:\n",
    ),
    Plant(
        "a closed pool shelves what comes back",
        "ledger",
        "        return self.closed or now >= slot.expires_at\n",
        "        return now >= slot.expires_at and slot.reason is not Reason.CLOSED\n",
    ),
    Plant(
        "a closed pool dials a replacement",
        "ledger",
        "        may = self.room > 0 and not self.closed and in_flight < self.limits.max_dialing\n",
        "        may = self.room > 0 and in_flight < self.limits.max_dialing\n",
    ),
    Plant(
        "a pool that was made smaller keeps what is too many",
        "ledger",
        "                slot.reason, slot.expires_at = Reason.SURPLUS, RETIRED\n",
        "                pass\n",
    ),
    Plant(
        "recovery closes a slot that somebody holds",
        "upkeep",
        "    abandon_overdue(ledger, now)\n    if ledger.hopeless(now):\n        ledger.fail_hopeless(now)\n    care(ledger, now)\n",
        "    for slot in list(ledger.live()):\n        if slot.state.value == 'leased' and now - slot.leased_at > 30.0:\n"
        "            ledger.give_up(slot, Reason.UNCLEAN)\n    abandon_overdue(ledger, now)\n    care(ledger, now)\n",
    ),
    Plant(
        "a slot that was lost is forgotten",
        "states",
        "            self.lost.take(self)\n",
        "            pass\n",
    ),
    Plant(
        "a slot that died without a word keeps its room",
        "upkeep",
        "    count_slots(ledger, now)\n",
        "",
    ),
    Plant(
        "a cut connection is not closed by its holder",
        "ledger",
        "        if slot.conn is not None:\n            self.outbox.append((Notice.CLOSE, slot.conn))\n            slot.conn = None\n\n",
        "\n",
    ),
    Plant(
        "a reset that failed leaves the connection to be found as lost",
        "conversations",
        "    elif clean is None:\n        ledger.settle_later(slot)\n    else:\n        ledger.discard(slot, Reason.UNCLEAN)\n    if len",
        "    elif clean is None:\n        ledger.settle_later(slot)\n    if len",
    ),
    Plant(
        "an overdue dial keeps its room",
        "upkeep",
        "        ledger.abandon(slot)\n        ledger.rule.failed(now)\n",
        "        ledger.dialing.pop(number)\n        ledger.young.pop(number, None)\n        ledger.rule.failed(now)\n",
    ),
    Plant(
        "more dials than max_size",
        "ledger",
        "        return self.limits.max_size - len(self.slots)\n",
        "        return self.limits.max_size - len(self.slots) + len(self.dialing)\n",
    ),
    Plant(
        "a pool at rest looks after one connection again and again",
        "upkeep",
        "    return max(due_at, now + HOUSEKEEPING_S)\n",
        "    return max(due_at, now + TOLERANCE_S)\n",
    ),
)
