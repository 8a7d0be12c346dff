"""``explain``: which op of a model runs in which dtype, why, what it costs and what error it adds."""
