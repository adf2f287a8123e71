"""Report: `report.json` is the truth; the console table, `report.md` and the model card are drawn from it."""
