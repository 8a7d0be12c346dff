"""All that touches Inductor: our passes as it takes them, its settings, what keeps its defects from users."""
