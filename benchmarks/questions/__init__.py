"""One module per question, found by its name: `QUESTION`, `QUICK`, and `measure(rehearse)`."""
