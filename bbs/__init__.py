"""The bulletin-board service: HTTP API over Postgres, auction, placement cascade, convergence."""
