"""dist_build: distributed compilation whose results equal the local compiler's."""

__version__ = "0.1.0"
