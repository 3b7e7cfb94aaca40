"""The first and last bytes of a file -> what it is, whatever its name says. Nothing is decoded."""

import struct
from pathlib import PurePosixPath

# What media.py reads: suffix -> container. A suffix that is not here says nothing.
SUFFIXES = {
  **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
  **dict.fromkeys((".tif", ".tiff"), "TIFF"),
  **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), "PPM"),
  **dict.fromkeys((".mp4", ".m4v", ".mov", ".3gp", ".3g2"), "MP4"),
  **dict.fromkeys((".mkv", ".webm"), "Matroska"),
  **dict.fromkeys((".mpg", ".mpeg", ".vob"), "MPEG"),
  **{".png": "PNG", ".webp": "WebP", ".bmp": "BMP", ".gif": "GIF"},
  **{".avi": "AVI", ".flv": "FLV", ".ts": "MPEG-TS"},
}
PICTURES = ("JPEG", "PNG", "WebP", "BMP", "GIF", "TIFF", "PPM")
CLIPS = ("MP4", "Matroska", "AVI", "FLV", "MPEG", "MPEG-TS")
STAND_INS = {"HTML": "a web page", "LFS": "a Git LFS pointer", "XML": "an XML or SVG text"}
_STARTS = (
  (b"\xff\xd8\xff", "JPEG"),
  (b"\x89PNG\r\n\x1a\n", "PNG"),
  (b"GIF8", "GIF"),
  (b"BM", "BMP"),
  (b"II*\0", "TIFF"),
  (b"MM\0*", "TIFF"),
  (b"\x1aE\xdf\xa3", "Matroska"),
  (b"FLV\x01", "FLV"),
  (b"\0\0\x01\xba", "MPEG"),
  (b"version https://git-lfs", "LFS"),
)


def of(data: bytes) -> str:
  """The name of a file's format; "" where its first bytes say nothing."""
  for start, name in _STARTS:
    if data.startswith(start):
      return name
  if data[:4] == b"RIFF":
    return {b"WEBP": "WebP", b"AVI ": "AVI"}.get(data[8:12], "")
  if data[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
    return "MP4"
  if data[:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace():
    return "PPM"
  if data[:1] == b"G" and data[188:189] == b"G" and data[376:377] in (b"G", b""):
    return "MPEG-TS"
  text = data[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
  if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
    return "HTML"
  return "XML" if text.startswith((b"<?xml", b"<svg")) else ""


def said(name: str) -> str:
  """The format that a file's suffix speaks of; "" where it says nothing."""
  return SUFFIXES.get(PurePosixPath(name).suffix.lower(), "")


def cut_short(data: bytes) -> bool:
  """Whether a file misses its end, by what its format says of it."""
  match of(data):
    case "JPEG":
      return b"\xff\xd9" not in data[-65_536:]
    case "PNG":
      return b"IEND" not in data[-65_536:]
    case "GIF":
      return not data.rstrip(b"\0").endswith(b";")
    case "BMP":
      return len(data) >= 6 and struct.unpack_from("<I", data, 2)[0] > len(data)
    case "WebP" | "AVI":
      return struct.unpack_from("<I", data, 4)[0] + 8 > len(data) if len(data) >= 8 else True
    case "MP4":
      return _boxes_end(data)
    case "Matroska":
      return _segment_ends(data)
  return False


def _boxes_end(data: bytes) -> bool:
  """Whether an MP4's boxes reach beyond its end, or its table of frames is missing."""
  at, seen = 0, set()
  while at + 8 <= len(data):
    size, name = struct.unpack_from(">I4s", data, at)
    if size == 1 and at + 16 <= len(data):
      size = struct.unpack_from(">Q", data, at + 8)[0]
    elif size == 0:
      size = len(data) - at
    if size < 8:
      return False  # no box: damaged, not cut
    seen.add(name)
    at += size
  return at > len(data) or b"moov" not in seen


def _segment_ends(data: bytes) -> bool:
  """Whether a Matroska segment reaches beyond its file; one of unknown length does not."""
  at = data.find(b"\x18\x53\x80\x67", 0, 4096) + 4
  if at < 4 or at >= len(data):
    return True
  width = 9 - data[at].bit_length()  # leading zeros of the first byte say how long the number is
  size = int.from_bytes(data[at : at + width], "big") & ((1 << 7 * width) - 1)
  unknown = size == (1 << 7 * width) - 1
  return not unknown and at + width + size > len(data)
