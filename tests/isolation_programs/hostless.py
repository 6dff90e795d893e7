"""A program that ends without a host."""
