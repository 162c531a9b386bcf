"""What predictions are written as: a file for each format, a row for each in `table.py`."""
