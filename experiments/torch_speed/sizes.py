"""What both sides know; nothing is imported here, as memory is measured."""

IMAGE = 7999  # the id that stands for a picture's token in transformers
NEW = 64  # tokens of an answer that is decoded
RATE = 1e-4  # of AdamW
BATCH = 8  # samples of a padded step
CLIPS = 0.15  # share of the samples; the others are pictures
LENGTH = {"image": 311, "video": 2118}  # tokens of a sample
ANSWER = 30  # of them are the answer that is learnt
# Rows a step, tokens and pictures of a packed row, which has one clip at most.
PACKED = {"4 rows of 2192": (4, 2192, 7), "2 rows of 4000": (2, 4000, 6)}
