"""MCMC and annealing for any energy function, by JAX alone."""
