"""What must outlast a process: the contracts of the stores, and one package of implementations per engine."""
