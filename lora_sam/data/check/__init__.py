"""What is wrong with a labelled data set: everything that was found, counted, with examples and a remedy each."""
