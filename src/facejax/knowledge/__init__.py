"""Facial knowledge: what labels go together by chance, what by necessity. scores [B N] -> scores.

    labels.py         which labels there are, and a table of them
    tables.py         released label tables, CSV files -> LabelTable
    rules.py          rules as data: files in assets/rules, read and checked
    cooccurrence.py   label table -> exact counts of pairs -> a graph of labels
    constraint.py     features, prompts, graph -> scores; their loss      (correlation constraint)
    violations.py     scores -> how far each rule is broken; its loss     (logical constraint)
    projection.py     scores -> the nearest scores that keep the rules
    training_free.py  answers of a frozen model, counts -> scores
    handoff.py        scores -> words in front of a question
    consistency.py    answers -> share that break a rule, calibration, rare labels

After FaceInsight (arXiv 2504.15624), whose code is not published; each module says what the paper
gives and what is our choice. Axis letters here: B images, S samples, N labels, d width of prompts.
"""
