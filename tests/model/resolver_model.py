#!/usr/bin/env python3
"""Executable model of two-way sync: causal conflict detection by echo, compare-and-set apply.

Run it:      python3 resolver_model.py [schedules] [first seed]
Prove it:    python3 resolver_model.py --mutants     (each broken variant must be caught)
Exit status: 0 when every random schedule converged and kept its guarantees, 1 otherwise.

What is modelled
----------------
Databases accept local writes at any time. Each database has ONE totally ordered change stream.
A capture task per database copies that stream, in order, onto ONE totally ordered log (a partition
of the bus). An applier per target database reads the log in order, runs the resolver over it and
writes the winners to its target, in transactions that each do three things:

  1. move the target's progress marker, by compare-and-set, to the log offset applied up to
     (exactly-once; a second applier of the same target is refused);
  2. write each version only over the version that the resolver expects there (guard: the image that
     the target should hold). A row that differs is left alone and its key is PARKED: most often the
     application has just written it and capture has not shown that yet;
  3. record parked keys (key, offset, what was seen) in the target itself.

When the target's own stream shows such a transaction, capture publishes Marker(database, offset,
parked, unparked) instead of rows: the echo. It stops loops, and tells every resolver since when that
database has, or lacks, a version.

Resolver rule, per key: an entry (version; per database, the offset of the last send under way to it and the images
that send may be written over) exists while a winning version is still in flight to someone.
  event from A, no entry, or nothing under way to A, or its before image is the entry's version
                                            -> A had seen it: accept; send to the others over E.before
  event from A, something under way to A    -> CONCURRENT: ask the strategy
       the event wins  -> send to the others over the entry's version; A keeps its own
       the entry wins  -> send the entry's version to A, over the event
       `reject` and `manual` always let the entry win; with `manual` a person may still decide otherwise.
       `on_delete` comes before the strategy where one of the two is a delete.
  merge, by columns, while an entry exists and none of the images is a delete or an insert: an event changes the columns
       in which its before and after differ. A delta column gets what the event added, whoever the entry is under way to.
       Another one is contested if the entry's value differs from the event's before and from its after: the strategy
       decides it, the loser is recorded. The rest is taken. The merged version is nobody's: to the others over the
       entry's, to A over the event
       Columns of a group are merged as one: its values together were written by somebody. A group has a strategy of its own.
  A send may be written over the image expected there, and over any image that older sends still under way to that
  database may have found or left. A row that already is as wanted needs no write.
  Marker(A, n)  -> A has all sends up to n, except parked ones.
       Parked because the row differed, and no event of A has explained that by now: the row has drifted (it was never
       captured). Send again, over what was seen there.
       A's event had won while a send to A was under way, and A did not park that send: the row had gone back to an
       image that the send could be written over, so it was written after all. Send the entry's version to A again.
  snapshot row from A  -> dropped if an entry exists; else sent to the others over nothing; loses against any event
  merged seeds: every database's rows are copied to all others, and the guard is what compares them
       until Seeded, a row that differs may be one whose snapshot row is still to come: the send waits for that, or for an
       event. An update of a row that the others need not have yet may be written over nothing, too.
       snapshot row from A, something under way to A, and it is no image that the send may be written over
                                            -> the two differ: an event's version stays, of two snapshot rows the
                                               strategy decides; the loser is on record as `seed`
       an event that beats a snapshot row that it had not seen puts that on record likewise
       Seeded           -> every snapshot row has come: what still waits has drifted
  a person's decision  -> on a key that has a conflict on record, and valid only on the version that the person saw;
       sent to everyone over that version
  records whose position is not above the last of their origin are duplicates: dropped

A target may also refuse a version (a constraint, a value that does not fit): parked the same way, and the
version waits in a retry queue. A newer version of a parked key is tried at once. A retry whose parked row is gone or
replaced has nothing to do; one that succeeds shows as such in the echo (the parked row goes, the row itself is written).

No clock decides whether writes conflict, no shadow table and no tombstones are needed, state is bounded by what is
in flight, and every applier reaches the same decisions from the log alone.

Images are values: a row is (writer, a, b, counter). In half of the schedules `writer` tells each version apart; in the
other half it is empty, a and b have few values, and what rests on telling versions apart is not judged there.

Simpler here than in the world: no constraint across keys; no failover of source, target or bus; one fixed configuration.

Checked after every schedule
----------------------------
  all databases equal; nothing left in flight or parked; all appliers decided alike;
  a local write is overwritten only by a version that saw it or beat it (checked at every single apply);
  no version comes back that a later write had seen and replaced;
  every local write that is not in the final version's history is in the ledger as a loser, or in a loser's history;
  no row is called drifted unless it was written behind capture's back;
  counters under `delta` end at the exact sum of all increments, where no row is deleted;
  with merged seeds the rows that the databases began with are accounted for like writes; a `seed` entry's loser is a row
  that was copied, and none that the winner had seen;
  a column written under `merge` is in the final row, replaced by a write that saw it, or in the ledger as a loser;
  the columns of a group are as one write made them.
"""
import copy
import random
import sys

MUTANTS = {
    "no-dedup": "records that capture published twice are not dropped",
    "echo-ignored": "a marker does not end the wait for a version",
    "echo-early": "a version counts as seen when it is sent, not when its echo shows",
    "no-guard": "a version is written over whatever the target holds",
    "loser-kept": "the database whose write lost is not sent the winner",
    "marker-monotonic": "the marker only has to grow: a second applier repeats writes",
    "parked-forgotten": "a marker covers a version that the target has not taken",
    "drift-ignored": "a row that differs without an event to explain it is left as it is",
    "aba": "a row that went away and came back to what a send expected hides that the send was written over it",
    "snapshot-wins": "a snapshot row is treated like a change",
    "stale-decision": "a decision is carried out on a state that the person did not see",
    "delta-equal": "a counter that shows the written value already is taken for having it",
    "column-silent": "a column that lost is not put on record",
    "group-split": "columns of a group are merged one by one",
    "retry-unguarded": "a retry is written over whatever the target holds by then",
    "seed-eager": "a row that differs is overwritten before its own snapshot row has come",
    "seed-dropped": "a snapshot row of a key that is under way is dropped, as without merged seeds",
    "seed-silent": "the snapshot row that lost is not put on record",
    "seed-again": "a snapshot row that the send may be written over is taken for one that differs",
    "seed-beats": "a snapshot row can win against an event",
    "seed-event-silent": "a snapshot row that an event has beaten is not put on record",
    "seed-columns": "columns are merged of rows that have nothing in common",
    "seed-absent": "an update waits where its row was not copied yet",
    "seed-kept": "what waits is forgotten when the seeds have been copied",
}
mutant = None
KEEP = "KEEP"  # instead of an image: this database has the version, or something newer of its own


def image(version):
    """What a database holds that has this version; None for no row."""
    return version["value"]


class Rules:
    """How a table decides: a strategy, what a delete does, and whether columns are merged."""

    def __init__(self, strategy, on_delete, merge, merged_seeds, groups=()):
        self.strategy, self.on_delete, self.merge, self.merged_seeds = strategy, on_delete, merge, merged_seeds
        self.groups = groups  # of columns that are merged as one: (columns, strategy)

    def parts(self):
        """The columns but the counter as they are merged: (columns, strategy)."""
        groups = [] if mutant == "group-split" else self.groups
        grouped = {column for columns, _ in groups for column in columns}
        return [((column,), self.strategy) for column in range(COUNTER) if column not in grouped] + list(groups)

    def winner(self, held, event, strategy=None):
        if (held["value"] is None) != (event["value"] is None) and self.on_delete != "by_strategy":
            deletes = self.on_delete == "delete_wins"
            return held if (held["value"] is None) == deletes else event
        return STRATEGIES[strategy or self.strategy](held, event)


class Resolver:
    def __init__(self, databases, rules):
        self.databases, self.rules = list(databases), rules
        self.seeding = rules.merged_seeds  # until all of them have been copied
        self.waiting = {}    # (database, key) -> offset of a send that met a row which differs, while seeding
        self.values = {}     # id of a loser -> its row, for the judge
        self.entries = {}    # key -> dict(version; pending, unsure: database -> (offset of the send, images it may be written over))
        self.parked = {}     # (database, key) -> offset of the send that the database has not taken
        self.position = {}   # origin -> highest stream position seen
        self.last = {}       # key with a conflict on record -> image of its last accepted version
        self.ledger = []     # (offset, key, winner, loser, kind)
        self.equal = set()   # (event, version): the event was written over the very image of a version that it had not been sent, for the judge

    def on_record(self, seq, record):
        """Returns a list of (version, {database: images that it may be written over})."""
        origin, position, kind, payload = record
        if position <= self.position.get(origin, -1) and mutant != "no-dedup":
            return []
        self.position[origin] = position
        if kind == "marker":
            return self.on_marker(seq, origin, *payload)
        if kind == "read" and mutant != "snapshot-wins":
            return self.on_read(seq, payload)
        if kind == "decision":
            return self.on_decision(seq, payload)
        if kind == "seeded":
            return self.on_seeded(seq)
        return self.on_event(seq, payload)

    def dispute(self, seq, key, held, winner, loser, kind):
        """Puts a conflict on record; `held` is the version that stands until something else is accepted."""
        self.ledger.append((seq, key, winner, loser, kind))
        self.last[key] = image(held)

    def on_marker(self, seq, database, offset, parked, unparked):
        dropped = {(key, self.parked.pop((database, key), None)) for key, written in unparked if not written}
        for key, written in unparked:
            self.parked.pop((database, key), None)
        differs = set()
        if mutant != "parked-forgotten":
            for key, sent, reason in parked:
                self.parked[(database, key)] = sent
                if reason == "differs":
                    differs.add(key)
        if mutant == "echo-ignored":
            return []
        sends = []
        for key, entry in list(self.entries.items()):
            version, pending, unsure = entry["version"], entry["pending"], entry["unsure"]
            taken = lambda sent: self.parked.get((database, key)) != sent
            if database in unsure and unsure[database][0] <= offset and taken(unsure[database][0]):
                sent, over = unsure.pop(database)
                if (key, sent) not in dropped and mutant != "aba":
                    pending[database] = (seq, over)
                    sends.append((version, {database: over}))
                    continue
            if database in pending and pending[database][0] <= offset:
                sent, over = pending[database]
                if taken(sent):
                    del pending[database]
                elif key in differs and self.seeding and mutant != "seed-eager":
                    self.waiting[database, key] = sent
                elif key in differs and mutant != "drift-ignored":
                    sends += self.drifted(seq, key, database)
            if not pending and not unsure:
                del self.entries[key]
        return sends

    def drifted(self, seq, key, database):
        entry = self.entries[key]
        version, (sent, over) = entry["version"], entry["pending"][database]
        self.dispute(seq, key, version, version["id"], None, "drift")
        entry["pending"][database] = (seq, over + [("seen", sent)])
        return [(version, {database: over + [("seen", sent)]})]

    def on_seeded(self, seq):
        """Every database's rows have been copied: nothing can explain any more what still waits."""
        waiting, self.waiting, self.seeding, sends = self.waiting, {}, False, []
        for (database, key), sent in sorted(waiting.items()) if mutant != "seed-kept" else []:
            pending = self.entries[key]["pending"] if key in self.entries else {}
            if database in pending and pending[database][0] == sent == self.parked.get((database, key)):
                sends += self.drifted(seq, key, database)
        return sends

    def on_read(self, seq, version):
        origin, key = version["origin"], version["key"]
        entry = self.entries.get(key)
        if entry is None:
            return self.accept(seq, version, {d: None for d in self.others(version)})
        # Where nothing is under way to it, it has what is held, or a write of its own has told what it has.
        if not self.seeding or mutant == "seed-dropped" or origin not in entry["pending"]:
            return []
        held, over = entry["version"], entry["pending"][origin][1]
        if image(version) == image(held) or image(version) in over and mutant != "seed-again":
            return []  # it has the version, or the version will be written over what it has
        by_strategy = held["read"] or mutant == "seed-beats"
        winner = self.rules.winner(held, version) if by_strategy else held
        return self.settle(seq, entry, version, winner, "seed", silent=mutant == "seed-silent")

    def on_decision(self, seq, version):
        if self.last.get(version["key"], KEEP) != version["before"] and mutant != "stale-decision":
            return []
        return self.accept(seq, version, {d: version["before"] for d in self.databases})

    def on_event(self, seq, event):
        origin, key = event["origin"], event["key"]
        entry = self.entries.get(key)
        # A row that the event had seen may be at others, too, where it is still to be copied from.
        also = [event["before"]] if self.seeding else []
        if entry is not None and self.rules.merge and not entry["version"]["read"] and self.is_known(event, entry):
            if None not in (entry["version"]["value"], event["before"], event["value"]):
                return self.on_columns(seq, event, entry, also)
        if entry is None or origin not in entry["pending"]:
            # What an older send has left at the origin meanwhile, and the event was made over, the others need not have.
            over = event["before"] if entry is None else image(entry["version"])
            if entry is None and self.seeding and mutant != "seed-absent":
                also = [None]  # the row need not have been copied yet
            return self.accept(seq, event, {d: over for d in self.others(event)}, also)
        held = entry["version"]
        if held["origin"] == origin or event["before"] == image(held):  # its own version sent back to it, or it evidently saw this one
            self.equal.add((event["id"], held["id"]))
            # The others have what is held, whatever an older send has left at the origin meanwhile.
            return self.accept(seq, event, {d: image(held) for d in self.others(event)} | {origin: KEEP}, also)
        if held["read"]:
            differ = self.rules.merged_seeds and image(event) != image(held)
            return self.settle(seq, entry, event, event, "seed", also, silent=not differ or mutant == "seed-event-silent")
        return self.settle(seq, entry, event, self.rules.winner(held, event), kind(held, event), also)

    def settle(self, seq, entry, version, winner, kind, also=(), silent=False):
        """Of the version that is held and one that its origin has instead, the winner stays."""
        held, origin, key = entry["version"], version["origin"], version["key"]
        loser = held if winner is version else version
        if not silent:
            self.dispute(seq, key, held, winner["id"], loser["id"], kind)
            self.values[loser["id"]] = loser["value"]
        if winner is version:
            return self.accept(seq, version, {d: image(held) for d in self.others(version)} | {origin: KEEP}, also)
        if mutant == "loser-kept":
            return []
        over = entry["pending"][origin][1] + [image(version)]
        entry["pending"][origin] = (seq, over)
        return [(held, {origin: over})]

    def is_known(self, event, entry):
        """Whether the row that an event was made over has been seen: one of a seed that is still to come need have nothing
        in common with what is held."""
        pending = entry["pending"].get(event["origin"])
        known = pending is None or event["before"] in pending[1] or event["before"] == image(entry["version"])
        return known or not self.seeding or mutant == "seed-columns"

    def on_columns(self, seq, event, entry, also):
        """While an entry exists, the columns that an event changed are merged into it; what an event added to a counter
        is added, whoever the entry is under way to: equal images prove nothing."""
        origin, key, held = event["origin"], event["key"], entry["version"]
        merged, contested = merge(held, event, self.rules)
        if origin not in entry["pending"] and origin not in entry["unsure"] and merged["value"] == event["value"]:
            return self.accept(seq, event, {d: image(entry["version"]) for d in self.others(event)}, also)
        for column, winner, loser in contested if mutant != "column-silent" else []:
            self.dispute(seq, key, held, (winner["id"], column, winner["value"][column]), (loser["id"], column, loser["value"][column]), "update_origin_differs")
        return self.accept(seq, merged, {d: image(held) for d in self.others(event)} | {origin: image(event)}, also)

    def others(self, version):
        return [d for d in self.databases if d != version["origin"]]

    def accept(self, seq, version, expectations, also=()):
        """Sends the version to each database over the image expected there, or over any that older sends under way
        to it may have found or left; KEEP: this database has it, or something newer of its own."""
        old = self.entries.get(version["key"], dict(version=None, pending={}, unsure={}))
        under_way = {d: (sent, over + [image(old["version"])]) for d, (sent, over) in old["pending"].items()}
        keeps = [d for d in expectations if expectations[d] is KEEP]
        under_way = {d: u for d, u in old["unsure"].items() if d not in under_way} | under_way
        over = {d: under_way.get(d, (0, []))[1] + [e, *also] for d, e in expectations.items() if d not in keeps}
        pending = {} if mutant == "echo-early" else {d: (seq, o) for d, o in over.items()}
        unsure = {d: u for d, u in under_way.items() if d not in pending}
        self.entries[version["key"]] = dict(version=version, pending=pending, unsure=unsure)
        if version["key"] in self.last:
            self.last[version["key"]] = image(version)
        return [(version, over | {d: [KEEP] for d in keeps})]


def kind(held, event):
    """PostgreSQL's name of a conflict, as seen where the event meets the version that is held."""
    if event["value"] is None:
        return "delete_missing" if held["value"] is None else "delete_origin_differs"
    if held["value"] is None:
        return "update_deleted"
    return "insert_exists" if event["before"] is None else "update_origin_differs"


def timestamp(held, event):  # ties: the name that sorts first
    return min(held, event, key=lambda v: (-v["ts"], v["by"]))


def first_write(held, event):
    return min(held, event, key=lambda v: (v["ts"], v["by"]))


def priority(held, event):  # the name that sorts first has the highest priority
    return min(held, event, key=lambda v: v["by"])


def incumbent(held, event):
    return held


STRATEGIES = {"timestamp": timestamp, "first_write": first_write, "priority": priority, "reject": incumbent, "manual": incumbent}
WRITER, COUNTER = 0, 3


def merge(held, event, rules):
    """The held version with what the event changed, and the contested columns: (column, winner, loser)."""
    before, after, kept = event["before"], event["value"], held["value"]
    values, contested = list(kept), []
    if kept[COUNTER] != after[COUNTER] or mutant != "delta-equal":
        values[COUNTER] += after[COUNTER] - before[COUNTER]
    for columns, strategy in rules.parts():
        was, now, has = (tuple(row[column] for column in columns) for row in (before, after, kept))
        if was == now:
            continue
        if has not in (was, now):
            winner = rules.winner(held, event, strategy)
            differ = [column for column in columns if kept[column] != after[column]]
            contested += [(column, winner, held if winner is event else event) for column in differ]
            if winner is held:
                continue
        for column in columns:
            values[column] = after[column]
    ident = f"({held['id']}+{event['id']})"
    by, ts = min(held["by"], event["by"]), max(held["ts"], event["ts"])
    return dict(event, origin="merge", by=by, ts=ts, value=tuple(values), id=ident, read=False), contested


class Database:
    def __init__(self, name, skew, history):
        self.name, self.skew, self.history = name, skew, history
        self.rows, self.stream = {}, []
        self.truth = {}  # key -> id of the version held, a delete's too: for the judge, nobody else sees it
        self.progress, self.parked, self.refuses = -1, {}, set()
        self.unread, self.shown, self.seeds_end = [], set(), -1  # keys to copy; keys in the stream; the end of the copy there

    def local_write(self, now, key, value, ident, logged=True):
        before = self.rows.get(key)
        if value == before:
            return  # deleting what is not there, or changing nothing, is no event
        self.history.wrote(key, ident, self.truth.get(key), logged)
        self.put(key, value, ident)
        if logged:
            self.shown.add(key)
            version = dict(origin=self.name, key=key, value=value, ts=now + self.skew, id=ident, before=before, by=self.name, read=False)
            self.stream.append(("event", version))

    def snapshot_row(self, now, key):
        if key in self.rows:
            version = dict(origin=self.name, key=key, value=self.rows[key], ts=now, id=self.truth[key], before=None, by=self.name, read=True)
            self.stream.append(("read", version))

    def copy_seed(self, rng, ts, keys):
        """Reads one more row, or one that was read before: the copy was interrupted. A key that the stream has shown
        meanwhile may be left out."""
        if self.unread:
            key = self.unread.pop() if rng.random() < 0.9 else rng.randrange(keys)
            if key not in self.shown or rng.random() < 0.5:
                self.snapshot_row(ts, key)
            self.seeds_end = len(self.stream) - 1

    def apply(self, batch, expected_progress, offset):
        """One transaction: marker by compare-and-set, guarded rows, parked keys. False: superseded."""
        if (self.progress >= offset) if mutant == "marker-monotonic" else (self.progress != expected_progress):
            return False
        self.progress = offset
        parked, unparked = [], []
        for key, (seq, version, over) in batch.items():
            old = self.parked.pop(key, None)
            if old:
                unparked.append((key, False))
            if KEEP in over:
                continue
            if old and ("seen", old["seq"]) in over:
                over = over + [old["seen"]]
                if self.rows.get(key) == old["seen"]:
                    self.history.drifted.append((self.name, key, old["seen"]))
            reason = self.try_write(version, over)
            if reason:
                self.parked[key] = dict(seq=seq, version=version, over=over, seen=self.rows.get(key), reason=reason)
                parked.append((key, seq, reason))
        self.stream.append(("marker", (offset, parked, unparked)))
        return True

    def try_write(self, version, over):
        key = version["key"]
        there, truth = self.rows.get(key), self.truth.get(key)
        if there == image(version):  # it is as wanted already, whoever made it so
            self.history.same(version["id"], truth)
            self.truth[key] = version["id"]
            return None
        if there not in over and mutant != "no-guard":
            return "differs"
        if key in self.refuses:
            return "refused"
        if there is None:
            self.history.same(version["id"], truth)  # written over nothing, as expected: whoever made it nothing
        self.history.overwrote(self.name, key, None if there is None else truth, version["id"])
        self.put(key, version["value"], version["id"])
        self.shown.add(key)
        return None

    def retry(self, key, seq):
        """One transaction: the parked version is written, if its row is still there and the guard holds. False: again later."""
        item = self.parked.get(key)
        if not item or item["seq"] != seq or item["reason"] != "refused":
            return True
        if key in self.refuses:
            return False
        reason = self.try_write(item["version"], [self.rows.get(key)] if mutant == "retry-unguarded" else item["over"])
        if reason:
            return True  # the application has written meanwhile: its event decides, and the parked row goes then
        del self.parked[key]
        self.stream.append(("marker", (self.progress, [], [(key, True)])))
        return True

    def put(self, key, value, ident):
        self.truth[key] = ident
        if value is None:
            self.rows.pop(key, None)
        else:
            self.rows[key] = value


class History:
    """What really happened, seen from outside, to judge the algorithm by."""

    def __init__(self):
        self.parents, self.replaced, self.local, self.errors, self.drifted = {}, set(), [], [], []
        self.over = {}  # a local write -> the version that it was made over
        self.columns = {}  # (key, column, value written) -> value replaced
        self.pairs = set()  # (key, a, b) as somebody wrote them together
        self.seeds = {}  # names of rows that a database began with, while all of them are copied

    def wrote(self, key, ident, before, logged):
        self.parents[ident] = [before]
        self.over[ident] = before
        self.replaced.add((key, before))
        if logged:
            self.local.append((key, ident))

    def begun(self, key, ident, row):
        """A row to be accounted for like a write."""
        self.local.append((key, ident))
        self.seeds[ident] = key, row

    def wrote_columns(self, key, before, after):
        for column in range(1, COUNTER):
            if before is not None and after is not None and before[column] != after[column]:
                self.columns[key, column, after[column]] = before[column]

    def column_ancestors(self, found):
        seen, todo = set(), list(found)
        while todo:
            item = todo.pop()
            if item not in seen:
                seen.add(item)
                if item in self.columns:
                    todo.append((item[0], item[1], self.columns[item]))
        return seen

    def same(self, one, other):
        if one != other:
            self.parents.setdefault(one, []).append(other)

    def ancestors(self, idents):
        seen, todo = set(), list(idents)
        while todo:
            ident = todo.pop()
            if ident is None or ident in seen:
                continue
            seen.add(ident)
            todo += self.parents.get(ident, [])
            if isinstance(ident, str) and ident.startswith("("):
                depth, parts, start = 0, [], 1
                for i, c in enumerate(ident[1:-1], 1):
                    depth += (c == "(") - (c == ")")
                    if c == "+" and depth == 0:
                        parts.append(ident[start:i])
                        start = i + 1
                todo += parts + [ident[start:-1]]
        return seen

    def seen_by(self, ident):
        seen = []
        while (ident := self.over.get(ident)) and ident not in seen:
            seen.append(ident)
        return seen

    def overwrote(self, database, key, old, new):
        if old is None or old in self.ancestors([new]):
            return
        self.errors.append((database, key, old, new))


class Capture:
    """Copies one database's change stream to the log, at least once and in order."""

    def __init__(self, database):
        self.database, self.next, self.saved = database, 0, 0

    def step(self, log):
        if self.next >= len(self.database.stream):
            return False
        log.append((self.database.name, self.next) + self.database.stream[self.next])
        self.next += 1
        return True

    def checkpoint(self):
        self.saved = self.next

    def crash(self):
        self.next = self.saved


class Applier:
    """Consumes the log for one target. `crash` loses everything but the last saved checkpoint."""

    def __init__(self, target, databases, rules, queue):
        self.target, self.resolver, self.offset, self.batch = target, Resolver(databases, rules), 0, {}
        self.progress, self.queue = target.progress, queue  # queue: the durable retry queue of this target
        self.saved = (0, copy.deepcopy(self.resolver))

    def step(self, log):
        if self.offset >= len(log):
            return self.flush()
        for version, expectations in self.resolver.on_record(self.offset, log[self.offset]):
            if self.target.name in expectations and self.offset > self.progress:  # the last send of a key in a batch is enough
                self.batch[version["key"]] = (self.offset, version, expectations[self.target.name])
        self.offset += 1

    def flush(self):
        if not self.batch:
            return
        for key, (seq, version, over) in self.batch.items():  # queued before the commit: at least once
            if KEEP not in over and key in self.target.refuses:
                self.queue.append((key, seq))
        if self.target.apply(self.batch, self.progress, self.offset - 1):
            self.progress, self.batch = self.offset - 1, {}
        else:
            self.crash()

    def retry(self, rng):
        if self.queue:
            item = self.queue.pop(rng.randrange(len(self.queue)))
            if not self.target.retry(*item):
                self.queue.append(item)

    def checkpoint(self):
        self.flush()
        self.saved = (self.offset, copy.deepcopy(self.resolver))

    def crash(self):
        self.offset, self.resolver, self.batch = self.saved[0], copy.deepcopy(self.saved[1]), {}
        self.progress = self.target.progress


class Schedule:
    """One random world: what its databases are like, and what its applications write."""

    def __init__(self, rng):
        self.names = ["crm", "erp", "web"][: rng.choice([2, 2, 3])]
        self.merges = rng.random() < 0.4
        strategy = rng.choice(["timestamp", "priority", "first_write", "reject", "manual"])
        on_delete = rng.choice(["by_strategy", "by_strategy", "delete_wins", "update_wins"])
        self.seeding = rng.choice(["", "one", "merged", "merged"])  # whose rows are copied to the others
        if self.merges and self.seeding == "one":
            self.seeding = ""
        groups = [((1, 2), rng.choice(sorted(STRATEGIES)))] if self.merges and rng.random() < 0.5 else []
        self.rules = Rules(strategy, on_delete, self.merges, self.seeding == "merged", groups)
        self.told_apart = rng.random() < 0.5
        self.deletes = not self.merges or rng.random() < 0.3
        self.refusing = rng.random() < 0.5
        self.drifting = rng.random() < 0.3 and not self.merges
        self.copying = rng.choice([0.15, 0.3, 0.8])  # how often a row is copied rather than anything else done
        self.times = rng.random() < 0.3  # rows have a column with the time of their last change
        self.added = {}
        self.differ = set()  # keys with rows that differ before they are copied

    def first(self, rng, key):
        """The row that each database begins with, and its name."""
        row = lambda name, value: ((name if self.told_apart else "", value, value, 0), name)
        same = row(f"s{key}", "s")
        if self.seeding != "merged":
            return {n: same for n in (self.names[:1] if self.seeding else self.names)}
        rows = {n: same for n in self.names if rng.random() < 0.7}
        if rng.random() < 0.7:
            own = rows.keys() and rng.choice(sorted(rows))
            for n in [n for n in rows if n == own or rng.random() < 0.5]:
                name = f"s{key}{n}"
                rows[n] = row(name, name if self.told_apart else rng.choice("xyz"))
        if len(rows) > 1 and len({name for _, name in rows.values()}) > 1:
            self.differ.add(key)
        return rows

    def next(self, rng, key, ident, row):
        if row is None and self.merges and not self.deletes:
            return None  # a counter that begins anew has no sum
        if row is not None and self.deletes and rng.random() < 0.2:
            return None
        _, a, b, counter = row or ("", "s", "s", 0)
        which, step = rng.choice(["a", "b", "ab", ""]), rng.choice([-1, 1, rng.randint(1, 9)]) if self.merges else 0
        value = lambda few: ident if self.told_apart else rng.choice(few)
        a, b = value("xyz") if "a" in which or row is None else a, value("uv") if "b" in which or row is None else b
        self.added[key] = self.added.get(key, 0) + step
        return (ident if self.told_apart else "", a, b, counter + step)


def run(seed):
    rng = random.Random(seed)
    schedule = Schedule(rng)
    names, rules = schedule.names, schedule.rules
    history = History()
    databases = {n: Database(n, rng.choice([0, 0, -50, 50]), history) for n in names}
    queues = {n: [] for n in names}
    appliers = [Applier(databases[n], names, rules, queues[n]) for n in names]
    captures = [Capture(databases[n]) for n in names]
    log, writes, decisions, now = [], 0, 0, 0
    total, keys = rng.randint(5, 120), rng.randint(1, 6)
    for key in range(keys):
        for n, (row, ident) in schedule.first(rng, key).items():
            databases[n].put(key, row, ident)
            history.pairs.add((key, *row[1:COUNTER]))
            if schedule.rules.merged_seeds:
                history.begun(key, ident, row)
    for n in names if schedule.rules.merged_seeds else []:
        databases[n].unread = rng.sample(range(keys), keys)
    read_at = lambda: rng.randint(0, 2) if schedule.times else 0  # a snapshot row has no time, but for a column with one

    while writes < total:
        now += 1
        db, action = databases[rng.choice(names)], rng.random()
        if db.unread and rng.random() < schedule.copying:
            db.copy_seed(rng, read_at(), keys)
            continue
        seeding = schedule.rules.merged_seeds and not any(kind == "seeded" for *_, kind, _ in log)
        hidden = 0.15 if seeding else 0.003
        applier = rng.choice([a for a in appliers if a.target is db])
        key = rng.randrange(keys)
        if schedule.rules.merged_seeds and rng.random() < 0.02:
            copied(log, databases)
        if schedule.drifting and rng.random() < hidden:  # a write that capture never sees
            db.local_write(now, key, (f"u{now}", "u", "u", 0), f"u{now}", logged=False)
            continue
        if action < 0.30:
            before, ident = db.rows.get(key), f"w{writes}"
            value = schedule.next(rng, key, ident, before)
            if schedule.told_apart:
                history.wrote_columns(key, before, value)
            if value is not None:
                history.pairs.add((key, *value[1:COUNTER]))
            db.local_write(now, key, value, ident)
            writes += 1
        elif action < 0.58:
            rng.choice([c for c in captures if c.database is db]).step(log)
        elif action < 0.85:
            applier.step(log)
        elif action < 0.90:
            applier.flush()
        elif action < 0.92:
            applier.checkpoint()
        elif action < 0.93:
            applier.crash()
        elif action < 0.935:
            rng.choice(captures).checkpoint()
        elif action < 0.945:
            rng.choice(captures).crash()
        elif action < 0.955:
            applier.retry(rng)
        elif action < 0.965 and schedule.refusing:
            db.refuses ^= {key}
        elif action < 0.972 and not schedule.merges and not schedule.rules.merged_seeds:
            databases[names[0]].snapshot_row(now, key)
        elif action < 0.98 and not schedule.merges:
            seen = rng.choice(list(databases.values()))
            basis = seen.rows.get(key)
            history.parents[f"d{now}"] = [seen.truth.get(key)]
            value = (f"d{now}" if schedule.told_apart else "", "d", "d", 0)
            version = dict(origin="person", key=key, value=value, ts=now, id=f"d{now}", before=basis, by="~", read=False)
            log.append(("person", decisions, "decision", version))
            decisions += 1
        elif action < 0.985 and len(captures) < 6:  # a second capture, started from an older checkpoint
            captures.append(copy.copy(rng.choice(captures)))
            captures[-1].crash()
        elif action < 0.997 and len(appliers) < 6:  # a second applier of the same target, likewise
            twin = Applier(applier.target, names, rules, applier.queue)
            twin.saved = applier.saved
            twin.crash()
            appliers.append(twin)

    for db in databases.values():
        db.refuses.clear()
    for db in databases.values():
        while db.unread:
            db.copy_seed(rng, read_at(), keys)
    if not schedule.merges and not schedule.rules.merged_seeds:
        for key in range(keys):
            databases[names[0]].snapshot_row(now, key)
    quiesce(seed, databases, captures, appliers, log, rng)
    if schedule.rules.merged_seeds:
        copied(log, databases)
        quiesce(seed, databases, captures, appliers, log, rng)
    judge_parked(seed, databases)
    if schedule.drifting:  # a write that capture never saw shows when its key is written to again
        for key in range(keys):
            databases[names[0]].local_write(now + 1000, key, (f"e{key}", "end", "end", 0), f"e{key}")
        quiesce(seed, databases, captures, appliers, log, rng)
    judge(seed, schedule, databases, appliers, history, log)
    decided = max((a.resolver.ledger for a in appliers), key=len)
    return len(log), len(decided)


def copied(log, databases):
    """Ends the seeding once every database's rows are on the log; once more does no harm."""
    reached = {}
    for origin, position, *_ in log:
        reached[origin] = max(reached.get(origin, -1), position)
    if all(not db.unread and reached.get(db.name, -1) >= db.seeds_end for db in databases.values()):
        log.append(("seeds", reached.get("seeds", -1) + 1, "seeded", None))


def quiesce(seed, databases, captures, appliers, log, rng):
    size = None
    while size != (size := (len(log), [len(d.stream) for d in databases.values()], [len(a.queue) for a in appliers])):
        for c in captures:
            while c.step(log):
                pass
        for a in appliers:
            while a.queue:
                a.retry(rng)
            while a.offset < len(log):
                a.step(log)
            a.flush()
        assert len(log) < 100_000, f"seed {seed}: never came to rest"


def judge(seed, schedule, databases, appliers, history, log):
    names = schedule.names
    for one, other in set().union(*(a.resolver.equal for a in appliers)):
        history.same(one, other)
    states = [databases[n].rows for n in names]
    assert all(s == states[0] for s in states), f"seed {seed}: diverged {states}"
    decided = [a.resolver.ledger for a in appliers if a.offset == len(log)]
    tail = min(len(d) for d in decided)
    assert all(d[len(d) - tail:] == decided[0][len(decided[0]) - tail:] for d in decided), f"seed {seed}: appliers disagree"
    assert not any(a.resolver.entries for a in appliers), f"seed {seed}: state left behind"
    ledger = max(decided, key=len)
    if schedule.merges and not schedule.deletes:
        for key, row in states[0].items():
            total = schedule.added.get(key, 0)
            if key in schedule.differ:
                continue  # one of the counters has lost
            assert row[COUNTER] == total, f"seed {seed}: counter {key} is {row[COUNTER]}, {total} were added"
    for key, row in states[0].items() if schedule.rules.groups else []:
        assert (key, *row[1:COUNTER]) in history.pairs, f"seed {seed}: nobody wrote the columns of {row} at key {key} together"
    if not schedule.told_apart:
        return
    if not schedule.drifting and schedule.seeding != "one":  # a row that is not seeded yet is as unknown to capture as a drifted one
        assert not history.drifted, f"seed {seed}: {history.drifted[0]} was called drift"
        drift = [entry for entry in ledger if entry[4] == "drift"]
        assert not drift, f"seed {seed}: {drift[0]} is recorded as drift"
    for _, key, winner, loser, kind in ledger:
        if kind == "seed" and not schedule.drifting:
            assert not str(loser).startswith("w"), f"seed {seed}: write {loser} of key {key} lost against a row that was copied"
            assert loser not in history.seen_by(winner), f"seed {seed}: {winner} of key {key} stands against {loser}, which it had seen"
    if schedule.merges:
        if not schedule.deletes:
            values = {ident: value for a in appliers for ident, value in a.resolver.values.items()}
            judge_columns(seed, states[0], history, ledger, values)
        return
    judge_rows(seed, databases[names[0]].truth, schedule, history, ledger)


def judge_parked(seed, databases):
    assert not any(d.parked for d in databases.values()), f"seed {seed}: a key stayed parked"


def judge_columns(seed, rows, history, ledger, values):
    final = {(key, column, row[column]) for key, row in rows.items() for column in range(1, COUNTER)}
    lost = {(key,) + loser[1:] for _, key, _, loser, _ in ledger if isinstance(loser, tuple)}
    lost |= {(key, column, values[loser][column]) for _, key, _, loser, _ in ledger if loser in values for column in range(1, COUNTER)}
    accounted = history.column_ancestors(final | lost)
    begun = {(key, column, row[column]) for key, row in history.seeds.values() for column in range(1, COUNTER)}
    for written in begun | history.columns.keys():
        assert written in accounted, f"seed {seed}: column write {written} vanished without a trace in the ledger"


def judge_rows(seed, truth, schedule, history, ledger):
    known = (("u",) if schedule.drifting else ()) + (("s", "None") if schedule.seeding == "one" else ())
    losers = {loser for _, _, _, loser, _ in ledger}
    lost = history.ancestors(losers)
    for database, key, old, new in history.errors:
        assert str(old).startswith(known) or old in lost or old in history.ancestors([new]), f"seed {seed}: {database} key {key}: {new} overwrote {old}, which it had neither seen nor beaten"
    for key, ident in truth.items():
        assert (key, ident) not in history.replaced, f"seed {seed}: key {key} went back to a version that a later write had seen and replaced"
    final = history.ancestors(truth.values())
    for key, ident in history.local:
        assert ident in final or ident in lost, f"seed {seed}: write {ident} of key {key} vanished without a trace in the ledger"


def search(schedules, first):
    records = conflicts = 0
    for seed in range(first, first + schedules):
        n, c = run(seed)
        records, conflicts = records + n, conflicts + c
    return f"{schedules} schedules converged; {records} log records, {conflicts} concurrent writes arbitrated"


def main():
    global mutant
    if sys.argv[1:2] == ["--mutants"]:
        missed = 0
        for mutant, what in MUTANTS.items():
            try:
                search(int(sys.argv[2]) if len(sys.argv) > 2 else 5000, 0)
                print(f"MISSED {mutant}: {what}")
                missed += 1
            except (AssertionError, KeyError, TypeError) as error:
                print(f"caught {mutant}: {what} [{str(error)[:70]}]")
        return 1 if missed else 0
    try:
        print(search(int(sys.argv[1]) if len(sys.argv) > 1 else 20000, int(sys.argv[2]) if len(sys.argv) > 2 else 0))
    except AssertionError as error:
        print(f"FAILED {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
