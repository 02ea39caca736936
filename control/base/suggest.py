"""Groups of commands that say which one a mistyped word may have meant."""

from __future__ import annotations

import difflib

import click


class SuggestingGroup(click.Group):
    """As `click.Group`, also with a click that suggests nothing, or not where commands are imported when called."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first word names. Raises click.UsageError, with the nearest name, where none does."""
        word = args[0]
        if word.startswith("-") or self.get_command(ctx, word) is not None:
            return super().resolve_command(ctx, args)
        near = difflib.get_close_matches(word, self.list_commands(ctx), n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise click.UsageError(f"No such command '{word[:40]}'.{hint}", ctx)
