"""Words that state a label: the one table behind answers.py. Raise answers.VERSION with a change.

Entries are regular expressions over lower-case text, matched at word boundaries.
"""

from facejax.faces.action_units import ACTION_UNITS

# Names of an emotion; the first one that is affirmed is the answer.
EXPRESSIONS: dict[str, tuple[str, ...]] = {
  "neutral": (
    *("neutral", "neutrality", "calm", "calmness", "expressionless", "impassive", "emotionless"),
    *("no (?:clear |particular |strong |visible )?(?:expression|emotion)s?",),
  ),
  "happiness": (
    *("happiness", "happy", "happily", "joy", "joyful", "joyous", "cheerful", "cheerfulness"),
    *("delight", "delighted", "amusement", "amused", "glad", "pleased"),
  ),
  "sadness": (
    *("sadness", "sad", "sadly", "sorrow", "sorrowful", "unhappy", "unhappiness", "grief"),
    *("melancholy", "melancholic", "dejected", "gloomy", "depressed"),
  ),
  "surprise": (
    *("surprise", "surprised", "astonished", "astonishment", "amazed", "amazement"),
    *("shock", "shocked", "startled"),
  ),
  "fear": (
    *("fear", "fearful", "afraid", "scared", "frightened", "fright", "terror", "terrified"),
    *("horrified", "panic", "anxiety", "anxious"),
  ),
  "disgust": ("disgust", "disgusted", "revulsion", "repulsed", "revolted", "repugnance"),
  "anger": (
    *("anger", "angry", "angrily", "furious", "fury", "rage", "enraged", "mad", "irritated"),
    *("irritation", "annoyed", "annoyance", "hostile", "hostility"),
  ),
  "contempt": ("contempt", "contemptuous", "disdain", "disdainful", "scorn", "scornful"),
}
# What a face does; counts only where no emotion is named.
BEHAVIOUR: dict[str, tuple[str, ...]] = {
  "happiness": ("smile", "smiles", "smiling", "laugh", "laughs", "laughing", "grin", "grinning"),
  "sadness": ("cry", "cries", "crying", "tearful", "weeping"),
  "anger": ("scowl", "scowls", "scowling"),
  "disgust": ("sneer", "sneers", "sneering"),
}

# FACS names and how prose turns them.
UNITS: dict[int, tuple[str, ...]] = {
  unit: (name.replace(" ", "[ -]"),) for unit, name in ACTION_UNITS.items()
}
for _unit, _more in {
  1: ("inner (?:eye)?brows? (?:is |are )?rais(?:e|ed|ing)", "inner eyebrow raiser"),
  2: ("outer (?:eye)?brows? (?:is |are )?rais(?:e|ed|ing)", "outer eyebrow raiser"),
  4: (
    "(?:eye)?brows? (?:is |are )?(?:lowered|furrowed)",
    "furrowed (?:eye)?brows?",
    "eyebrow lowerer",
  ),
  5: ("upper (?:eye)?lids? (?:is |are )?raised", "upper eyelid raiser"),
  6: ("cheeks? (?:is |are )?raised", "raised cheeks?"),
  7: ("(?:eye)?lids? (?:is |are )?(?:tightened|tense)", "eyelid tightener"),
  9: ("nose (?:is )?wrinkled", "wrinkled nose", "nose wrinkle"),
  10: ("upper lip (?:is )?raised", "raised upper lip"),
  12: ("lip corners? (?:is |are )?pulled (?:up|upwards?)",),
  14: ("dimples?",),
  15: ("lip corners? (?:is |are )?(?:depressed|pulled down|pulled downwards?)",),
  17: ("chin (?:is )?raised", "raised chin"),
  20: ("lips? (?:is |are )?stretched",),
  23: ("lips? (?:is |are )?tightened",),
  24: ("lips? (?:is |are )?pressed(?: together)?",),
  25: ("lips? (?:is |are )?(?:parted|apart)", "parted lips"),
  26: ("jaw (?:is )?(?:dropped|drops)", "dropped jaw"),
}.items():
  UNITS[_unit] += _more

_HAIR = r"(?:[ ,-]+(?!hair|and|eyes?|skin)[\w-]+){0,3}?[ ,-]+hair(?:ed)?"
# CelebA's attributes. No_Beard, Male and Young have rules of their own in answers.py.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
  "5_o_Clock_Shadow": (r"(?:5|five)[ -_]?o'?[ -_]?clock[ -_]shadow", "stubble"),
  "Arched_Eyebrows": ("arched (?:eye)?brows?", "(?:eye)?brows? (?:is |are )?arched"),
  "Attractive": ("attractive", "beautiful", "handsome", "pretty", "good[ -]looking"),
  "Bags_Under_Eyes": (
    "(?:eye )?bags under (?:the |his |her |their )?eyes",
    "eye bags",
    "bags under eyes",
  ),
  "Bald": ("bald", "baldness", "bald[ -]headed"),
  "Bangs": ("bangs", "a fringe"),
  "Big_Lips": (
    "(?:big|full|fuller|thick|plump|large) lips",
    "lips (?:is |are )?(?:big|full|plump)",
  ),
  "Big_Nose": ("(?:big|large|wide|broad|prominent) nose",),
  "Black_Hair": (
    "black" + _HAIR,
    "hair (?:is|looks|appears) (?:very )?(?:black|dark)",
    "dark hair",
  ),
  "Blond_Hair": ("blonde?" + _HAIR, "hair (?:is|looks|appears) (?:\\w+ )?blonde?", "a blonde"),
  "Blurry": ("blurry", "blurred", "out of focus"),
  "Brown_Hair": ("brown" + _HAIR, "hair (?:is|looks|appears) (?:\\w+ )?brown", "brunette"),
  "Bushy_Eyebrows": ("(?:bushy|thick|full) (?:eye)?brows?",),
  "Chubby": ("chubby", "plump face", "plump cheeks", "round and full face", "overweight"),
  "Double_Chin": ("double chin",),
  "Eyeglasses": ("eye ?glasses", "glasses", "spectacles", "sunglasses"),
  "Goatee": ("goatee",),
  "Gray_Hair": (
    "(?:gr[ae]y|white|silver)" + _HAIR,
    "hair (?:is|looks|appears) (?:\\w+ )?(?:gr[ae]y|white)",
  ),
  "Heavy_Makeup": ("heavy make-?up", "make-?up", "wearing make-?up"),
  "High_Cheekbones": (
    "(?:high|prominent|pronounced|defined) cheekbones",
    "cheekbones (?:is |are )?high",
  ),
  "Mouth_Slightly_Open": (
    "mouth (?:is )?(?:slightly |partly |partially )?open",
    "(?:slightly |partly )?open mouth",
    "lips (?:is |are )?(?:slightly )?(?:parted|apart)",
    "(?:slightly )?parted lips",
    "showing (?:his |her |their )?teeth",
  ),
  "Mustache": ("mo?ustached?",),
  "Narrow_Eyes": ("(?:narrow|squinting|squinted) eyes", "eyes (?:is |are )?(?:narrow|narrowed)"),
  "Oval_Face": ("oval(?:[ -]shaped)? face", "face (?:is )?oval", "oval face shape"),
  "Pale_Skin": ("(?:pale|fair|very light) (?:skin|complexion|skin tone)", "skin (?:is )?pale"),
  "Pointy_Nose": ("(?:pointy|pointed|sharp) nose", "nose (?:is )?(?:pointy|pointed)"),
  "Receding_Hairline": ("receding (?:hair ?line|hair)", "hairline (?:is )?receding"),
  "Rosy_Cheeks": ("(?:rosy|flushed|pink) cheeks", "cheeks (?:is |are )?(?:rosy|flushed)", "blush"),
  "Sideburns": ("sideburns",),
  "Smiling": ("smile", "smiles", "smiling", "grin", "grinning", "laughing"),
  "Straight_Hair": ("straight" + _HAIR, "hair (?:is|looks|appears) (?:\\w+ )?straight"),
  "Wavy_Hair": (
    "(?:wavy|curly|waved)" + _HAIR,
    "hair (?:is|looks|appears) (?:\\w+ )?(?:wavy|curly)",
  ),
  "Wearing_Earrings": ("ear-?rings?",),
  "Wearing_Hat": ("hat", "cap", "beanie", "headwear"),
  "Wearing_Lipstick": ("lipstick", "lip gloss", "painted lips"),
  "Wearing_Necklace": ("necklaces?",),
  "Wearing_Necktie": ("neck-?ties?", "ties?", "bow ?tie"),
}
BEARD = ("beards?", "bearded", "facial hair", "goatee", "stubble", "mo?ustached?", "unshaven")
BEARDLESS = ("clean[ -]shaven", "beardless", "no beard", "no_beard")
YOUNG = (
  "young",
  "youthful",
  "younger",
  "teen",
  "teens",
  "teenage",
  "teenager",
  "child",
  "boy",
  "girl",
)
OLD = (
  "(?<!year )(?<!years )(?<!years-)(?<!year-)old",
  "older",
  "elderly",
  "aged",
  "middle[ -]aged",
  "senior",
  "mature",
)
MALE = ("man", "men", "male", "boy", "gentleman", "guy", "he", "his", "him")
FEMALE = ("woman", "women", "female", "girl", "lady", "she", "her", "hers")

FAKE = (
  *("fake", "faked", "fakery", "deepfake", "deep fake", "manipulated", "manipulation", "altered"),
  *("alteration", "tampered", "tampering", "artificial", "artificially", "fabricated", "forged"),
  *("synthetic", "synthesized", "doctored", "face[ -]swap(?:ped)?", "generated"),
)
REAL = ("real", "authentic", "authenticity", "genuine", "unaltered", "unmanipulated", "original")

# FairFace's seven groups, in the table's own names.
RACES: dict[str, tuple[str, ...]] = {
  "White": ("white", "caucasian", "european"),
  "Black": ("black", "african", "african[ -]american"),
  "Indian": ("indian", "south asian"),
  "East Asian": ("east[ -]asian", "chinese", "japanese", "korean"),
  "Southeast Asian": (
    *("south[ -]?east[ -]asian", "vietnamese", "thai", "filipino", "indonesian", "malay"),
  ),
  "Middle Eastern": ("middle[ -]eastern(?:er)?", "arab", "arabic", "persian"),
  "Latino_Hispanic": ("latin[oax](?:[ _/-]?(?:or )?hispanic)?", "hispanic"),
}
