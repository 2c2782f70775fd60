"""The commands, with a line about each, and their own exception."""

COMMANDS = {
    "train": "Train VARIANT, evaluate it, and write a report.",
    "sweep": "Train a grid of weights of VARIANT, and compare rate and distortion.",
    "evaluate": "Measure RUN on its test data.",
    "report": "Draw RUN's pictures, as one page.",
    "compare": "Compare runs.",
    "sample": "Draw data from RUN's prior, as a grid.",
    "encode": "Encode data by RUN's guide.",
    "list": "List variants, priors, guides, likelihoods, networks and data sets.",
    "new": "Write a prior, guide or term of your own to begin with.",
}


class Stopped(Exception):
    """A training was stopped from the keyboard."""
