"""What is drawn, read back."""


def texts(artists):
    return [artist.get_text() for artist in artists]
