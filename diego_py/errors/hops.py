"""One class for each thing that the BBS, the auction and the rep try."""

from __future__ import annotations

from diego_py.errors.base import CELLS, EXPLAIN, LOGS, DiegoError, Fault, Next


class DesireFailed(DiegoError):
    """The LRP was not brought to the state the caller asked for."""

    code = "bbs.desire_failed"
    title = "The LRP does not run as desired"
    next = (EXPLAIN,)


class UpdateFailed(DiegoError):
    """The change of the LRP did not become true."""

    code = "bbs.update_failed"
    title = "The update did not become true"
    next = (EXPLAIN,)


class ReplaceFailed(DiegoError):
    """A new instance did not come to run, so the replacement stopped there; `subject` says how many are new and old."""

    code = "bbs.replace_failed"
    title = "The LRP was not replaced"
    next = (Next("Mend the definition, or deploy the former one again", run="diego deploy -f FILE"), EXPLAIN)


class NeverRoutable(DiegoError):
    """It ran, and its readiness checks did not let requests come to it in time. No crash: readiness never counts."""

    code = "bbs.never_routable"
    title = "The new instance never became ready"
    fault = Fault.APP
    elsewhere = False
    next = (LOGS, Next("Check port and path of the readiness checks, or give the request more time"))


class EvacuationFailed(DiegoError):
    """The cell is not empty: an instance could not be moved, and serves there still."""

    code = "bbs.evacuation_failed"
    title = "The cell could not be emptied"
    next = (CELLS, EXPLAIN)


class DeleteFailed(DiegoError):
    """Not every container of the LRP could be shown to be gone."""

    code = "bbs.delete_failed"
    title = "The LRP is not gone"
    next = (EXPLAIN,)


class RestartFailed(DiegoError):
    """The instance was stopped and could not be started again."""

    code = "bbs.restart_failed"
    title = "The instance was not restarted"
    next = (EXPLAIN,)


class StopFailed(DiegoError):
    """The instance could not be shown to be stopped."""

    code = "bbs.stop_failed"
    title = "The instance was not stopped"
    next = (EXPLAIN,)


class RepairFailed(DiegoError):
    """Convergence tried to put an instance back and failed; it tries again after a back-off."""

    code = "bbs.repair_failed"
    title = "Convergence could not repair the instance"
    next = (EXPLAIN,)


class RequestFailed(DiegoError):
    """Any other request to the BBS failed."""

    code = "bbs.request_failed"
    title = "The BBS could not carry out the request"
    next = (Next("Read the innermost frame of the chain"),)


class InstanceFailed(DiegoError):
    """An instance that ran has ended."""

    code = "bbs.instance_failed"
    title = "A running instance ended"
    next = (LOGS, EXPLAIN)


class ToldByRep(DiegoError):
    """A rep told this failure over Diego's wire, in its own words."""

    code = "rep.told"
    title = "A rep reported the failure"
    fault = Fault.APP
    elsewhere = False
    next = (LOGS,)


class CellLost(DiegoError):
    """The cell stopped renewing its presence, so its instances are placed again elsewhere."""

    code = "bbs.cell_lost"
    title = "The cell of the instance vanished"
    retryable = True
    next = (CELLS, Next("Restart the cell process on its host: it adopts the containers that still run"))


class PlacementFailed(DiegoError):
    """No cell ended up running the instance."""

    code = "auction.placement_failed"
    title = "The instance could not be placed"
    next = (EXPLAIN,)


class NoCellFits(DiegoError):
    """Every cell was ruled out; `placement` has need and have for each."""

    code = "auction.no_cell_fits"
    title = "No cell has room for the instance"
    status = 503
    fault = Fault.CAPACITY
    retryable = True
    next = (CELLS, Next("Ask for less, stop something, or add a cell"))


class NoCells(DiegoError):
    """No live cell is known."""

    code = "auction.no_cells"
    title = "There is no live cell"
    status = 503
    fault = Fault.CAPACITY
    retryable = True
    next = (CELLS, Next("Start a cell", run="python -m cells --config CELL.json"))


class RepFailed(DiegoError):
    """The cell rep could not carry out the request."""

    code = "rep.work_failed"
    title = "The cell could not run the instance"
    next = (EXPLAIN,)


class InsufficientResources(DiegoError):
    """The cell refused: its own books have less room than the auction believed."""

    code = "rep.insufficient_resources"
    title = "The cell has no room"
    status = 409
    fault = Fault.CAPACITY
    retryable = True
    next = (CELLS,)


class VolumeDriverMissing(DiegoError):
    """The cell has no such volume driver: `evidence` has the one that was asked for and those that there are."""

    code = "rep.volume_driver_missing"
    title = "The cell has no such volume driver"
    fault = Fault.CALLER
    elsewhere = True
    next = (Next("Use the driver `local` with a path below one of the cells' bind_source_dirs"),)


class CellDraining(DiegoError):
    """The cell is being emptied and takes no work."""

    code = "rep.draining"
    title = "The cell is draining"
    status = 503
    fault = Fault.CAPACITY
    retryable = True
    next = (CELLS,)


class DrainNotKept(DiegoError):
    """The cell could not write its mark to disk, so that it would have forgotten it when it starts again."""

    code = "rep.drain_not_kept"
    title = "The cell cannot keep that it drains"
    next = (Next("Make room on the file system of the cell's state_dir, then repeat it"),)


class StateDirectoryInUse(DiegoError):
    """Another cell process works with this state directory, and did not end while this one waited; `evidence.pid`."""

    code = "rep.state_directory_in_use"
    title = "The cell's state directory is another process's"
    retryable = True
    next = (Next("End the other process, or give each cell a `state_dir` of its own"),)


class EpochNotKept(DiegoError):
    """The cell could not write the epoch of a new leader to disk: started again, it would obey an old one. Nothing was
    started.
    """

    code = "rep.epoch_not_kept"
    title = "The cell cannot keep who leads"
    retryable = True
    next = (Next("Make room on the file system of the cell's state_dir, then repeat it"),)


class ClaimRefused(DiegoError):
    """The row was no longer waiting for this instance: a late or repeated request. Nothing was started."""

    code = "rep.claim_refused"
    title = "The claim came too late"
    status = 409
    retryable = True
    elsewhere = False
    next = (Next("See who runs it now", run="diego ps {process_guid}"),)


class ClaimLost(DiegoError):
    """The cell could not reach any BBS to claim the row, so it started nothing."""

    code = "rep.claim_lost"
    title = "The cell could not claim the instance"
    status = 500
    retryable = True
    next = (Next("Check that the cell reaches a BBS at its configured addresses"),)


class HandleTaken(DiegoError):
    """A container with this handle exists on the cell already."""

    code = "rep.handle_taken"
    title = "The cell has this instance already"
    status = 409
    elsewhere = False
    next = (EXPLAIN,)


class StaleEpoch(DiegoError):
    """The command comes from a leader that was replaced."""

    code = "rep.stale_epoch"
    title = "The command comes from an old leader"
    status = 409
    elsewhere = False
    next = (Next("Nothing: the present leader decides"),)
