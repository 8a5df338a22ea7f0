"""From noise to data: grids, tableaus, the one scan, guidance."""
