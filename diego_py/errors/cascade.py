"""What can happen at any hop: time, connections, load, the database, and defects of our own."""

from __future__ import annotations

from diego_py.errors.base import AGAIN, CELLS, DiegoError, Fault, Next


class InternalError(DiegoError):
    """An exception nobody expected: a defect of this software. The local log has the traceback under the trace id."""

    code = "internal"
    title = "A defect in diego-py"
    next = (Next("Report it with the request id and the log of the hop that `origin` names"),)


class BudgetSpent(DiegoError):
    """The time the caller gave ran out at this hop; what was asked may still finish."""

    code = "budget_spent"
    title = "The time for this request ran out"
    status = 504
    retryable = True
    elsewhere = False
    next = (
        Next("See where it stands now", run="diego ps {process_guid}"),
        Next("Give it longer: Prefer: wait=SECONDS"),
    )


class SlowReader(DiegoError):
    """Whoever asked for a whole list did not read it quickly enough: it is read from one snapshot, which cannot wait.

    `evidence` has how many rows came before, and the cursor behind them.
    """

    code = "slow_reader"
    title = "The list was not read quickly enough"
    status = 504
    fault = Fault.CALLER
    retryable = True
    elsewhere = False
    next = (
        Next("Ask again with the cursor that the evidence names, and read without pauses"),
        Next("Or read page by page: with limit, nothing is kept open in between"),
    )


class HopUnreachable(DiegoError):
    """The next hop refused the connection or cannot be found; it did not get the request."""

    code = "hop_unreachable"
    title = "The next hop cannot be reached"
    status = 502
    retryable = True
    next = (CELLS, Next("Start the process that should listen at this address, or mend the network"))


class ConnectionLost(DiegoError):
    """The connection broke after the request was sent: whether it was carried out is unknown."""

    code = "connection_lost"
    title = "The connection to the next hop was lost"
    status = 502
    retryable = True
    next = (Next("See where it stands now", run="diego ps {process_guid}"), AGAIN)


class BadAnswer(DiegoError):
    """The next hop answered something that is not this protocol."""

    code = "bad_answer"
    title = "The next hop spoke nonsense"
    status = 502
    next = (Next("Check that address and version of the next hop are right"),)


class Saturated(DiegoError):
    """The process works on as many requests as it may; this one was refused before anything was done."""

    code = "saturated"
    title = "Too many requests are under way"
    status = 503
    fault = Fault.CAPACITY
    retryable = True
    next = (Next("Try again after Retry-After seconds"),)


class ShuttingDown(DiegoError):
    """The process is stopping and takes no new work."""

    code = "shutting_down"
    title = "This process is stopping"
    status = 503
    retryable = True
    next = (Next("Send the request to another one; a load balancer does this by /readyz"),)


class DatabaseUnavailable(DiegoError):
    """Postgres cannot be reached or does not answer in time."""

    code = "database_unavailable"
    title = "The database is not available"
    status = 503
    fault = Fault.DEPENDENCY
    retryable = True
    elsewhere = False
    next = (Next("Check that Postgres runs and takes connections; the BBS reconnects by itself"),)


class DatabaseConflict(DiegoError):
    """Concurrent transactions kept colliding until the tries were spent."""

    code = "database_conflict"
    title = "The database could not order concurrent changes"
    status = 503
    fault = Fault.DEPENDENCY
    retryable = True
    elsewhere = False
    next = (Next("Try again after Retry-After seconds"),)


class NotLeader(DiegoError):
    """A newer convergence leader exists; what this one was about to do was fenced off."""

    code = "not_leader"
    title = "Another BBS leads convergence now"
    status = 409
    elsewhere = False
    next = (Next("Nothing: the leader does it"),)
