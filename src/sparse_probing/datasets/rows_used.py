"""What became of the labelled text: rows used, rows lost and why, features left out and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sparse_probing.datasets.align import Alignment
from sparse_probing.datasets.audit import Audit

TEXTS, STRETCHES = "texts", "labelled stretches"
MUCH = 0.05
"""A larger share of texts, stretches or features lost is a warning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Texts or labelled stretches that give no row, for one reason."""

    count: int
    of: int
    what: str
    """`texts`, `labelled stretches`, `tokens`."""
    why: str
    asked: bool = False
    """An option or a sampling rule asks for it, or nothing is lost by it (copies): never a warning."""

    def sentence(self) -> str:
        """As in `3 of 40 texts: why.`."""
        return f"{self.count:,} of {self.of:,} {self.what}: {self.why}."


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsUsed:
    """The account of one category."""

    category: str
    rows: int
    texts: int
    """Texts that give a row."""
    texts_read: int
    probed: int
    """Features and numbers that are probed."""
    losses: tuple[Loss, ...] = ()
    left_out: tuple[str, ...] = ()
    """A sentence for each feature or number that is not probed."""
    notes: tuple[str, ...] = ()
    """What was said when the text was read: rows without text, labels merged."""

    def headline(self) -> str:
        """As in `reviews: 240 rows from 230 of 241 texts.`."""
        return f"{self.category}: {self.rows:,} rows from {self.texts:,} of {self.texts_read:,} texts."

    def lines(self) -> list[str]:
        """What was dropped and why, what is not probed and why, and what was said when the text was read."""
        dropped = [f"dropped: {loss.sentence()}" for loss in self.losses]
        return [*dropped, *self.left_out, *self.notes]

    def warnings(self) -> list[str]:
        """A sentence for each kind of thing of which more than `MUCH` is lost."""
        lost: dict[str, list[Loss]] = {}
        for loss in self.losses:
            if not loss.asked:
                lost.setdefault(loss.what, []).append(loss)
        said = []
        for what, losses in lost.items():
            count, of = sum(loss.count for loss in losses), max(loss.of for loss in losses)
            if count > MUCH * of:
                whys = "; ".join(f"{loss.count:,}: {loss.why}" for loss in losses)
                said.append(
                    f"{self.category}: {count:,} of {of:,} {what} give no row ({100 * count / of:.0f} %). {whys}."
                )
        everything = len(self.left_out) + self.probed
        if len(self.left_out) > MUCH * everything:
            said.append(f"{self.category}: {len(self.left_out):,} of {everything:,} features or numbers are left out.")
        return said


def losses_of(*counted: tuple[int, tuple[int, str], str], asked: bool = False) -> list[Loss]:
    """The losses among `(count, (of, what), why)`: those that are not zero."""
    return [Loss(count=n, of=of, what=what, why=why, asked=asked) for n, (of, what), why in counted if n]


def copies_lost(audit: Audit) -> list[Loss]:
    """What the audit removed."""
    copies = (audit.duplicates_removed, (audit.documents_read, TEXTS), "they are copies of another text")
    conflicts = (audit.conflicts_removed, (audit.documents_read, TEXTS), "copies of one text with contradicting labels")
    return losses_of(copies, asked=True) + losses_of(conflicts)


def cut_losses(alignment: Alignment, texts: int, too_short: int, skip_first: int) -> list[Loss]:
    """What alignment and windows cost: stretches without a row, and `too_short` of the texts."""
    a, stretches, skip = alignment, (alignment.stretches, STRETCHES), f"the first {skip_first} tokens"
    too_few = f"they end within {skip}, which are skipped (--skip-first), and give no row"
    return losses_of(
        (a.without_token, stretches, "no token covers them (the tokenizer drops their characters)"),
        (a.cut_by_window, stretches, "no window holds them entirely"),
        (a.in_skipped_tokens, stretches, f"they stand among {skip} of a window (--skip-first)"),
        (too_short, (texts, TEXTS), too_few),
    )


def rows_used_of(records: Iterable[Mapping[str, Any]]) -> list[RowsUsed]:
    """Accounts written as JSON (`asdict`), read back."""
    return [
        RowsUsed(
            category=record["category"],
            rows=record["rows"],
            texts=record["texts"],
            texts_read=record["texts_read"],
            probed=record["probed"],
            losses=tuple(Loss(**loss) for loss in record["losses"]),
            left_out=tuple(record["left_out"]),
            notes=tuple(record["notes"]),
        )
        for record in records
    ]
