"""What happened: the jobs of past builds, kept on the dev box. Knows no queue and no worker."""
