"""SAM in its three parts: variants, weights, attention, stages of the encoder, decoding."""
