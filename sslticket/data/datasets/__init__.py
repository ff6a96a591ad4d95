"""The known data sets, the forms in which they are published, and where each one is looked for."""
