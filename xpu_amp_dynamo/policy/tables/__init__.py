"""The op lists of the named policies: data without logic, one file per source."""
