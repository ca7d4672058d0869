"""What was seen of what watched studies serve, so that a watcher knows what the one before it knew; what humans said.

Looks are kept for ``KEPT_S``; the fingerprint of one stands only where it differs from that before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa
from pydantic import TypeAdapter

from tuner.retune.rollout import Wish
from tuner.retune.seen import Fingerprint, Look
from tuner.study.database import Database, now_s
from tuner.study.schema import LOOKS, SAID

KEPT_S = 14 * 86_400.0
_LOOK: TypeAdapter[Look] = TypeAdapter(Look)


@dataclass(frozen=True, slots=True)
class Said:
    """Layouts, as they print: ``approved`` by a human, ``vetoed``, and ``forced`` whatever holds them back."""

    approved: frozenset[str] = frozenset()
    vetoed: frozenset[str] = frozenset()
    forced: frozenset[str] = frozenset()


class Looks:
    """Both, in the store's database; the promises of ``tuner.study.store.Store`` hold here too."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._known: dict[tuple[str, str], Fingerprint] = {}  # that this process kept last

    def keep(self, watched: str, looks: Mapping[str, Look]) -> None:
        """Keep looks, by deployment. Old ones are forgotten."""
        if not looks:
            return
        rows = [
            {
                "study": watched,
                "deployment": name,
                "at": look.at_s,
                "look": _dumped(look, self._known.get((watched, name))),
            }
            for name, look in looks.items()
        ]
        oldest = max(look.at_s for look in looks.values()) - KEPT_S
        with self._db.writing() as db:
            db.execute(sa.delete(LOOKS).where(LOOKS.c.study == watched, LOOKS.c.at < oldest))
            same = [sa.and_(*(LOOKS.c[key] == row[key] for key in ("study", "deployment", "at"))) for row in rows]
            db.execute(sa.delete(LOOKS).where(sa.or_(*same)))
            db.execute(sa.insert(LOOKS), rows)
        self._known |= {(watched, name): one.fingerprint for name, one in looks.items() if one.fingerprint is not None}

    def of(self, watched: str, deployment: str, after_s: float = 0.0) -> tuple[Look, ...]:
        """What was seen of a deployment, the oldest first, with each fingerprint filled in."""
        query = sa.select(LOOKS.c.look).where(LOOKS.c.study == watched, LOOKS.c.deployment == deployment)
        with self._db.reading() as db:
            texts = list(db.scalars(query.where(LOOKS.c.at > after_s).order_by(LOOKS.c.at)))
            looks = [_LOOK.validate_json(text) for text in texts]
            before = None
            if looks and looks[0].fingerprint is None:
                told = query.where(LOOKS.c.at <= after_s, LOOKS.c.look.like('%"fingerprint"%'))
                before = db.scalar(told.order_by(LOOKS.c.at.desc()).limit(1))
        return _filled(looks, None if before is None else _LOOK.validate_json(before).fingerprint)

    def say(self, watched: str, layout: str, wish: Wish) -> None:
        """Keep what a human said of a layout, in place of what was said before."""
        with self._db.writing() as db:
            db.execute(sa.delete(SAID).where(SAID.c.study == watched, SAID.c.layout == layout))
            db.execute(sa.insert(SAID).values(study=watched, layout=layout, wish=wish.value, at=now_s(db)))

    def heed(self, watched: str, layout: str) -> None:
        """What was agreed to, or forced, has begun: the next time needs a word of its own."""
        this = (SAID.c.study == watched) & (SAID.c.layout == layout) & (SAID.c.wish != Wish.VETO.value)
        with self._db.writing() as db:
            db.execute(sa.delete(SAID).where(this))

    def said(self, watched: str) -> Said:
        """All that stands."""
        with self._db.reading() as db:
            rows = db.execute(sa.select(SAID.c.layout, SAID.c.wish).where(SAID.c.study == watched)).all()

        def of(wish: Wish) -> frozenset[str]:
            return frozenset(layout for layout, said in rows if said == wish.value)

        return Said(of(Wish.APPROVE), of(Wish.VETO), of(Wish.FORCE))


def _dumped(look: Look, known: Fingerprint | None) -> str:
    same = look.fingerprint is not None and look.fingerprint == known
    kept = replace(look, fingerprint=None) if same else look
    return _LOOK.dump_json(kept, exclude_none=True, exclude_defaults=True).decode()


def _filled(looks: Sequence[Look], known: Fingerprint | None) -> tuple[Look, ...]:
    found = []
    for look in looks:
        known = look.fingerprint or known
        found.append(replace(look, fingerprint=known))
    return tuple(found)
