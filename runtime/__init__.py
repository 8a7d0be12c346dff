"""At call time: the eager autocast kernels, their installation and the cache of casted weights."""
