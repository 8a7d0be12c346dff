"""The first moment of a graph: passes on what Dynamo or export hands over."""
