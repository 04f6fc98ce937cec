"""What is on disk: whole files, the workdir, and errors of users."""
