"""Energies, encoders and decoders: their networks, their states, and how they are applied."""
