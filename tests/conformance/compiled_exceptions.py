"""Where compiled calls cannot be asked to conform, op by op, each with its reason."""

# Dynamo captures nothing of these calls, so that they run as they would uncompiled.
NOT_CAPTURED: dict[str, str] = {}

# The largest relative error against float32 where lower precision amplifies errors: op, bound.
WIDE_BOUNDS: dict[str, float] = {}

# Dynamo skips the frames of these modules, so that they run as they would uncompiled.
MODULES_NOT_CAPTURED: dict[str, str] = {}

# The largest relative error of modules against float32 where lower precision amplifies errors.
WIDE_BOUNDS_OF_MODULES: dict[str, float] = {}
