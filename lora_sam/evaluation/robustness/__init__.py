"""What a model is worth away from the prompts and images it was trained on: base and tuned on the same of both."""
