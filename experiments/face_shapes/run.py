"""Where the landmarks of drawn faces lie: writes assets/face_shapes.npz, a minute on one core.

python experiments/face_shapes/run.py [--faces 6000]
"""

import argparse
from pathlib import Path

import numpy as np

from facejax.faces import landmarks, synthetic

TARGET = Path(__file__).parents[2] / "src/facejax/assets/face_shapes.npz"
SIZE = 112  # pixels; landmarks are exact whatever it is


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--faces", type=int, default=6000)
  faces = parser.parse_args().faces
  points = np.stack([synthetic.face(seed, size=SIZE).landmarks / SIZE for seed in range(faces)])
  # No drawn face prefers a side, so its mirror image is as good a sample.
  points = np.concatenate([points, landmarks.mirror(points, 1)]).reshape(2 * faces, -1)
  np.savez_compressed(
    TARGET,
    mean=points.mean(0).astype(np.float32),
    covariance=np.cov(points.T).astype(np.float32),
  )
  values = np.linalg.eigvalsh(np.cov(points.T))[::-1]
  print(f"{TARGET}: {TARGET.stat().st_size / 1e3:.0f} kB from {faces} faces")
  print(
    "deviation along the principal ways 1, 10, 20, 40:", np.sqrt(values[[0, 9, 19, 39]]).round(4)
  )


if __name__ == "__main__":
  main()
