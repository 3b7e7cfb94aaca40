"""What is drawn: identities, and one sample's pose, expression, age, light and accessories.

`sample(seed, split)` draws a `Scene` from the priors; `faces/synthetic.py` renders it. Every random
number comes from `numpy.random.SeedSequence` over integers, so a scene is a pure function of
(split, seed) and an identity a pure function of its number.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from facejax.faces.action_units import EXPRESSIONS, PROTOTYPES, RENDERED_ACTION_UNITS
from facejax.faces.attributes import ATTRIBUTES
from facejax.faces.geometry import Pose, Shape

Colour = tuple[float, float, float]

# Identity numbers of each split: disjoint half-open ranges, so no person crosses splits.
IDENTITIES: dict[str, range] = {
  "train": range(0, 20_000),
  "validation": range(20_000, 22_000),
  "test": range(22_000, 24_000),
}
AGES = (5.0, 80.0)  # years

# First words of the seed sequences: they keep the two streams apart.
_IDENTITY_STREAM, _SAMPLE_STREAM = 1, 2

# Anchors of human skin from very light to very dark, sRGB.
_SKIN = np.array(
  [(250, 218, 196), (238, 196, 164), (222, 170, 128), (192, 134, 92), (146, 94, 62), (92, 58, 42)],
  float,
)
_HAIR: dict[str, tuple[Colour, Colour]] = {
  "Black_Hair": ((16, 14, 14), (40, 32, 30)),
  "Brown_Hair": ((82, 50, 30), (132, 84, 50)),
  "Blond_Hair": ((196, 156, 88), (232, 200, 134)),
  "Gray_Hair": ((150, 150, 152), (214, 214, 216)),
}
_IRIS: tuple[Colour, ...] = (
  (60, 38, 22),
  (96, 62, 30),
  (70, 100, 140),
  (88, 120, 84),
  (110, 118, 124),
)


@dataclass(frozen=True)
class Labels:
  """What is true of one rendered face and visible in it.

  `action_units` maps unit -> intensity in 0..1 (FACS grade / 5), active units only; `attributes`
  has every name of ATTRIBUTES; `age` is in years, 5..80; angles are in degrees, see `Pose`.
  """

  expression: str
  action_units: Mapping[int, float]
  attributes: Mapping[str, bool]
  age: float
  manipulated: bool
  identity: int
  yaw: float
  pitch: float
  roll: float


class Identity(NamedTuple):
  """What a person keeps from photograph to photograph."""

  number: int
  shape: Shape
  skin: Colour
  iris: Colour
  brow_thickness: float  # 0.7..1.4 of the average
  grays_at: float  # years at which half of the hair is gray, 42..58
  looks_older: tuple[float, float, float]  # years added to lines, shape and skin cues, sd 1.2
  texture: int  # seed of the skin's spots and the hair's strands


class Seam(NamedTuple):
  """How a manipulated face was put together."""

  outline: tuple[float, ...]  # 12 radii of the pasted region, 0.8..1.05 of the average
  feather: float  # softness of its border in face units, 0.012..0.032
  edge: float  # brightening of the border itself, 0.12..0.4, either sign
  colour: Colour  # log of the donor's colour over the target's, on average along the border
  light: tuple[float, float]  # the donor's light direction (x, y)
  ghost: tuple[float, float]  # offset of the doubled ring in face units; (0, 0): none
  detail: float  # > 0: the pasted region is noisier; < 0: blurrier


class Light(NamedTuple):
  """Direction of the light in the image plane (unit: 1 is grazing), strengths and colour."""

  x: float
  y: float
  ambient: float  # 0.5..0.75
  diffuse: float  # 0.35..0.6
  tint: Colour  # about 1


class Sensor(NamedTuple):
  """What the camera adds, independent of all labels."""

  blur: float  # box radius in pixels at 112, 0..0.7
  noise: float  # standard deviation in 0..255 units, 0.5..6
  gain: float  # contrast, 0.85..1.15
  jpeg: int  # quality 55..95; 0: none


class Style(NamedTuple):
  """Accessories and other choices that are not labels."""

  hair: str  # bald, short, curly or long
  hair_colour: Colour
  facial_hair_colour: Colour
  glasses: int  # frame shape 0..2
  frame_colour: Colour
  hat: int  # 0 cap, 1 beanie, 2 brimmed
  hat_colour: Colour
  cloth_colour: Colour
  lipstick: Colour
  occluder: str  # none, hand, block, scarf or strand
  occluder_side: int  # -1 image's left, 1 image's right
  occluder_colour: Colour
  earrings: bool
  necklace: bool
  eye_shadow: float  # 0..0.6
  gaze: tuple[float, float]  # -1..1


@dataclass(frozen=True)
class Scene:
  """All that the renderer needs; `dataclasses.replace` changes one thing and nothing else."""

  identity: Identity
  age: float  # years
  expression: str
  action_units: Mapping[int, float]
  attributes: Mapping[str, bool]
  pose: Pose  # scale and centre are in crop widths here
  light: Light
  style: Style
  sensor: Sensor
  seam: Seam | None
  noise_seed: int

  @property
  def labels(self) -> Labels:
    """The labels of the rendered face."""
    return Labels(
      expression=self.expression,
      action_units=dict(self.action_units),
      attributes=dict(self.attributes),
      age=self.age,
      manipulated=self.seam is not None,
      identity=self.identity.number,
      yaw=self.pose.yaw,
      pitch=self.pose.pitch,
      roll=self.pose.roll,
    )


def _pick(rng: np.random.Generator, options):
  return options[int(rng.integers(len(options)))]


def _between(rng: np.random.Generator, low: Colour, high: Colour) -> Colour:
  t = rng.random()
  return tuple(float(a + (b - a) * t) for a, b in zip(low, high, strict=True))  # type: ignore


def _any_colour(rng: np.random.Generator) -> Colour:
  return tuple(float(c) for c in rng.uniform(20, 235, 3))  # type: ignore


@functools.lru_cache(maxsize=4096)
def identity(number: int) -> Identity:
  """The person with this number: a pure function of it."""
  rng = np.random.default_rng([_IDENTITY_STREAM, number])
  shape = Shape(*np.clip(rng.normal(0, 0.8, len(Shape._fields)), -1.6, 1.6).tolist())
  position = rng.uniform(0, len(_SKIN) - 1.001)
  low = int(position)
  skin = _SKIN[low] + (_SKIN[low + 1] - _SKIN[low]) * (position - low)
  skin = np.clip(skin * rng.normal(1, 0.02, 3), 30, 252)
  return Identity(
    number=number,
    shape=shape,
    skin=tuple(skin.tolist()),
    iris=tuple((np.array(_pick(rng, _IRIS)) * rng.uniform(0.8, 1.15)).tolist()),
    brow_thickness=float(rng.uniform(0.7, 1.4)),
    grays_at=float(rng.uniform(42, 58)),
    looks_older=tuple(np.clip(rng.normal(0, 1.2, 3), -2.4, 2.4).tolist()),
    texture=int(rng.integers(2**31)),
  )


def _action_units(rng: np.random.Generator, expression: str) -> dict[int, float]:
  """Prototype units at 0.4..1; sometimes one is missing, or another joins in."""
  prototype = PROTOTYPES[expression]
  units = {unit: rng.uniform(0.4, 1.0) for unit in prototype.required}
  for unit in prototype.optional:
    if unit in RENDERED_ACTION_UNITS and rng.random() < 0.5:
      units[unit] = rng.uniform(0.4, 1.0)
  if len(units) > 3 and rng.random() < 0.15:
    del units[_pick(rng, sorted(units))]
  if prototype.compatible and rng.random() < 0.45:
    units.setdefault(_pick(rng, prototype.compatible), rng.uniform(0.4, 0.9))
  # The lips are drawn apart whenever the jaw drops, so both units are there to see.
  if 26 in units:
    units.setdefault(25, rng.uniform(0.4, 1.0))
  return {unit: round(float(units[unit]), 2) for unit in sorted(units)}


def _grayness(person: Identity, age: float) -> float:
  """Share of gray hair: 0.5 at the person's own age of graying, over about 15 years."""
  return min(max(0.5 + (age - person.grays_at) / 20, 0.0), 1.0)


def _attributes(rng: np.random.Generator, person: Identity, age: float) -> dict[str, bool]:
  """Near-balanced and close to independent, but for children and for gray hair."""
  draw = dict(zip(ATTRIBUTES, rng.random(len(ATTRIBUTES)).tolist(), strict=True))
  has = {name: False for name in ATTRIBUTES}
  has["Eyeglasses"] = draw["Eyeglasses"] < 0.4
  has["Wearing_Hat"] = draw["Wearing_Hat"] < 0.3
  has["Bald"] = draw["Bald"] < 0.38 and age >= 18 and not has["Wearing_Hat"]
  if not has["Bald"]:
    has["Bangs"] = draw["Bangs"] < 0.42
    has["Long_Hair"] = draw["Long_Hair"] < 0.42
    colour = ("Black_Hair", "Brown_Hair", "Blond_Hair")[int(draw["Brown_Hair"] * 3)]
    has["Gray_Hair" if _grayness(person, age) >= 0.5 else colour] = True
  grown = age >= 16
  has["Beard"] = draw["Beard"] < 0.4 and grown
  has["Mustache"] = draw["Mustache"] < 0.4 and grown
  has["Wearing_Lipstick"] = draw["Wearing_Lipstick"] < 0.35
  return has


def _style(rng: np.random.Generator, person: Identity, age: float, has: Mapping) -> Style:
  kind = "bald" if has["Bald"] else "long" if has["Long_Hair"] else _pick(rng, ("short", "curly"))
  under = next((name for name in _HAIR if has[name] and name != "Gray_Hair"), None)
  under = under or _pick(rng, ("Black_Hair", "Brown_Hair", "Blond_Hair"))
  young, gray = _between(rng, *_HAIR[under]), _between(rng, *_HAIR["Gray_Hair"])
  # Gray strands show before the hair counts as gray, and some colour stays after it does.
  share = _grayness(person, age)
  share = 0.5 * share if share < 0.5 else 0.7 + 0.6 * (share - 0.5)
  hair = _between_at(young, gray, share)
  beard = _between_at(_between_at(young, (30, 24, 22), 0.35), gray, share)
  occluders = ["hand", "block", "scarf", "hand" if has["Bald"] or has["Wearing_Hat"] else "strand"]
  return Style(
    hair=kind,
    hair_colour=hair,
    facial_hair_colour=beard,
    glasses=int(rng.integers(3)),
    frame_colour=_pick(
      rng, ((18, 18, 20), (70, 36, 20), (150, 30, 40), (30, 60, 120), (40, 40, 44))
    ),
    hat=int(rng.integers(3)),
    hat_colour=_any_colour(rng),
    cloth_colour=_any_colour(rng),
    lipstick=_pick(rng, ((190, 20, 50), (215, 30, 90), (150, 10, 60), (220, 50, 40))),
    occluder=_pick(rng, occluders) if rng.random() < 0.18 else "none",
    occluder_side=1 if rng.random() < 0.5 else -1,
    occluder_colour=_any_colour(rng),
    earrings=bool(rng.random() < 0.2),
    necklace=bool(rng.random() < 0.2),
    eye_shadow=float(rng.uniform(0.2, 0.6)) if rng.random() < 0.25 else 0.0,
    gaze=tuple(rng.uniform(-1, 1, 2).tolist()),
  )


def _between_at(low: Colour, high: Colour, t: float) -> Colour:
  return tuple(a + (b - a) * t for a, b in zip(low, high, strict=True))  # type: ignore


def _seam(rng: np.random.Generator, light: Light, skin: Colour) -> Seam:
  """A visible seam.

  Along the border the skin differs by 20 to 36 % in brightness on average, in hue too, and the
  light comes from at least 70 degrees elsewhere. On dark skin, where the same share is fewer gray
  levels, differences are up to 1.6 times as large.
  """
  visible = 1 + 0.6 * (1 - sum(skin) / 765)
  brightness = np.log(1 + _pick(rng, (-1, 1)) * visible * rng.uniform(0.2, 0.36))
  hue = rng.uniform(-0.1, 0.1, 3)
  turn = np.radians(_pick(rng, (-1, 1)) * rng.uniform(70, 180))
  x = light.x * np.cos(turn) - light.y * np.sin(turn)
  y = light.x * np.sin(turn) + light.y * np.cos(turn)
  angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.10)
  doubled = rng.random() < 0.5
  return Seam(
    outline=tuple(rng.uniform(0.84, 1.04, 12).tolist()),
    feather=float(rng.uniform(0.012, 0.032)),
    edge=float(_pick(rng, (-1, 1)) * visible * rng.uniform(0.12, 0.25)),
    colour=tuple((brightness + hue - hue.mean()).tolist()),
    light=(float(x), float(y)),
    ghost=(distance * np.cos(angle), distance * np.sin(angle)) if doubled else (0.0, 0.0),
    detail=float(_pick(rng, (-1, 1)) * rng.uniform(0.4, 1.0)),
  )


def _light(rng: np.random.Generator) -> Light:
  angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.8)
  return Light(
    x=float(reach * np.cos(angle)),
    # Light from above is the rule: the lower half of directions is squeezed.
    y=float(reach * np.sin(angle) * 0.8 - 0.15),
    ambient=float(rng.uniform(0.5, 0.75)),
    diffuse=float(rng.uniform(0.35, 0.6)),
    tint=tuple(rng.normal(1, 0.035, 3).tolist()),
  )


def sample(seed: int, split: str) -> Scene:
  """Draws the scene of a seed from a split's identities.

  Args:
    seed: sample number, 0 or more.
    split: "train", "validation" or "test".

  Raises:
    ValueError: unknown split, or a negative seed.
  """
  if split not in IDENTITIES:
    raise ValueError(f"unknown split {split!r} - expected one of {', '.join(IDENTITIES)}")
  if seed < 0:
    raise ValueError(f"seed is {seed} - expected 0 or more - number the samples from 0")
  rng = np.random.default_rng([_SAMPLE_STREAM, list(IDENTITIES).index(split), seed])
  person = identity(IDENTITIES[split][int(rng.integers(len(IDENTITIES[split])))])
  expression = _pick(rng, EXPRESSIONS)
  units = _action_units(rng, expression)
  age = round(float(rng.uniform(*AGES)), 1)
  has = _attributes(rng, person, age)
  light = _light(rng)
  style = _style(rng, person, age, has)
  manipulated = rng.random() < 0.5
  return Scene(
    identity=person,
    age=age,
    expression=expression,
    action_units=units,
    attributes=has,
    pose=Pose(
      yaw=float(np.clip(rng.normal(0, 10), -26, 26)),
      pitch=float(np.clip(rng.normal(0, 6), -15, 15)),
      roll=float(np.clip(rng.normal(0, 5), -14, 14)),
      scale=float(rng.uniform(0.325, 0.365)),
      centre=tuple((np.array((0.5, 0.46)) + rng.uniform(-0.03, 0.03, 2)).tolist()),
    ),
    light=light,
    style=style,
    sensor=Sensor(
      blur=float(rng.uniform(0, 0.7)),
      noise=float(rng.uniform(0.5, 6)),
      gain=float(rng.uniform(0.85, 1.15)),
      jpeg=int(rng.integers(55, 96)) if rng.random() < 0.4 else 0,
    ),
    seam=_seam(rng, light, person.skin) if manipulated else None,
    noise_seed=int(rng.integers(2**31)),
  )
