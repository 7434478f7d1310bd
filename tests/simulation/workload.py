"""What clients ask for, and what they were told: a history to be checked against what is true in the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from attrs import define, evolve, field

from diego_py import wire
from diego_py.call import Call, Hop
from diego_py.errors import DiegoError, Fault
from diego_py.http import headers
from diego_py.http.client import Peer
from diego_py.models.actions import Action, RunAction
from diego_py.models.checks import Check, CheckDefinition, CommandCheck
from diego_py.models.desired_lrp import DesiredLRPDefinition, DesiredLRPUpdate
from diego_py.models.identifiers import Domain, ProcessGuid, TaskGuid
from diego_py.models.task import TaskDefinition, TaskRequest
from tests.simulation.clock import SimulatedClock
from tests.simulation.network import CLIENT, SimulatedHopClient
from tests.simulation.processes import World

DOMAIN = Domain("apps")
CALLBACK_URL = "http://client/completed"
GUIDS = ("app-a", "app-b", "app-c")
BUDGETS_MS = (1_500.0, 5_000.0, 20_000.0)
ACTION = Action(run=RunAction(path="/bin/sh", args=("-c", "sleep 1000"), user="root"))
ASKED_AGAIN_CHANCE = 0.3


READY = Check(command=CommandCheck(path="/bin/sh", args=("-c", "exit 0"), interval_ms=500))
"""Whether it passes is drawn by `Chaos`."""
CHANGES = ("desire", "scale", "replace", "annotate")
"""What sets an LRP."""


def definition(guid: str, instances: int, memory_mb: int, checked: bool = False) -> DesiredLRPDefinition:
    return DesiredLRPDefinition(
        process_guid=ProcessGuid(guid),
        domain=DOMAIN,
        rootfs="preloaded:base",
        instances=instances,
        action=ACTION,
        memory_mb=memory_mb,
        disk_mb=64,
        start_timeout_ms=3_000,
        check_definition=CheckDefinition(readiness_checks=(READY,)) if checked else None,
    )


@define(eq=False)
class Request:
    """One wish of a client, and how it went."""

    op: str
    guid: str
    method: str
    path: str
    body: bytes
    key: str | None = None
    instances: int = 0
    memory_mb: int = 0
    index: int = 0
    annotation: str = ""
    invoked_s: float = 0.0
    ended_s: float = float("inf")
    status: int = 0
    """Of the last answer; 0 as long as there is none."""
    certain: bool = False
    """Whether the answer says what is true; else the request may still be worked on."""
    answers: list[tuple[int, bytes]] = field(factory=list)
    """Of every answer under the same key that came from the request itself."""

    @property
    def done(self) -> bool:
        return 200 <= self.status < 300


def draw(world: World, number: int) -> Request:
    """Some request about some LRP."""
    random = world.random
    if random.random() < world.wishes.drain_share:
        return draw_drain(world)
    if random.random() < world.wishes.task_share:
        return draw_task(world, number)
    guid = random.choice(GUIDS[: world.wishes.guids])
    op = random.choices(*world.wishes.weights)[0]
    index = random.randrange(2)
    lrp, instance = f"/v1/desired_lrps/{guid}", f"/v1/actual_lrps/{guid}/{index}"
    key = f"key-{number}" if random.random() < 0.8 else None
    instances = random.randint(0, 3)
    match op:
        case "desire":
            policy, memory_mb = random.choice(("keep", "rollback")), random.choice((64, 128, 300))
            body = wire.encode_revealed(definition(guid, max(1, instances), memory_mb, world.wishes.checked))
            path = f"/v1/desired_lrps?on_failure={policy}"
            return Request(op, guid, "POST", path, body, key, max(1, instances), memory_mb)
        case "replace":
            strategy, memory_mb = random.choice(("rolling", "rolling", "recreate")), random.choice((64, 100, 128))
            body = wire.encode_revealed(definition(guid, instances, memory_mb, world.wishes.checked))
            path = f"{lrp}?strategy={strategy}&max_in_flight={random.randint(1, 2)}"
            return Request(op, guid, "PUT", path, body, key, instances, memory_mb)
        case "annotate":
            annotation = f"note-{number}"
            body = wire.encode_revealed(DesiredLRPUpdate(annotation=annotation))
            return Request(op, guid, "PATCH", lrp, body, key, annotation=annotation)
        case "refresh":
            ttl_s = random.choice((0, 1, 3, 8))
            return Request(op, DOMAIN, "PUT", f"/v1/domains/{DOMAIN}", b'{"ttl_s": %d}' % ttl_s)
        case "scale":
            body = wire.encode_revealed(DesiredLRPUpdate(instances=instances))
            return Request(op, guid, "PATCH", lrp, body, key, instances)
        case "restart":
            return Request(op, guid, "POST", f"{instance}/restart", b"{}", index=index)
        case "stop":
            return Request(op, guid, "DELETE", instance, b"{}", index=index)
        case _:
            return Request(op, guid, "DELETE", lrp, b"{}")


def draw_drain(world: World) -> Request:
    """A cell is to be emptied, or to take work again."""
    cell = f"cell-{world.random.randrange(3)}"
    if world.random.random() < 0.3:
        return Request("readmit", cell, "POST", f"/v1/cells/{cell}/readmit", b"{}")
    return Request("drain", cell, "POST", f"/v1/cells/{cell}/evacuate?timeout_s=2", b"{}")


def draw_task(world: World, number: int) -> Request:
    """A task, or the end of one."""
    random = world.random
    guid = f"task-{random.choice('ab')}"
    if random.random() < 0.25:
        return Request("cancel_task", guid, "POST", f"/v1/tasks/{guid}/cancel", b"{}")
    policy = random.choice(("keep", "rollback"))
    script = random.choice(("exit 0", "exit 1", "sleep 1000"))
    action = Action(run=RunAction(path="/bin/sh", args=("-c", script), user="root"))
    definition = TaskDefinition(
        rootfs="preloaded:base",
        action=action,
        memory_mb=random.choice((64, 300)),
        disk_mb=64,
        completion_callback_url=CALLBACK_URL if world.wishes.callbacks else "",
    )
    body = wire.encode_revealed(TaskRequest(task_guid=TaskGuid(guid), domain=DOMAIN, definition=definition))
    key = f"key-{number}" if random.random() < 0.8 else None
    return Request("task", guid, "POST", f"/v1/tasks?on_failure={policy}", body, key)


def _is_over(request: Request, container: tuple[int, int, str], answer: dict[str, Any]) -> bool:
    """Whether a container was to have ended when the request was answered."""
    index, revision, handle = container
    match request.op:
        case "delete":
            return True
        case "scale":
            return index >= request.instances
        case "replace":
            return index >= request.instances or revision < answer["desired_lrp"]["revision"]
        case "stop":
            return bool(handle == answer["instance_guid"])
        case "restart":
            return index == request.index and bool(handle != answer["instance_guid"])
        case _:
            return False


def _is_kept(request: Request, definition: DesiredLRPDefinition) -> bool:
    """Whether what was asked for is what is stored."""
    if request.op == "annotate":
        return definition.annotation == request.annotation
    sized = request.op == "scale" or definition.memory_mb == request.memory_mb
    return definition.instances == request.instances and sized


@define
class Clients:
    """Send requests to any BBS, and again with the same key when they cannot know what became of them."""

    world: World
    bbs_urls: tuple[str, ...]
    history: list[Request] = field(factory=list, init=False)

    async def send(self, request: Request) -> None:
        """Until an answer says what is true, or three times."""
        world = self.world
        self.history.append(request)
        request.invoked_s = world.loop.time()
        tries = 3 if request.key is not None else 1
        for attempt in range(tries):
            await self.ask(request)
            if request.certain:
                request.certain = request.done or attempt == 0  # an earlier attempt may yet arrive, or be worked on
                break
            await SimulatedClock(world.loop).sleep(world.random.random() * 2)
        request.ended_s = world.loop.time()
        self.world.witness.tell(f"client {request.op} {request.guid} {request.status} certain={request.certain}")
        self._check(request)
        if request.done and request.key is not None and world.random.random() < ASKED_AGAIN_CHANCE:
            await self._ask_again(request)

    async def _ask_again(self, request: Request) -> None:
        """The same key again has no second effect, and the same answer."""
        twin = evolve(request, answers=[], status=0)
        await self.ask(twin)
        if twin.done and twin.answers != request.answers[-1:]:
            self.world.witness.fail(f"I14: {request.op} {request.guid} got {request.answers}, and then {twin.answers}")

    async def ask(self, request: Request) -> None:
        """Once."""
        world = self.world
        clock = SimulatedClock(world.loop)
        here = Hop("client", "client", request.op, clock.monotonic(), clock.now())
        call = evolve(Call.begin(clock, world.random.choice(BUDGETS_MS)), here=here)
        url = world.random.choice(self.bbs_urls)
        extra = {headers.IDEMPOTENCY_KEY: request.key} if request.key else {}
        http = SimulatedHopClient(world.network, CLIENT)
        try:
            answer = await http.request(
                call, Peer("bbs", url, url), request.method, request.path, request.body, request.op, extra
            )
        except DiegoError as error:
            self._refused(request, error, call.trace_id)
            return
        request.status, request.certain = answer.status, True
        request.answers.append((answer.status, answer.body))

    def _refused(self, request: Request, error: DiegoError, trace_id: str) -> None:
        root, witness = error.root, self.world.witness
        self.world.witness.tell(f"client {request.op} {request.guid}: {root.code} ({error.outcome}) {root.message}")
        if root.code == "internal":
            self.world.witness.fail(f"{request.op} {request.guid}: {root.message}")
        request.status = error.problem["status"] if error.problem else root.status
        if error.problem is not None:
            self._check_refusal(request, error.problem, trace_id)
        disturbed = self.world.faults.rates or request.op == "drain" or self._others(request)
        if not disturbed and root.fault in (Fault.PLATFORM, Fault.DEPENDENCY):
            witness.fail(f"nothing was wrong, and {request.op} {request.guid} failed by {root.code}: {root.message}")
        known = error.problem is not None and root.code not in ("budget_spent", "idempotency_in_flight")
        lost = any(link.code in ("connection_lost", "hop_unreachable", "budget_spent") for link in error.links())
        unsure = any(str(link.outcome) in ("unknown", "partial") for link in error.links())
        stray = "duplicated" in self.world.faults.rates and request.key is not None
        request.certain = known and not lost and not unsure and not stray

    def _check_refusal(self, request: Request, problem: Mapping[str, Any], trace_id: str) -> None:
        """4xx: nothing was changed. `not_started`: no process of the user ever began.

        A request that came twice may find that it is being worked on already.
        """
        witness, code = self.world.witness, problem["code"]
        if code == "idempotency_in_flight":
            return
        if 400 <= problem["status"] < 500 and trace_id in witness.effects:
            witness.fail(
                f"I6: {request.op} {request.guid} was refused ({code}), and changed {witness.effects[trace_id]}"
            )
        if problem.get("outcome") == "not_started" and trace_id in witness.started_for:
            witness.fail(f"I6: {request.op} {request.guid} said not_started ({code}), and a process of it began")

    def _check(self, request: Request) -> None:
        """What an answer promised, now that the client has it."""
        if not request.done:
            return
        witness = self.world.witness
        answer = msgspec.json.decode(request.answers[-1][1])
        if request.op in CHANGES:
            for row in answer["actual_lrps"]:
                if row["instance_guid"] not in witness.ran:
                    witness.fail(f"I5: {request.op} {request.guid} was answered, and {row} never ran")
        if not self._others(request) and request.guid not in self.world.restored:
            left = [
                each
                for each in witness.containers_of(request.guid, request.invoked_s)
                if _is_over(request, each, answer)
            ]
            if left:
                witness.fail(f"{request.op} {request.guid} was answered, and {left} still run")
        if request.op == "drain" and not self._others(request):
            self._check_empty(request)

    def _check_empty(self, request: Request) -> None:
        """A cell that was emptied has nothing, unless somebody gave it work again."""
        witness, host = self.world.witness, self.world.witness.hosts[request.guid]
        if host.specs() and witness.present_for_s(request.guid) > self.world.loop.time() - request.invoked_s:
            witness.fail(f"{request.guid} was emptied, and it has {sorted(host.specs())}")

    def _others(self, request: Request) -> list[Request]:
        """Requests about the same LRP that may have had an effect since this one was sent."""
        return [
            other
            for other in self.history
            if other is not request
            and other.guid == request.guid
            and (other.ended_s > request.invoked_s or not other.certain)
        ]

    def check_in_the_end(self, desired: dict[str, Any]) -> None:
        """Nothing that was acknowledged is lost, unless somebody asked for that later."""
        for request in self.history:
            others = [other for other in self._others(request) if not (other.certain and 400 <= other.status < 500)]
            if not request.done or any(other.op in (*CHANGES, "delete") for other in others):
                continue
            stored = desired.get(request.guid)
            if request.guid in self.world.restored:
                continue
            if request.op in CHANGES and (stored is None or not _is_kept(request, stored.definition)):
                self.world.witness.fail(f"I5: {request.op} {request.guid} was acknowledged and is lost: {stored}")
            if request.op == "delete" and stored is not None:
                self.world.witness.fail(f"I5: delete {request.guid} was acknowledged and it is desired")
