"""The programs of the contenders: each runs by its path, in an environment that need not have meshhost."""
