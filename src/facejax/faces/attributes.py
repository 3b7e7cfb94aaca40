"""Binary attributes of a rendered face, under CelebA's names where CelebA has one.

`Beard` is ours (CelebA has the negative No_Beard) and so is `Long_Hair`. All are about what can be
seen: a hat hides baldness, so a face under a hat is never Bald.
"""

from typing import NamedTuple


class Phrase(NamedTuple):
  """How prose speaks of an attribute: in a list, and as a reason."""

  noun: str
  evidence: str


# The order of this table is the canonical order of attributes in answers.
ATTRIBUTES: dict[str, Phrase] = {
  "Eyeglasses": Phrase("eyeglasses", "a frame sits in front of the eyes"),
  "Wearing_Hat": Phrase("hat", "a hat covers the top of the head"),
  "Bald": Phrase("bald", "the scalp is bare"),
  "Bangs": Phrase("bangs", "hair falls over the forehead"),
  "Long_Hair": Phrase("long hair", "the hair reaches below the chin"),
  "Black_Hair": Phrase("black hair", "the hair is very dark"),
  "Brown_Hair": Phrase("brown hair", "the hair is brown"),
  "Blond_Hair": Phrase("blond hair", "the hair is light yellow"),
  "Gray_Hair": Phrase("gray hair", "the hair has turned gray"),
  "Beard": Phrase("beard", "hair covers the chin"),
  "Mustache": Phrase("mustache", "hair covers the upper lip"),
  "Wearing_Lipstick": Phrase("lipstick", "the lips are brightly painted"),
}

HAIR_COLOURS: tuple[str, ...] = ("Black_Hair", "Brown_Hair", "Blond_Hair", "Gray_Hair")
