import torch

from rheobase.data import About, Events, Recordings, Split
from rheobase.data.provenance import event_dataset, image_dataset

ABOUT = About("title", "images", "https://example.org", "MIT", "somebody", "two and two", "nothing")


def test_images_get_the_statistics_of_their_train_split():
    train, test = (
        Split(torch.tensor([[[[low]]], [[[255]]]], dtype=torch.uint8), torch.zeros(2).long(), 255) for low in (0, 9)
    )
    made = image_dataset("toy", ABOUT, ("a",), train, test)
    assert (made.mean, made.std) == ((0.5,), (0.5,))
    assert (made.source, made.licence, made.citation) == ("https://example.org", "MIT", "somebody")


def test_events_keep_their_sensor():
    part = Recordings(lambda k: Events.none((4, 3)), torch.zeros(2).long(), "key")
    made = event_dataset("toy", ABOUT, ("a",), part, part, (4, 3))
    assert (made.sensor, made.source, made.licence, made.citation) == ((4, 3), "https://example.org", "MIT", "somebody")
