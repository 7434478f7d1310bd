"""The request itself is wrong, or contradicts what is there: 4xx, and nothing was changed."""

from __future__ import annotations

from typing import ClassVar

from diego_py.errors.base import AGAIN, CELLS, DiegoError, Fault, Next


class CallerError(DiegoError):
    """The request itself is wrong; nothing was changed."""

    code = "bad_request"
    title = "The request is wrong"
    status = 400
    fault = Fault.CALLER
    elsewhere = False
    next: ClassVar[tuple[Next, ...]] = (Next("Correct the request; the detail names the place"),)


class MalformedJSON(CallerError):
    """The body is not JSON, or not JSON that two parsers would read alike."""

    code = "malformed_json"
    title = "The body is not valid JSON"
    next: ClassVar[tuple[Next, ...]] = (Next("Correct the body at the byte that the detail names"),)


class MalformedProtobuf(CallerError):
    """The body is not the protobuf message that this path of Diego's wire takes."""

    code = "malformed_protobuf"
    title = "The body is not valid protobuf"
    next: ClassVar[tuple[Next, ...]] = (Next("Send the message that docs/diego.md names for this path"),)


class InvalidHeader(CallerError):
    """A header or query parameter that steers the request cannot be understood."""

    code = "invalid_parameter"
    title = "A header or query parameter is wrong"


class InvalidSpec(CallerError):
    """The definition has bad fields; `errors` lists every one with a JSON pointer."""

    code = "invalid_spec"
    title = "The definition has invalid fields"
    status = 422
    next: ClassVar[tuple[Next, ...]] = (Next("Correct each field listed in `errors`"),)


class UnsupportedField(CallerError):
    """The definition uses fields that this release does not execute; they are refused, never ignored."""

    code = "unsupported_field"
    title = "The definition uses fields this release does not execute"
    status = 422
    next: ClassVar[tuple[Next, ...]] = (Next("Leave out each field listed in `errors`, or use what its detail names"),)


class RouteNotFound(CallerError):
    """No resource has this path."""

    code = "route_not_found"
    title = "There is no such path"
    status = 404
    next: ClassVar[tuple[Next, ...]] = (Next("Read the list of paths", href="/openapi.json"),)


class MethodNotAllowed(CallerError):
    """The path exists, but not with this method; see the Allow header."""

    code = "method_not_allowed"
    title = "The path does not take this method"
    status = 405
    next: ClassVar[tuple[Next, ...]] = (Next("Use a method that the Allow header lists"),)


class BodyTooLarge(CallerError):
    """The body is larger than the listener accepts."""

    code = "body_too_large"
    title = "The body is too large"
    status = 413
    next: ClassVar[tuple[Next, ...]] = (Next("Send a smaller body; large content belongs in the image"),)


class UnsupportedMediaType(CallerError):
    """The body is not declared as JSON."""

    code = "unsupported_media_type"
    title = "The body's media type is not understood"
    status = 415
    next: ClassVar[tuple[Next, ...]] = (Next("Send Content-Type: application/json"),)


class NotFound(CallerError):
    """The named object does not exist."""

    code = "not_found"
    title = "There is no such object"
    status = 404
    next: ClassVar[tuple[Next, ...]] = (Next("List what exists", run="diego ps"),)


class DesiredLRPNotFound(NotFound):
    """No desired LRP has this process_guid."""

    code = "desired_lrp_not_found"
    title = "There is no such desired LRP"


class ActualLRPNotFound(NotFound):
    """No instance has this process_guid and index."""

    code = "actual_lrp_not_found"
    title = "There is no such instance"


class CellNotFound(NotFound):
    """No cell has this id."""

    code = "cell_not_found"
    title = "There is no such cell"
    next: ClassVar[tuple[Next, ...]] = (CELLS,)


class ContainerNotFound(NotFound):
    """The cell has no container, and no logs, of this handle."""

    code = "container_not_found"
    title = "The cell knows no such container"


class FailureNotFound(NotFound):
    """No stored failure has this id; they are kept for 30 days."""

    code = "failure_not_found"
    title = "There is no such stored failure"


class CodeNotFound(NotFound):
    """No error has this code."""

    code = "code_not_found"
    title = "There is no such error code"
    next: ClassVar[tuple[Next, ...]] = (Next("Read all codes", href="/errors"),)


class ConflictError(CallerError):
    """The request contradicts what is there; nothing was changed."""

    code = "conflict"
    title = "The request conflicts with the present state"
    status = 409
    next: ClassVar[tuple[Next, ...]] = (Next("Read the object and decide again"),)


class AlreadyExists(ConflictError):
    """A desired LRP with this process_guid exists already."""

    code = "already_exists"
    title = "The desired LRP exists already"
    next: ClassVar[tuple[Next, ...]] = (
        Next("Change it", run="diego scale {process_guid} N"),
        Next("Or use another process_guid for a new definition"),
    )


class StillBeingDeleted(ConflictError):
    """An LRP of this process_guid was deleted, and not all of its containers have ended."""

    code = "still_being_deleted"
    title = "The last LRP of this name is still being deleted"
    retryable = True
    next: ClassVar[tuple[Next, ...]] = (
        Next("Finish the deletion", run="diego delete {process_guid}"),
        Next("Then ask again; or use another process_guid"),
    )


class CellIdTaken(ConflictError):
    """Another process, with another state directory, reports under this cell id; this one's report changed nothing."""

    code = "cell_id_taken"
    title = "Another cell has this id"
    next: ClassVar[tuple[Next, ...]] = (
        Next("Give one of the two cells another cell_id"),
        Next("If the other one is gone for good, wait until its presence runs out"),
    )


class IllegalTransition(ConflictError):
    """The state table has no such move."""

    code = "illegal_transition"
    title = "The state table does not allow this move"


class IdempotencyInFlight(ConflictError):
    """A request with this Idempotency-Key is being worked on right now."""

    code = "idempotency_in_flight"
    title = "The first request with this key is still under way"
    retryable = True
    next: ClassVar[tuple[Next, ...]] = (AGAIN,)


class IdempotencyMismatch(CallerError):
    """This Idempotency-Key was used for a different request; the first one is untouched."""

    code = "idempotency_mismatch"
    title = "The key was used for another request"
    status = 422
    next: ClassVar[tuple[Next, ...]] = (Next("Use a new Idempotency-Key for a different request"),)


class PreconditionFailed(CallerError):
    """If-Match names another revision than the present one."""

    code = "precondition_failed"
    title = "The object changed since it was read"
    status = 412
    next: ClassVar[tuple[Next, ...]] = (Next("Read the object again, then repeat the change with its new ETag"),)
