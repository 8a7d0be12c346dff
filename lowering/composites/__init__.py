"""Looking inside ops that no list names, for those that one does."""
