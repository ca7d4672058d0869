"""What becomes of studies that ended long ago: archived, a file each, or deleted; by one process at a time."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.errors import BadInput, Cancelled, ParlayError
from tuner.study.audit import RETENTION
from tuner.study.store import Store
from tuner.trial.cancel import CancelHandle

EVERY_S = 3600.0
_LOCK = 1  # of ``Store.exclusive``
_AT_ONCE = 100
_INSIDE = "study.json"


@dataclass(frozen=True, slots=True)
class Rule:
    """Studies that ended more than ``keep_days`` ago go, into files beneath ``archive_to``, or (None) for good; those
    of ``spared``, whose winners are deployed, stay."""

    keep_days: float
    archive_to: Path | None
    spared: frozenset[str] = frozenset()

    @classmethod
    def of(cls, keep_days: float | None, archive_to: Path | None, spared: Iterable[str] = ()) -> Rule | None:
        """As options say it; None where everything stays. Raises BadInput for days that are none."""
        if keep_days is None:
            if archive_to is not None:
                raise BadInput("--archive-to", str(archive_to), "with --keep-days: after how long studies go there")
            return None
        if not 0 <= keep_days < 36_500:
            raise BadInput("--keep-days", keep_days, "a number of days from 0 to a hundred years")
        return cls(keep_days, archive_to, frozenset(spared))


def tidy(store: Store, rule: Rule, actor: str = RETENTION) -> list[tuple[str, str]]:
    """Do what the rule says; (study, what became of it). Another process that does the same waits for its turn.

    ``actor`` is who asked, for the audit. What is archived is on the disk before it is deleted.
    """
    done: list[tuple[str, str]] = []
    skipped = set(rule.spared)
    with store.exclusive(_LOCK):
        while names := [n for n in store.archive.older(rule.keep_days, _AT_ONCE + len(skipped)) if n not in skipped]:
            for name in names:
                try:
                    what = "deleted"
                    if rule.archive_to is not None:
                        what = f"archived to {pack(store.archive.document(name), rule.archive_to)}"
                    store.delete_study(name, pinned_too=False)
                except BadInput:  # somebody resumed it meanwhile, pinned or deleted it
                    skipped.add(name)
                    continue
                action = "delete" if rule.archive_to is None else "archive"
                store.audit.note(actor, action, name, f"{what}: it ended more than {rule.keep_days:g} days ago")
                done.append((name, what))
    return done


@contextmanager
def tidying(store: Store, rule: Rule | None, stop: CancelHandle, tell: Callable[[str], None]) -> Iterator[None]:
    """Do so every hour to the end of the block, or until ``stop``; what fails is told, and tried again."""

    def run(rule: Rule) -> None:
        while stop.cause is None and not over.is_set():
            try:
                for name, what in tidy(store, rule):
                    tell(f"parlay: study {name} is {what}")
            except (ParlayError, OSError) as error:
                tell(f"parlay: old studies stay for now: {error}")
            try:
                stop.wait(EVERY_S)
            except Cancelled:
                return

    over = threading.Event()
    if rule is not None:
        threading.Thread(target=run, args=(rule,), name="retention", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def pack(document: dict[str, Any], folder: Path) -> Path:
    """Write a study's document as ``NAME-TIME.tar.gz``, whole and durably; where it is. The same again replaces it."""
    folder.mkdir(parents=True, exist_ok=True)
    created_at = document["tables"]["parlay_studies"][0]["created_at"]
    path = folder / f"{_file_name(document['study'])}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(created_at))}.tar.gz"
    text = json.dumps(document, ensure_ascii=False).encode("utf-8", errors="surrogatepass")
    member = tarfile.TarInfo(_INSIDE)
    member.size, member.mtime, member.mode = len(text), int(created_at), 0o600
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".parlay-", delete=False) as draft:
        try:
            with tarfile.open(fileobj=draft, mode="w:gz") as archive:
                archive.addfile(member, io.BytesIO(text))
            draft.flush()
            os.fsync(draft.fileno())
            os.replace(draft.name, path)
        except BaseException:
            os.unlink(draft.name)
            raise
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return path


def unpack(path: Path) -> dict[str, Any]:
    """The document in such a file; raises BadInput for what is none."""
    try:
        with tarfile.open(path, "r:gz") as archive:
            inside = archive.extractfile(_INSIDE)
            document = json.load(inside) if inside is not None else None
    except (OSError, EOFError, KeyError, ValueError, RecursionError, tarfile.TarError, zlib.error) as error:
        raise BadInput("FILE", str(path), f"an archive of a study ({error})") from None
    if not isinstance(document, dict):
        raise BadInput("FILE", str(path), "an archive of a study")
    return document


def _file_name(study: str) -> str:
    """A name without what a file's may not have; two studies never get the same."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", study)[:150]
    return plain if plain == study else f"{plain}-{hashlib.sha256(study.encode()).hexdigest()[:8]}"
