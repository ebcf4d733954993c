"""The table as text: for a terminal, as Markdown, as JSON."""

from instnorm.migrate.differences.render import as_json, as_markdown, as_text

__all__ = ["as_json", "as_markdown", "as_text"]
