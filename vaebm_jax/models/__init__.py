"""Energies, encoders and decoders: their networks, states, and how to apply them."""
