"""The commands for methods: those that there are, and one of one's own."""

from __future__ import annotations

from typing import Annotated

import typer

from ccstae.commands.arguments import json_mapping


def methods() -> None:
    """List the methods and their settings."""
    from ccstae.config import describe

    print(describe.methods())


def check_method(
    method: Annotated[
        str,
        typer.Argument(
            help="A method of this package, or the command of a program, as after `command:`."
        ),
    ],
    settings: Annotated[str, typer.Option(metavar="JSON", help="Settings of the method.")] = "{}",
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, help="Largest error of a strain component on clean patterns."),
    ] = None,
    time_limit_s: Annotated[
        float, typer.Option(min=0, help="The longest that a program may take for one scan.")
    ] = 600.0,
) -> None:
    """Hold a method against ideal patterns of known strain; exit code 1 where a check fails."""
    from dataclasses import replace

    from ccstae.config.methods import modules
    from ccstae.evaluation import method_contract

    given = json_mapping("--settings", settings)
    if method in modules():
        map_scan = method_contract.package_method(method, given)
    else:
        map_scan = method_contract.program(method, given, time_limit_s)
    allowed = method_contract.TOLERANCES.get(method, method_contract.DEFAULT_TOLERANCE)
    if tolerance is not None:
        allowed = replace(allowed, strain=tolerance)
    failed = 0
    for check in method_contract.check(map_scan, allowed):
        print(check, flush=True)
        failed += not check.passed
    total = len(method_contract.FORM + method_contract.STRAIN)
    print(f"{method}: {total - failed} of {total} checks passed")
    if failed:
        raise typer.Exit(1)


def new_method(name: str) -> None:
    """Begin a method: write its module and a test that passes, in a checkout of this project."""
    from ccstae.evaluation import new_method

    for line in new_method.write(name):
        print(line)
