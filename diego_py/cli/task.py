"""`diego task`: what runs once. `run` returns its result, or the whole chain that says why there is none."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

from diego_py.cli import tasks
from diego_py.cli.definition import Megabytes, environment, plain
from diego_py.cli.explain import history
from diego_py.cli.lines import GOOD, Line
from diego_py.cli.logs import print_line
from diego_py.cli.session import Session, with_session
from diego_py.clients.bbs import BbsClient, OnFailure
from diego_py.clients.bbs_answers import StoredFailure
from diego_py.errors import DiegoError, InvalidSpec, Outcome, TaskNotFound
from diego_py.http.server import decode
from diego_py.models.actions import Action, RunAction
from diego_py.models.identifiers import Domain, TaskGuid
from diego_py.models.task import Task, TaskDefinition, TaskRequest, TaskState, validate


@click.group()
def task() -> None:
    """Run something once; list, show, cancel and delete what runs or ran once."""


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for decorate in reversed(
        (
            click.argument("guid", required=False),
            click.argument("command", nargs=-1, type=click.UNPROCESSED),
            click.option("-f", "--file", type=click.File("rb"), help="The request as JSON; - is standard input."),
            click.option("--rootfs", metavar="NAME", help="A root file system that the cells have: busybox."),
            click.option("--memory", type=Megabytes(), default=0, help="Limit: 64, 64M, 2G."),
            click.option("--disk", type=Megabytes(), default=0, help="What it may write: 64, 64M, 2G."),
            click.option("--cpu-weight", type=click.IntRange(0, 10_000), default=0, metavar="N"),
            click.option("--env", multiple=True, metavar="NAME=VALUE", help="NAME alone takes our own value of it."),
            click.option("--user", default="vcap", show_default=True, help="Who the process is, inside."),
            click.option("--dir", "directory", default="", metavar="DIR", help="Where the process starts."),
            click.option("--result-file", default="", metavar="PATH", help="Its content is the result."),
            click.option("--callback", default="", metavar="URL", help="Where the completed task is sent by POST."),
            click.option("--tag", "tags", multiple=True, metavar="TAG", help="Only cells with this placement tag."),
            click.option("--domain", default="default", show_default=True),
        )
    ):
        command = decorate(command)
    return command


@task.command()
@_options
@click.option("-d", "--detach", is_flag=True, help="Return when it runs; without, when it has ended.")
@click.option(
    "--on-failure",
    type=click.Choice(["keep", "rollback"]),
    default="keep",
    show_default=True,
    help="If it could not begin: keep it, to be tried again, or remove it.",
)
@click.option("--idempotency-key", metavar="KEY", help="The same key sent again gets the first answer. [default: new]")
@with_session
def run(
    session: Session, *, detach: bool, on_failure: OnFailure, idempotency_key: str | None, **options: Any
) -> None:
    """Run a task, at most once; returns with its result when it has ended well.

    \b
    diego task run hello --rootfs busybox -- echo hello
    diego task run -f task.json
    """
    wanted = _request(options)
    key = idempotency_key or secrets.token_hex(16)

    async def work(bbs: BbsClient) -> Task:
        return await bbs.run_task(wanted, until_completed=not detach, on_failure=on_failure, idempotency_key=key)

    try:
        found = session.run(f"run task {wanted.task_guid}", work)
    except DiegoError as error:
        if error.outcome is Outcome.UNKNOWN:
            click.echo(f"  sent with --idempotency-key {key}: the same again gets the first answer", err=True)
        raise
    what = f"runs on {found.cell_id}" if found.state is TaskState.RUNNING else f"completed on {found.cell_id}"
    result = [Line(found.result)] if found.result else []
    session.say(found, [Line(f"✓ {found.task_guid} {what}", GOOD), *result])
    session.say_timing()


@task.command("list")
@click.option("--domain", metavar="DOMAIN")
@click.option("--cell", "cell_id", metavar="CELL")
@click.option("--state", type=click.Choice([str(state) for state in TaskState], case_sensitive=False))
@with_session
def list_(session: Session, domain: str | None, cell_id: str | None, state: str | None) -> None:
    """List tasks. A completed one is deleted two minutes later, or when its result was taken."""
    found = session.run("read tasks", lambda bbs: bbs.tasks(domain=domain, cell_id=cell_id, state=state))
    rows = [tasks.row(one, datetime.now(UTC)) for one in found]
    session.say_table({"items": found}, tasks.TITLES, rows, "there is no task; diego task run -h")


@task.command()
@click.argument("guid")
@click.option("--until-completed", is_flag=True, help="Return when it has completed.")
@click.option("--limit", type=click.IntRange(1, 100), default=5, show_default=True, help="So many stored failures.")
@with_session
def show(session: Session, guid: str, until_completed: bool, limit: int) -> None:
    """Say where a task stands, with its result, and draw its stored failures, the newest last."""

    async def read(bbs: BbsClient) -> tuple[Task | None, list[StoredFailure]]:
        try:
            found = await bbs.task(guid, until_completed=until_completed)
        except TaskNotFound:
            stored = await bbs.failures(task_guid=guid, limit=limit)
            if not stored:
                raise
            return None, stored
        return found, await bbs.failures(task_guid=guid, limit=limit)

    found, stored = session.run(f"read task {guid}", read)
    told = [Line(f"task {guid} is gone")] if found is None else tasks.standing(found, datetime.now(UTC))
    session.say({"task": found, "failures": stored}, [*told, *history(stored)])


@task.command()
@click.argument("guid")
@with_session
def cancel(session: Session, guid: str) -> None:
    """Complete a task as cancelled; returns when its process is gone."""
    cancelled = session.run(f"cancel task {guid}", lambda bbs: bbs.cancel_task(guid))
    session.say(cancelled, [Line(f"✓ {guid} is cancelled", GOOD)])
    session.say_timing()


@task.command()
@click.argument("guid")
@with_session
def delete(session: Session, guid: str) -> None:
    """Forget a completed task."""
    deleted = session.run(f"delete task {guid}", lambda bbs: bbs.delete_task(guid))
    session.say(deleted, [Line(f"✓ {guid} is gone", GOOD)])


@task.command()
@click.argument("guid")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is to come.")
@click.option("--tail", type=click.IntRange(0), default=200, show_default=True, metavar="N", help="The last N lines.")
@click.option("-t", "--timestamps", is_flag=True, help="Put the time before each line.")
@with_session
def logs(session: Session, guid: str, follow: bool, tail: int, timestamps: bool) -> None:
    """Read what a task wrote; what it wrote to standard error goes to standard error."""

    async def read(bbs: BbsClient) -> None:
        async for line in bbs.task_logs(guid, tail=tail, follow=follow):
            print_line(line, session.is_json, timestamps)

    session.run(f"logs of task {guid}", read, quiet=True)


def _request(given: dict[str, Any]) -> TaskRequest:
    """The request that the flags or the file describe. Raises UsageError, or InvalidSpec with every bad field."""
    if given["file"] is not None:
        if given["command"] or given["rootfs"]:
            raise click.UsageError("-f FILE holds the whole request: it goes with no command and no --rootfs")
        made = decode(TaskRequest, given["file"].read())
    else:
        made = _from_flags(given)
    if errors := validate(made):
        raise InvalidSpec(f"{len(errors)} invalid field(s)", errors=[plain(error) for error in errors])
    return made


def _from_flags(given: dict[str, Any]) -> TaskRequest:
    guid, command, rootfs = given["guid"], given["command"], given["rootfs"]
    if not guid or not command or not rootfs:
        raise click.UsageError("a task needs GUID, --rootfs NAME and -- COMMAND…, or all of it in -f FILE")
    run = RunAction(path=command[0], args=tuple(command[1:]), user=given["user"], dir=given["directory"])
    definition = TaskDefinition(
        rootfs=rootfs if ":" in rootfs else f"preloaded:{rootfs}",
        environment_variables=environment(given["env"]),
        action=Action(run=run),
        memory_mb=given["memory"],
        disk_mb=given["disk"],
        cpu_weight=given["cpu_weight"],
        result_file=given["result_file"],
        completion_callback_url=given["callback"],
        placement_tags=tuple(given["tags"]),
    )
    return TaskRequest(task_guid=TaskGuid(guid), domain=Domain(given["domain"]), definition=definition)
