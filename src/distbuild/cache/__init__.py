"""The object cache: results of earlier compiles, found again by command, source and headers. Knows
no queue and no worker."""
