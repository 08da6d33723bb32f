"""Analysis -> plotly figures, tables beside them, and the payload of the block canvas. Nothing here computes memory."""
