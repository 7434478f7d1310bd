"""A whole cell for each test."""

from tests.fakes.cell_fixtures import bbs as bbs
from tests.fakes.cell_fixtures import cell as cell
from tests.fakes.cell_fixtures import garden as garden
from tests.fakes.cell_fixtures import log as log
