"""MCMC and annealing for any energy function: JAX and arrays alone."""
