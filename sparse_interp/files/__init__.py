"""What is on disk: whole files, the workdir; errors of users, and signals."""
