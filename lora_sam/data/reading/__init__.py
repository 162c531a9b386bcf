"""What formats of labelled images share: reading images, masks, tables and paths."""
