"""What is wrong only beside another sample: copies, within a split and across splits."""

import io
from collections.abc import Callable

from folder import Folder, conversation
from PIL import Image

DESCRIPTION = (
  "The person has dark hair that is parted on the left, wears no glasses, looks straight into the "
  "camera and smiles with closed lips. The light comes from the right, so that the left cheek "
  "lies in the shade, and the wall behind is white."
)


def the_same_sample_twice(folder: Folder) -> None:
  record = folder.sample()
  folder.add(record)
  folder.add({**record, "id": "again"}, "duplicate_sample")


def an_id_that_is_taken(folder: Folder) -> None:
  record = folder.text_sample()
  folder.add(record)
  folder.add({**folder.text_sample(), "id": record["id"]}, "duplicate_id")


def one_picture_under_two_names(folder: Folder) -> None:
  record = folder.sample()
  data = (folder.path / record["image"]).read_bytes()
  folder.add(record)
  folder.add({**folder.sample(), "image": folder.write("copy.png", data)}, "duplicate_media")


def one_description_of_two_faces(folder: Folder) -> None:
  turns = conversation("<image>\nDescribe the face.", DESCRIPTION)
  folder.add({**folder.sample(), "conversations": turns})
  folder.add({**folder.sample(), "conversations": turns}, "same_conversation")


def a_test_picture_in_training(folder: Folder) -> None:
  record = folder.sample()
  folder.add(record, index="test.json")
  folder.add({**folder.sample(), "image": record["image"]}, "split_leak")


def a_test_picture_saved_again_in_training(folder: Folder) -> None:
  """PNG to lossless WebP: no byte is the same, all pixels are."""
  record = folder.sample()
  folder.add(record, index="test.json")
  buffer = io.BytesIO()
  Image.open(folder.path / record["image"]).save(buffer, "WEBP", lossless=True)
  again = {**folder.sample(), "image": folder.write("again.webp", buffer.getvalue())}
  folder.add(again, "split_leak")


def a_test_text_in_training(folder: Folder) -> None:
  record = folder.text_sample()
  folder.add(record, index="test.json")
  folder.add({**record, "id": "leak"}, "split_leak")


def a_test_picture_in_validation(folder: Folder) -> None:
  record = folder.sample()
  folder.add(record, index="test.json")
  folder.add({**folder.sample(), "image": record["image"]}, "split_overlap", index="val.json")


PLANTS: tuple[Callable[[Folder], None], ...] = tuple(
  value
  for value in list(globals().values())
  if callable(value) and getattr(value, "__module__", "") == __name__
)
