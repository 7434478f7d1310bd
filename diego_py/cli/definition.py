"""From the flags of `desire` and `plan` to a definition, or from a file. Pure but for reading that file."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from diego_py.errors import InvalidSpec
from diego_py.http.server import decode
from diego_py.image_reference import IMAGE_SCHEMES
from diego_py.models import desired_lrp
from diego_py.models.actions import Action, EnvironmentVariable, RunAction
from diego_py.models.checks import Check, CheckDefinition, CommandCheck, HTTPCheck, TCPCheck
from diego_py.models.desired_lrp import DesiredLRPDefinition
from diego_py.models.identifiers import Domain, ProcessGuid
from diego_py.secret import Secret
from diego_py.wire import to_builtins

USER_DEFAULT = "vcap"
"""Of what is not an image, as in Diego's stacks."""
UNITS = {"": 1, "M": 1, "MB": 1, "G": 1024, "GB": 1024}


class Megabytes(click.ParamType[int]):
    """`64`, `64M` or `2G`."""

    name = "MB"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).upper()
        digits = text.rstrip("MGB")
        if not digits.isdigit() or text[len(digits) :] not in UNITS:
            self.fail(f"{value!r} is no number of megabytes; write 64, 64M or 2G", param, ctx)
        return int(digits) * UNITS[text[len(digits) :]]


def definition_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The arguments and flags that describe an LRP; `definition` makes one of them."""
    for decorate in reversed(
        (
            click.argument("guid", required=False),
            click.argument("command", nargs=-1, type=click.UNPROCESSED),
            click.option("-f", "--file", type=click.File("rb"), help="The definition as JSON; - is standard input."),
            click.option("--rootfs", metavar="NAME", help="What the cells have: busybox; or an image: docker://HOST/NAME."),
            click.option("--instances", type=click.IntRange(0), default=1, show_default=True),
            click.option("--memory", type=Megabytes(), default=0, help="Limit of one instance: 64, 64M, 2G."),
            click.option("--disk", type=Megabytes(), default=0, help="What one instance may write: 64, 64M, 2G."),
            click.option("--cpu-weight", type=click.IntRange(0, 10_000), default=0, metavar="N"),
            click.option("--port", "ports", type=click.IntRange(1, 65_535), multiple=True, metavar="PORT"),
            click.option("--env", multiple=True, metavar="NAME=VALUE", help="NAME alone takes our own value of it."),
            click.option("--user", help="Who the process is, inside. Default: what the image says, or else vcap."),
            click.option("--dir", "directory", default="", metavar="DIR", help="Where the process starts."),
            click.option("--http-check", metavar="PORT[/PATH]", help="Healthy when GET answers 200."),
            click.option("--tcp-check", type=click.IntRange(1, 65_535), metavar="PORT"),
            click.option("--command-check", metavar="COMMAND", help="Healthy when it exits with 0, inside."),
            click.option("--start-timeout", type=click.FloatRange(0), default=60.0, show_default=True, metavar="S"),
            click.option("--tag", "tags", multiple=True, metavar="TAG", help="Only cells with this placement tag."),
            click.option("--domain", default="default", show_default=True),
        )
    ):
        command = decorate(command)
    return command


def definition(options: dict[str, Any]) -> DesiredLRPDefinition:
    """The definition that the flags or the file describe; takes its own flags out of `options`.

    Raises UsageError for a wrong command line, and InvalidSpec with every bad field.
    """
    given = {name: options.pop(name) for name in (*_FLAGS, "guid", "command", "file")}
    if given["file"] is not None:
        if given["command"] or given["rootfs"]:
            raise click.UsageError("-f FILE holds the whole definition: it goes with no command and no --rootfs")
        made = decode(DesiredLRPDefinition, given["file"].read())
    else:
        made = _from_flags(given)
    if errors := desired_lrp.validate(made):
        raise InvalidSpec(f"{len(errors)} invalid field(s)", errors=[plain(error) for error in errors])
    return made


_FLAGS = (
    *("rootfs", "instances", "memory", "disk", "cpu_weight", "ports", "env", "user", "directory"),
    *("http_check", "tcp_check", "command_check", "start_timeout", "tags", "domain"),
)


def _from_flags(given: Mapping[str, Any]) -> DesiredLRPDefinition:
    guid, command, rootfs = given["guid"], given["command"], given["rootfs"]
    if not guid or not rootfs or not (command or _is_image(rootfs)):
        raise click.UsageError("an LRP needs GUID, --rootfs NAME and -- COMMAND…, or all of it in -f FILE")
    user = given["user"] or ("" if _is_image(rootfs) else USER_DEFAULT)
    checks = _checks(given, user)
    return DesiredLRPDefinition(
        process_guid=ProcessGuid(guid),
        domain=Domain(given["domain"]),
        rootfs=rootfs if ":" in rootfs else f"preloaded:{rootfs}",
        instances=given["instances"],
        environment_variables=environment(given["env"]),
        action=Action(
            run=RunAction(path="".join(command[:1]), args=tuple(command[1:]), user=user, dir=given["directory"])
        ),
        start_timeout_ms=round(given["start_timeout"] * 1000),
        memory_mb=given["memory"],
        disk_mb=given["disk"],
        cpu_weight=given["cpu_weight"],
        ports=tuple(given["ports"]),
        placement_tags=tuple(given["tags"]),
        check_definition=CheckDefinition(checks=checks) if checks else None,
    )


def environment(pairs: Sequence[str]) -> tuple[EnvironmentVariable, ...]:
    variables = []
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals and name not in os.environ:
            raise click.UsageError(f"--env {name}: we have no variable of this name; write NAME=VALUE")
        variables.append(EnvironmentVariable(name=name, value=Secret(value if equals else os.environ[name])))
    return tuple(variables)


def _is_image(rootfs: str) -> bool:
    """It says itself what to run and as whom."""
    return rootfs.partition(":")[0] in IMAGE_SCHEMES


def _checks(given: Mapping[str, Any], user: str) -> tuple[Check, ...]:
    checks = []
    if given["http_check"]:
        port, slash, path = str(given["http_check"]).partition("/")
        if not port.isdigit():
            raise click.UsageError("--http-check takes PORT or PORT/PATH")
        checks.append(Check(http=HTTPCheck(port=int(port), path=slash + path or "/")))
    if given["tcp_check"]:
        checks.append(Check(tcp=TCPCheck(port=given["tcp_check"])))
    if given["command_check"]:
        words = shlex.split(given["command_check"])
        checks.append(Check(command=CommandCheck(path=words[0], args=tuple(words[1:]), user=user)))
    return tuple(checks)


def plain(error: Any) -> dict[str, str]:
    plain: dict[str, str] = to_builtins(error)
    return plain
