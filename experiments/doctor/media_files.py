"""Damage to files: media, landmarks, class maps. One function a kind."""

import io
import os
import struct
import zlib
from collections.abc import Callable

import av
import numpy as np
from folder import FRAMES, SIZE, Folder, encoded, points, video
from PIL import Image


def _with(folder: Folder, data: bytes, *kinds: str, suffix: str = ".png") -> None:
  """A good record whose picture is replaced by these bytes."""
  record = folder.sample(suffix)
  folder.write(record["image"], data)
  folder.add(record, *kinds)


def _points(folder: Folder, change: Callable[[np.ndarray], np.ndarray], *kinds: str) -> None:
  """A good record whose landmarks are changed."""
  record = folder.sample()
  path = folder.path / record["landmarks_2d"]
  np.save(path, change(np.load(path)))
  folder.add(record, *kinds)


def _map(folder: Folder, change: Callable[[np.ndarray], np.ndarray], *kinds: str) -> None:
  """A good record whose class map is changed."""
  record = folder.sample()
  path = folder.path / record["segmentation"]
  ids = change(np.array(Image.open(path)))
  record["segmentation"] = folder.array(f"{path.stem}.npy", ids)
  folder.add(record, *kinds)


# Paths


def a_path_out_of_the_folder(folder: Folder) -> None:
  folder.add({**folder.sample(), "image": "../secret.png"}, "path_outside")


def a_link_out_of_the_folder(folder: Folder) -> None:
  (folder.path / "link.png").symlink_to("/etc/hostname")
  folder.add({**folder.sample(), "image": "link.png"}, "path_outside")


def a_missing_picture(folder: Folder) -> None:
  folder.add({**folder.sample(), "image": "gone.png"}, "missing_file")


def a_folder_in_place_of_a_picture(folder: Folder) -> None:
  (folder.path / "pictures.png").mkdir()
  folder.add({**folder.sample(), "image": "pictures.png"}, "not_a_file")


def a_pipe_in_place_of_a_picture(folder: Folder) -> None:
  os.mkfifo(folder.path / "pipe.png")
  folder.add({**folder.sample(), "image": "pipe.png"}, "not_a_file")


# Pictures


def an_empty_picture(folder: Folder) -> None:
  _with(folder, b"", "empty_file")


def a_file_of_600_mib(folder: Folder) -> None:
  record = folder.sample()
  os.truncate(folder.path / record["image"], 600 * 2**20)
  folder.add(record, "oversized_file")


def a_git_lfs_pointer(folder: Folder) -> None:
  _with(folder, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "stand_in_file")


def a_web_page(folder: Folder) -> None:
  _with(folder, b"<!DOCTYPE html><html>404 Not Found</html>", "stand_in_file", suffix=".jpg")


def a_clip_in_place_of_a_picture(folder: Folder) -> None:
  _with(folder, video(np.zeros((3, SIZE, SIZE, 3), np.uint8)), "wrong_kind")


def half_a_jpeg(folder: Folder) -> None:
  data = encoded(folder.face().image, ".jpg")
  _with(folder, data[: len(data) // 2], "truncated", suffix=".jpg")


def half_a_png(folder: Folder) -> None:
  data = encoded(folder.face().image, ".png")
  _with(folder, data[: len(data) // 2], "truncated")


def random_bytes(folder: Folder) -> None:
  _with(folder, np.random.default_rng(0).bytes(5000), "undecodable")


def a_png_with_a_flipped_byte(folder: Folder) -> None:
  data = bytearray(encoded(folder.face().image, ".png"))
  data[len(data) // 2] ^= 0xFF
  _with(folder, bytes(data), "undecodable")


def a_png_that_says_it_has_900_megapixels(folder: Folder) -> None:
  head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
  chunk = struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
  data = b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 4) + b"IDAT" + bytes(8)
  _with(folder, data, "oversized_media")


def floating_point_pixels(folder: Folder) -> None:
  buffer = io.BytesIO()
  Image.fromarray(np.random.default_rng(0).random((SIZE, SIZE), np.float32)).save(buffer, "TIFF")
  record = folder.sample()
  record["image"] = folder.write("float.tif", buffer.getvalue())
  folder.add(record, "undecodable")


def a_jpeg_named_png(folder: Folder) -> None:
  _with(folder, encoded(folder.face().image, ".jpg"), "wrong_suffix")


def a_picture_of_eight_pixels(folder: Folder) -> None:
  _with(folder, encoded(folder.face().image[20:28, 20:28], ".png"), "tiny_media")


def a_strip(folder: Folder) -> None:
  strip = np.tile(folder.face().image[:33], (1, 7, 1))
  record = folder.sample()
  folder.write(record["image"], encoded(strip, ".png"))
  folder.add(record, "extreme_shape", "landmarks_not_square", "segmentation_size")


def an_animation(folder: Folder) -> None:
  buffer = io.BytesIO()
  frames = [Image.fromarray(folder.face().image) for _ in range(3)]
  frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
  _with(folder, buffer.getvalue(), "animation", suffix=".gif")


def a_black_picture(folder: Folder) -> None:
  _with(folder, encoded(np.zeros((SIZE, SIZE, 3), np.uint8), ".png"), "blank_media")


def a_picture_that_is_grey_below(folder: Folder) -> None:
  pixels = folder.face().image.copy()
  pixels[SIZE // 2 :] = 128
  _with(folder, encoded(pixels, ".png"), "half_grey")


def a_picture_that_exif_turns(folder: Folder) -> None:
  exif = Image.Exif()
  exif[0x0112] = 6
  record = folder.sample(".jpg")
  folder.write(record["image"], encoded(folder.face().image, ".jpg", exif=exif))
  folder.add(record, "rotated_picture")


# Clips


def half_a_clip(folder: Folder) -> None:
  folder.add(folder.clip_sample(lambda data: data[: len(data) // 2]), "truncated")


def half_a_clip_that_still_decodes(folder: Folder) -> None:
  record = folder.clip_sample(lambda data: data[:-40], ".mkv")
  del record["landmarks_2d"]
  folder.add(record, "truncated")


def a_clip_without_frames(folder: Folder) -> None:
  cut = lambda data: data[: data.index(b"movi") + 4]
  folder.add(folder.clip_sample(cut, ".avi"), "zero_frames")


def a_clip_without_pictures(folder: Folder) -> None:
  buffer = io.BytesIO()
  with av.open(buffer, "w", format="mp4") as container:
    stream = container.add_stream("aac", rate=8000)
    sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
    sound.rate, sound.pts = 8000, 0
    container.mux(stream.encode(sound))
    container.mux(stream.encode())
  folder.add(folder.clip_sample(lambda data: buffer.getvalue()), "no_video_stream")


def a_picture_in_place_of_a_clip(folder: Folder) -> None:
  data = encoded(folder.face().image, ".png")
  folder.add(folder.clip_sample(lambda _: data), "wrong_kind")


def a_clip_of_three_frames(folder: Folder) -> None:
  record = folder.clip_sample()
  frames = np.stack([folder.face().image for _ in range(3)])
  folder.write(record["video"], video(frames))
  record["landmarks_2d"] = None
  folder.add(record, "short_clip")


def a_clip_that_stands_still(folder: Folder) -> None:
  record = folder.clip_sample()
  folder.write(record["video"], _motion_jpeg(folder.face().image))
  folder.add(record, "frozen_clip", "wrong_suffix")


def a_clip_with_black_frames(folder: Folder) -> None:
  record = folder.clip_sample()
  frames = [folder.face().image for _ in range(FRAMES)]
  frames[:6] = [np.zeros((SIZE, SIZE, 3), np.uint8)] * 6
  folder.write(record["video"], video(np.stack(frames)))
  folder.add(record, "blank_media")


def a_clip_that_takes_forever(folder: Folder) -> None:
  """A few megabytes: 3,000 frames of 4096x4096 that say 'as before'."""
  size, buffer = 4096, io.BytesIO()
  black = av.VideoFrame.from_ndarray(np.zeros((size, size, 3), np.uint8), format="rgb24")
  with av.open(buffer, "w", format="avi") as container:
    stream = container.add_stream("mpeg4", rate=100)
    stream.width = stream.height = size
    stream.pix_fmt = "yuv420p"
    packets = []
    for black.pts in range(3):
      packets += stream.encode(black)
    packets += stream.encode()
    for i in range(3000):
      packet = av.Packet(bytes(packets[-1] if i else packets[0]))
      packet.stream, packet.time_base = stream, packets[0].time_base
      packet.pts = packet.dts = i
      packet.is_keyframe = not i
      container.mux(packet)
  record = folder.clip_sample(lambda _: buffer.getvalue(), ".avi")
  (folder.path / record["landmarks_2d"]).write_bytes(b"")  # it is still looked at
  folder.add(record, "decoder_timeout", "empty_file")


def _motion_jpeg(frame: np.ndarray) -> bytes:
  """One coded frame again and again."""
  buffer = io.BytesIO()
  with av.open(buffer, "w", format="avi") as container:
    stream = container.add_stream("mjpeg", rate=10)
    stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuvj420p"
    coded = [*stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")), *stream.encode()]
    for i in range(FRAMES):
      packet = av.Packet(bytes(coded[0]))
      packet.stream, packet.time_base, packet.is_keyframe = stream, coded[0].time_base, True
      packet.pts = packet.dts = i
      container.mux(packet)
  return buffer.getvalue()


# Landmarks


def landmarks_in_an_archive(folder: Folder) -> None:
  record = folder.sample()
  np.savez(folder.path / "points.npz", points(folder.face().landmarks))
  folder.add({**record, "landmarks_2d": "points.npz"}, "landmarks_unreadable")


def pickled_landmarks(folder: Folder) -> None:
  record = folder.sample()
  np.save(folder.path / record["landmarks_2d"], np.array([{"x": 1}], object))
  folder.add(record, "landmarks_unreadable")


def five_landmarks(folder: Folder) -> None:
  _points(folder, lambda p: p[:5], "landmarks_shape")


def landmarks_that_are_nan(folder: Folder) -> None:
  _points(
    folder, lambda p: np.where(np.arange(68)[:, None] == 9, np.nan, p), "landmarks_not_finite"
  )


def few_landmarks_and_nan(folder: Folder) -> None:
  _points(folder, lambda p: p[:5] * np.nan, "landmarks_shape", "landmarks_not_finite")


def landmarks_of_the_photograph(folder: Folder) -> None:
  _points(folder, lambda p: p + 900, "landmarks_outside")


def landmarks_in_shares(folder: Folder) -> None:
  _points(folder, lambda p: p / 256, "landmarks_normalised")


def landmarks_of_zeros(folder: Folder) -> None:
  _points(folder, lambda p: p * 0, "landmarks_collapsed")


def landmarks_of_a_mirrored_face(folder: Folder) -> None:
  _points(folder, lambda p: np.array([256, 0], np.float32) - p * [1, -1], "landmarks_mirrored")


def landmarks_with_swapped_axes(folder: Folder) -> None:
  _points(folder, lambda p: p[:, ::-1].copy(), "landmarks_turned")


def landmarks_of_an_oblong_picture(folder: Folder) -> None:
  record = folder.sample()
  folder.write(record["image"], encoded(folder.face().image[:48], ".png"))
  folder.add(record, "landmarks_not_square", "segmentation_size")


def landmarks_of_another_clip(folder: Folder) -> None:
  record = folder.clip_sample()
  path = folder.path / record["landmarks_2d"]
  np.save(path, np.load(path)[:-1])
  folder.add(record, "landmarks_frames")


def a_clip_with_frames_without_landmarks(folder: Folder) -> None:
  record = folder.clip_sample()
  path = folder.path / record["landmarks_2d"]
  array = np.load(path)
  array[5:] = 0
  np.save(path, array)
  folder.add(record, "landmarks_collapsed")


# Class maps


def half_a_class_map(folder: Folder) -> None:
  record = folder.sample()
  path = folder.path / record["segmentation"]
  path.write_bytes(path.read_bytes()[:60])
  folder.add(record, "segmentation_unreadable")


def a_class_map_in_colours(folder: Folder) -> None:
  record = folder.sample()
  folder.write(record["segmentation"], encoded(folder.face().image, ".png"))
  folder.add(record, "segmentation_mode")


def a_class_map_of_shares(folder: Folder) -> None:
  _map(folder, lambda ids: ids / 19, "segmentation_shape")


def a_class_map_of_another_label_set(folder: Folder) -> None:
  _map(folder, lambda ids: ids + np.uint8(20), "segmentation_classes")


def a_class_map_of_a_part(folder: Folder) -> None:
  _map(folder, lambda ids: ids[: SIZE // 2], "segmentation_size")


def a_class_map_of_one_class(folder: Folder) -> None:
  _map(folder, lambda ids: ids * 0, "segmentation_blank")


def class_maps_of_another_clip(folder: Folder) -> None:
  record = folder.clip_sample()
  maps = np.stack([folder.face().segmentation for _ in range(FRAMES - 1)])
  record["segmentation"] = folder.array("maps.npy", maps)
  folder.add(record, "segmentation_frames")


PLANTS: tuple[Callable[[Folder], None], ...] = tuple(
  value
  for name, value in list(globals().items())
  if callable(value) and getattr(value, "__module__", "") == __name__ and name[0] != "_"
)
