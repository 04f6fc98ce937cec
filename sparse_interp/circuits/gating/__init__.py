"""What the parts of a model are switched with, and what it answers then."""
