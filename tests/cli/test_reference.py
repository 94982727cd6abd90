from __future__ import annotations

from scripts import write_cli_reference


def test_command_line_reference_equals_help_of_all_commands() -> None:
    page = write_cli_reference.render_reference()
    assert page == write_cli_reference.REFERENCE.read_text(), "run scripts/write_cli_reference.py"
