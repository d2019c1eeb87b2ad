"""All targets, in the order in which they run."""

from __future__ import annotations

from tests.hostile import certificates, command_line, folders, readers, runs

TARGETS = (readers.TARGET, *folders.TARGETS, certificates.TARGET, *command_line.TARGETS, runs.TARGET)
