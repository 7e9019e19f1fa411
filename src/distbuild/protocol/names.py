"""Names on disk that several of our parts have to agree on."""

#: A directory with a file of this name is ours and never mirrored: a worker's sandboxes are there.
HOME_MARKER = ".dist_build_home"
