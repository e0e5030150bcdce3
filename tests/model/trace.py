#!/usr/bin/env python3
"""The records of the model's own schedules, and what the model's resolver makes of each, for a resolver under test.

Run it:  python3 trace.py FIRST COUNT [--mutant NAME] [--full]

One line of JSON a schedule: seed, members, rules, and its steps. A step is [origin, position, kind, payload, expected]:
origin is a member's place in the list, -1 for a person, or -2 for the end of the seeds; expected is the CRC-32 of the text that `told` makes of the
sends and of what went into the ledger, at every eighth record and at the last one also of everything under way and
parked; with --full that text itself.
A version is named after the record that brought it, `r` and its offset; a merged one `m` and the offset of the merge.
"""
import json
import re
import sys
import zlib

import resolver_model as model


def named(ident):
    merged = re.search(r"\+r(\d+)\)$", ident)
    return f"m{merged[1]}" if merged else ident


def shown(image):
    if image is None:
        return "-"
    if image == model.KEEP:
        return "KEEP"
    if image[0] == "seen":
        return f"?{image[1]}"
    return "/".join(map(str, image))


def over(images):
    return ",".join(sorted({shown(image) for image in images}))


def told(resolver, sends, ledger, place, state):
    lines = []
    for version, to in sends:
        for name, images in to.items():
            lines.append(f"send {version['key']} {named(version['id'])} {place[name]} {over(images)}")
    for key, entry in resolver.entries.items() if state else ():
        lines.append(f"held {key} {named(entry['version']['id'])}")
        for word in ("pending", "unsure"):
            for name, (sent, images) in entry[word].items():
                lines.append(f"{word} {key} {place[name]} {sent} {over(images)}")
    for word, keys in ("parked", resolver.parked), ("waiting", resolver.waiting):
        for (name, key), sent in keys.items() if state else ():
            lines.append(f"{word} {place[name]} {key} {sent}")
    for _, key, winner, loser, kind in ledger:
        column = "-"
        if isinstance(winner, tuple):
            (winner, column, _), (loser, _, _) = winner, loser
        lines.append(f"ledger {key} {named(winner)} {named(loser) if loser else '-'} {kind} {column}")
    return "\n".join(sorted(lines))


def payload_of(kind, payload, names):
    if kind in ("marker", "seeded"):
        return payload
    fields = ("key", "value", "before", "ts")
    return [payload[field] for field in fields]


def trace(seed, full):
    caught = []
    model.judge = lambda _seed, schedule, _databases, _appliers, _history, log: caught.append((schedule, log))
    model.judge_parked = lambda *_: None
    try:
        model.run(seed)
    except (AssertionError, KeyError, TypeError):
        if model.mutant is None:
            raise
        return None
    schedule, log = caught[0]
    names, rules = schedule.names, schedule.rules
    place = {name: index for index, name in enumerate(names)}
    resolver, steps = model.Resolver(names, rules), []
    for offset, (origin, position, kind, payload) in enumerate(log):
        record = payload if kind in ("marker", "seeded") else dict(payload, id=f"r{offset}")
        before = len(resolver.ledger)
        sends = resolver.on_record(offset, (origin, position, kind, record))
        state = offset % 8 == 0 or offset == len(log) - 1
        text = told(resolver, sends, resolver.ledger[before:], place, state)
        expected = text if full else zlib.crc32(text.encode())
        steps.append([place.get(origin, -2 if kind == "seeded" else -1), position, kind, payload_of(kind, payload, names), expected])
    rules = dict(strategy=rules.strategy, on_delete=rules.on_delete, merge=rules.merge, merged_seeds=rules.merged_seeds, groups=rules.groups)
    return dict(seed=seed, members=names, rules=rules, steps=steps)


def main():
    first, count = int(sys.argv[1]), int(sys.argv[2])
    if "--mutant" in sys.argv:
        model.mutant = sys.argv[sys.argv.index("--mutant") + 1]
    for seed in range(first, first + count):
        if traced := trace(seed, "--full" in sys.argv):
            print(json.dumps(traced, separators=(",", ":")))


if __name__ == "__main__":
    main()
