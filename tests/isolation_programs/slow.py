"""A program that never finishes to import."""

import time

time.sleep(600)
