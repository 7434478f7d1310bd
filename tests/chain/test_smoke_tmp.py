import time, json, pytest
from tests.chain.definitions import *
from tests.chain.answers import well_formed
pytestmark=[pytest.mark.chain, pytest.mark.kernel]
async def test_ok(one_cell):
    t=time.monotonic()
    a=await one_cell.desire(lrp()); print(a.status, a.body, time.monotonic()-t); assert a.status==201
    a=await one_cell.delete("web"); print(a.status, a.body, one_cell.left())
async def test_bad(one_cell):
    a=await one_cell.desire(lrp(rootfs="preloaded:unmountable", run_user="0:0")); print(a.status, json.dumps(a.json,indent=1))
    well_formed(a)
async def test_bad2(two_cells):
    a=await two_cells.desire(lrp(rootfs="preloaded:unmountable", run_user="0:0")); print(a.status, json.dumps(a.json,indent=1))
    well_formed(a)
