"""File actions: plan, apply, undo and purge, with a journal that survives a kill at any moment."""
