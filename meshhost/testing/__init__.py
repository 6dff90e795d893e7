"""What tests of programs built on meshhost need: a clock that stands still until told to move."""
